package main

import (
	"encoding/json"
	"encoding/pem"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strconv"
	"sync"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
)

// api serves lists from memory and sends what changes to those who watch.
type api struct {
	server *httptest.Server
	lists  map[string][]byte

	mu       sync.Mutex // guards what follows
	revision int
	watchers map[string][]chan []byte
}

func newAPI(l net.Listener, size int) (*api, error) {
	a := &api{lists: map[string][]byte{}, revision: 1, watchers: map[string][]chan []byte{}}
	services := &corev1.ServiceList{TypeMeta: metav1.TypeMeta{Kind: "ServiceList", APIVersion: "v1"}}
	slices := &discoveryv1.EndpointSliceList{TypeMeta: metav1.TypeMeta{Kind: "EndpointSliceList", APIVersion: "discovery.k8s.io/v1"}}
	for i := range size {
		services.Items = append(services.Items, service(i))
		slices.Items = append(slices.Items, *slice(i, addresses(i, size)))
	}
	node := corev1.Node{
		ObjectMeta: metav1.ObjectMeta{Name: "here", UID: "here"}, Spec: corev1.NodeSpec{PodCIDR: "10.244.0.0/24", PodCIDRs: []string{"10.244.0.0/24"}},
		Status: corev1.NodeStatus{Addresses: []corev1.NodeAddress{{Type: corev1.NodeInternalIP, Address: "192.0.2.1"}}},
	}
	for path, list := range map[string]any{
		"/api/v1/services": services, "/apis/discovery.k8s.io/v1/endpointslices": slices,
		"/api/v1/nodes": &corev1.NodeList{TypeMeta: metav1.TypeMeta{Kind: "NodeList", APIVersion: "v1"}, Items: []corev1.Node{node}},
		"/apis/networking.k8s.io/v1/servicecidrs": map[string]any{"kind": "ServiceCIDRList", "apiVersion": "networking.k8s.io/v1", "metadata": map[string]string{}, "items": []any{}},
	} {
		data, err := json.Marshal(list)
		if err != nil {
			return nil, fmt.Errorf("encode %s: %w", path, err)
		}
		a.lists[path] = data
	}
	node.TypeMeta = metav1.TypeMeta{Kind: "Node", APIVersion: "v1"}
	one, err := json.Marshal(node)
	if err != nil {
		return nil, fmt.Errorf("encode the node: %w", err)
	}
	a.lists["/api/v1/nodes/here"] = one
	a.server = httptest.NewUnstartedServer(a)
	a.server.Listener.Close()
	a.server.Listener, a.server.EnableHTTP2 = l, true
	a.server.StartTLS()
	return a, nil
}

func (a *api) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	list, known := a.lists[r.URL.Path]
	w.Header().Set("Content-Type", "application/json")
	switch {
	case r.Method == http.MethodPost: // events
		w.WriteHeader(http.StatusCreated)
		fmt.Fprint(w, "{}")
	case !known:
		w.WriteHeader(http.StatusNotFound)
		_ = json.NewEncoder(w).Encode(metav1.Status{TypeMeta: metav1.TypeMeta{Kind: "Status", APIVersion: "v1"}, Status: "Failure", Reason: metav1.StatusReasonNotFound, Code: http.StatusNotFound})
	case r.URL.Query().Get("sendInitialEvents") != "":
		// Whoever asks to begin with a watch lists instead.
		w.WriteHeader(http.StatusUnprocessableEntity)
		_ = json.NewEncoder(w).Encode(metav1.Status{TypeMeta: metav1.TypeMeta{Kind: "Status", APIVersion: "v1"}, Status: "Failure", Reason: metav1.StatusReasonInvalid, Code: http.StatusUnprocessableEntity})
	case r.URL.Query().Get("watch") != "":
		a.watch(w, r)
	default:
		_, _ = w.Write(list) // the client is gone if this fails
	}
}

