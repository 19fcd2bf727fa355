package apiserver

import (
	"bufio"
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/skiff-run/skiff/internal/pki"
)

// patience is how long what has to end may take on a busy machine. It is less
// than what would end by itself: nothing here does.
const patience = 30 * time.Second

func TestWatchesEndWhenTheServerStops(t *testing.T) {
	t.Parallel()
	s := serve(t, t.TempDir(), nil)
	client, err := kubernetes.NewForConfig(s.admin)
	if err != nil {
		t.Fatal(err)
	}
	watch, err := client.CoreV1().ConfigMaps("").Watch(t.Context(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer watch.Stop()
	ended := make(chan error, 1)
	go func() { ended <- s.stop() }()
	// Without being told, the watch would hold the server for a minute.
	limit := time.After(patience)
	for open := true; open; {
		select {
		case _, open = <-watch.ResultChan():
		case <-limit:
			t.Fatal("the watch goes on")
		}
	}
	select {
	case err := <-ended:
		if err != nil {
			t.Error(err)
		}
	case <-limit:
		t.Fatal("the server does not end")
	}
}

// Logs that are followed and streams into containers last as long as the
// container does; they must not hold a server that stops.
func TestLogsAndStreamsEndWhenTheServerStops(t *testing.T) {
	t.Parallel()
	s := serve(t, t.TempDir(), func(c *Config) { c.AgentPort = endlessAgent(t, c.PKIDir) })
	client, err := kubernetes.NewForConfig(s.admin)
	if err != nil {
		t.Fatal(err)
	}
	runningPod(t, client)
	log, err := client.CoreV1().Pods("default").GetLogs("endless", &corev1.PodLogOptions{Follow: true}).Stream(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	open := map[string]*bufio.Reader{"log": bufio.NewReader(log)}
	for _, subresource := range []string{"exec", "attach", "portforward"} {
		open[subresource] = upgrade(t, s.admin, "/api/v1/namespaces/default/pods/endless/"+subresource+"?command=sh&stdin=true&stdout=true")
	}
	for name, reader := range open {
		if line, err := reader.ReadString('\n'); err != nil || line != "begins\n" {
			t.Fatalf("%s begins with %q, %v", name, line, err)
		}
	}

	ends := make(chan string)
	for name, reader := range open {
		go func() {
			_, _ = io.Copy(io.Discard, reader) // however it ends
			ends <- name
		}()
	}
	ended := make(chan error, 1)
	go func() { ended <- s.stop() }()
	limit := time.After(patience)
	for waiting, server := len(open), true; waiting > 0 || server; {
		select {
		case name := <-ends:
			delete(open, name)
			waiting--
		case err := <-ended:
			if err != nil {
				t.Error(err)
			}
			server = false
		case <-limit:
			t.Fatalf("still open: %v; the server runs: %v", keys(open), server)
		}
	}
}

func keys[T any](m map[string]T) (names []string) {
	for name := range m {
		names = append(names, name)
	}
	return names
}

// endlessAgent is an agent on loopback, known to the cluster by its
// certificate. What it is asked for begins with a line and never ends by itself.
// It returns its port.
func endlessAgent(t *testing.T, pkiDir string) int {
	t.Helper()
	authority, err := pki.EnsureControl(pki.Control{Dir: pkiDir, ServiceCIDR: "10.96.0.0/16", ClusterDomain: "cluster.local"})
	if err != nil {
		t.Fatal(err)
	}
	if err := authority.EnsureAgent(pkiDir, "n1", []net.IP{net.IPv4(127, 0, 0, 1)}); err != nil {
		t.Fatal(err)
	}
	certificate, err := tls.LoadX509KeyPair(filepath.Join(pkiDir, "agent-server.crt"), filepath.Join(pkiDir, "agent-server.key"))
	if err != nil {
		t.Fatal(err)
	}
	agent := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Upgrade") == "" {
			_, _ = io.WriteString(w, "begins\n")
			_ = http.NewResponseController(w).Flush()
			<-r.Context().Done()
			return
		}
		connection, buffer, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Errorf("hijack: %v", err)
			return
		}
		defer func() { _ = connection.Close() }()
		_, _ = io.WriteString(connection, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\n\r\nbegins\n")
		_, _ = io.Copy(io.Discard, buffer) // until the API server leaves
	}))
	agent.TLS = &tls.Config{Certificates: []tls.Certificate{certificate}}
	agent.StartTLS()
	t.Cleanup(agent.Close)
	return agent.Listener.Addr().(*net.TCPAddr).Port
}

// runningPod makes a node on loopback and the pod "endless" on it.
func runningPod(t *testing.T, client kubernetes.Interface) {
	t.Helper()
	node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n1"}, Status: corev1.NodeStatus{
		Addresses: []corev1.NodeAddress{{Type: corev1.NodeInternalIP, Address: "127.0.0.1"}},
	}}
	if _, err := client.CoreV1().Nodes().Create(t.Context(), node, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	account := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: "default"}}
	if _, err := client.CoreV1().ServiceAccounts("default").Create(t.Context(), account, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "endless"}, Spec: corev1.PodSpec{NodeName: "n1", Containers: []corev1.Container{{Name: "c", Image: "i"}}}}
	if _, err := client.CoreV1().Pods("default").Create(t.Context(), pod, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
}

// upgrade opens a stream as a client that speaks SPDY does, and returns what
// comes back on it.
func upgrade(t *testing.T, config *rest.Config, path string) *bufio.Reader {
	t.Helper()
	tlsConfig, err := rest.TLSConfigFor(config)
	if err != nil {
		t.Fatal(err)
	}
	tlsConfig.NextProtos = []string{"http/1.1"}
	address := strings.TrimPrefix(config.Host, "https://")
	connection, err := tls.Dial("tcp", address, tlsConfig)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = connection.Close() })
	_, err = io.WriteString(connection, "POST "+path+" HTTP/1.1\r\nHost: "+address+"\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\nContent-Length: 0\r\n\r\n")
	if err != nil {
		t.Fatal(err)
	}
	reader := bufio.NewReader(connection)
	response, err := http.ReadResponse(reader, nil)
	if err != nil {
		t.Fatal(err)
	}
	if response.StatusCode != http.StatusSwitchingProtocols {
		t.Fatalf("%s: status is %s, want 101", path, response.Status)
	}
	return reader
}