func (a *api) watch(w http.ResponseWriter, r *http.Request) {
	events := make(chan []byte, 100)
	a.mu.Lock()
	a.watchers[r.URL.Path] = append(a.watchers[r.URL.Path], events)
	a.mu.Unlock()
	control := http.NewResponseController(w)
	_ = control.Flush()
	for {
		select {
		case <-r.Context().Done():
			return
		case event := <-events:
			if _, err := w.Write(event); err != nil {
				return
			}
			_ = control.Flush()
		}
	}
}

// update tells of a slice that changed.
func (a *api) update(s *discoveryv1.EndpointSlice) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.revision++
	s.ResourceVersion = strconv.Itoa(a.revision)
	s.TypeMeta = metav1.TypeMeta{Kind: "EndpointSlice", APIVersion: "discovery.k8s.io/v1"}
	event, err := json.Marshal(map[string]any{"type": "MODIFIED", "object": s})
	if err != nil {
		return fmt.Errorf("encode a change: %w", err)
	}
	for _, watcher := range a.watchers["/apis/discovery.k8s.io/v1/endpointslices"] {
		watcher <- event
	}
	return nil
}

// kubeconfig writes the way to the API into a file.
func (a *api) kubeconfig(file string) error {
	ca := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: a.server.Certificate().Raw})
	caFile := file + ".ca"
	if err := os.WriteFile(caFile, ca, 0o600); err != nil {
		return fmt.Errorf("write the way to the API: %w", err)
	}
	text := fmt.Sprintf(`{"apiVersion":"v1","kind":"Config","current-context":"c","contexts":[{"name":"c","context":{"cluster":"c","user":"u"}}],
"clusters":[{"name":"c","cluster":{"server":%q,"certificate-authority":%q}}],"users":[{"name":"u","user":{"token":"anything"}}]}`, a.server.URL, caFile)
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		return fmt.Errorf("write the way to the API: %w", err)
	}
	return nil
}

func clusterIP(i int) string { return fmt.Sprintf("10.96.%d.%d", i/250, i%250+1) }

func service(i int) corev1.Service {
	return corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name(i), UID: "uid", ResourceVersion: "1"},
		Spec: corev1.ServiceSpec{
			Type: corev1.ServiceTypeClusterIP, ClusterIP: clusterIP(i), ClusterIPs: []string{clusterIP(i)}, SessionAffinity: corev1.ServiceAffinityNone,
			IPFamilies: []corev1.IPFamily{corev1.IPv4Protocol}, InternalTrafficPolicy: ptr.To(corev1.ServiceInternalTrafficPolicyCluster),
			Ports: []corev1.ServicePort{{Name: "http", Protocol: corev1.ProtocolTCP, Port: 80}},
		},
	}
}

func name(i int) string { return fmt.Sprintf("s%05d", i) }

// probe is the service whose one endpoint changes.
func probe(size int) int { return size / 3 }

func addresses(i, size int) []string {
	if i == probe(size) {
		return []string{podA(i, 0)}
	}
	var all []string
	for j := range 10 {
		all = append(all, podA(i, j))
	}
	return all
}

func podA(i, j int) string {
	n := i*10 + j
	return fmt.Sprintf("10.%d.%d.%d", 128+n/62500, n/250%250, n%250+1)
}

func slice(i int, endpoints []string) *discoveryv1.EndpointSlice {
	s := &discoveryv1.EndpointSlice{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: "default", Name: name(i) + "-x", UID: "uid", ResourceVersion: "1",
			Labels: map[string]string{discoveryv1.LabelServiceName: name(i), discoveryv1.LabelManagedBy: "endpointslice-controller.k8s.io"},
		},
		AddressType: discoveryv1.AddressTypeIPv4,
		Ports:       []discoveryv1.EndpointPort{{Name: ptr.To("http"), Port: ptr.To[int32](podPort), Protocol: ptr.To(corev1.ProtocolTCP)}},
	}
	for _, address := range endpoints {
		s.Endpoints = append(s.Endpoints, discoveryv1.Endpoint{
			Addresses: []string{address}, NodeName: ptr.To("elsewhere"),
			Conditions: discoveryv1.EndpointConditions{Ready: ptr.To(true), Serving: ptr.To(true), Terminating: ptr.To(false)},
		})
	}
	return s
}
