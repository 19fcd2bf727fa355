package apiserver

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/skiff-run/skiff/raftstore"
)

// Every API server keeps a lease in the store while it serves, and publishes
// the addresses of all that have one as the endpoints of the service
// default/kubernetes: pods, agents and proxies find the API there, and one that
// died vanishes when its lease ends, whoever is left.
const (
	serverLeases = "/skiff.dev/apiservers/"
	// leaseSeconds and renewEvery are Kubernetes' figures.
	leaseSeconds = 15
	renewEvery   = 10 * time.Second
	// lookEvery is how often the leases are compared with what is published: a
	// look at memory.
	lookEvery = time.Second
)

// kubernetesName is the service's name, and that of its endpoints.
const kubernetesName = "kubernetes"

// publish keeps this server's lease and the endpoints until ctx ends, and gives
// the lease up then, so that nobody is sent here any more.
func (s *Server) publish(ctx context.Context) {
	ticker := time.NewTicker(lookEvery)
	defer ticker.Stop()
	var renewed, written time.Time
	var published []string
	for {
		if time.Since(renewed) >= renewEvery {
			if err := s.renewLease(ctx); err == nil {
				renewed = time.Now()
			} else if ctx.Err() == nil {
				s.config.Logger.Warn("say that this API server serves; trying again", "error", err)
			}
		}
		addresses, err := s.servers()
		// Others may have written something else since: look again now and then.
		if err == nil && (!slices.Equal(addresses, published) || time.Since(written) >= renewEvery) {
			if err = s.publishEndpoints(ctx, addresses); err == nil {
				published, written = addresses, time.Now()
			}
		}
		if err != nil && ctx.Err() == nil {
			s.config.Logger.Warn("publish the endpoints of the API; trying again", "error", err)
		}
		select {
		case <-ctx.Done():
			s.giveUpLease(context.WithoutCancel(ctx))
			return
		case <-ticker.C:
		}
	}
}

func (s *Server) leaseKey() string { return serverLeases + s.config.AdvertiseAddress.String() }

func (s *Server) renewLease(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, renewEvery/2)
	defer cancel()
	_, err := s.config.Store.Put(ctx, raftstore.PutRequest{
		Key: s.leaseKey(), Value: []byte("{}"), ExpectModRevision: raftstore.AnyRevision, TTLSeconds: leaseSeconds,
	})
	return err
}

func (s *Server) giveUpLease(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	if _, err := s.config.Store.Delete(ctx, raftstore.DeleteRequest{Key: s.leaseKey(), ExpectModRevision: raftstore.AnyRevision}); err != nil {
		s.config.Logger.Debug("give up the lease of this API server; it ends by itself", "error", err)
	}
}

// servers are the addresses of all API servers with a lease, in order. Without
// any, because the store was just restored, this one's.
func (s *Server) servers() ([]string, error) {
	found, err := s.config.Store.Range(serverLeases, "", 0, 0)
	if err != nil {
		return nil, fmt.Errorf("read the leases of the API servers: %w", err)
	}
	var addresses []string
	for _, kv := range found.KVs {
		address, err := netip.ParseAddr(strings.TrimPrefix(kv.Key, serverLeases))
		if err != nil || address.Is6() != s.config.AdvertiseAddress.Is6() {
			continue
		}
		addresses = append(addresses, address.String())
	}
	if len(addresses) == 0 {
		addresses = []string{s.config.AdvertiseAddress.String()}
	}
	slices.Sort(addresses)
	return addresses, nil
}

// publishEndpoints writes the addresses where they are not yet written.
func (s *Server) publishEndpoints(ctx context.Context, addresses []string) error {
	subset := corev1.EndpointSubset{Ports: []corev1.EndpointPort{{Name: "https", Port: int32(s.config.AdvertisePort), Protocol: corev1.ProtocolTCP}}}
	for _, address := range addresses {
		subset.Addresses = append(subset.Addresses, corev1.EndpointAddress{IP: address})
	}
	wanted := &corev1.Endpoints{
		ObjectMeta: metav1.ObjectMeta{Namespace: metav1.NamespaceDefault, Name: kubernetesName, Labels: map[string]string{discoveryv1.LabelSkipMirror: "true"}},
		Subsets:    []corev1.EndpointSubset{subset},
	}
	endpoints := s.client.CoreV1().Endpoints(metav1.NamespaceDefault)
	current, err := endpoints.Get(ctx, kubernetesName, metav1.GetOptions{})
	switch {
	case apierrors.IsNotFound(err):
		_, err = endpoints.Create(ctx, wanted, metav1.CreateOptions{})
	case err == nil && !apiequality.Semantic.DeepEqual(current.Subsets, wanted.Subsets):
		changed := current.DeepCopy()
		changed.Subsets = wanted.Subsets
		_, err = endpoints.Update(ctx, changed, metav1.UpdateOptions{})
	}
	if err != nil && !elsewhere(err) {
		return fmt.Errorf("publish endpoints of the API: %w", err)
	}
	return s.publishSlice(ctx, addresses)
}

func (s *Server) publishSlice(ctx context.Context, addresses []string) error {
	wanted := &discoveryv1.EndpointSlice{
		ObjectMeta:  metav1.ObjectMeta{Namespace: metav1.NamespaceDefault, Name: kubernetesName, Labels: map[string]string{discoveryv1.LabelServiceName: kubernetesName}},
		AddressType: discoveryv1.AddressTypeIPv4,
		Ports:       []discoveryv1.EndpointPort{{Name: ptr.To("https"), Port: ptr.To(int32(s.config.AdvertisePort)), Protocol: ptr.To(corev1.ProtocolTCP)}},
	}
	if s.config.AdvertiseAddress.Is6() {
		wanted.AddressType = discoveryv1.AddressTypeIPv6
	}
	for _, address := range addresses {
		wanted.Endpoints = append(wanted.Endpoints, discoveryv1.Endpoint{Addresses: []string{address}, Conditions: discoveryv1.EndpointConditions{Ready: ptr.To(true)}})
	}
	endpointSlices := s.client.DiscoveryV1().EndpointSlices(metav1.NamespaceDefault)
	current, err := endpointSlices.Get(ctx, kubernetesName, metav1.GetOptions{})
	switch {
	case apierrors.IsNotFound(err):
		_, err = endpointSlices.Create(ctx, wanted, metav1.CreateOptions{})
	case err == nil && (!apiequality.Semantic.DeepEqual(current.Endpoints, wanted.Endpoints) || !apiequality.Semantic.DeepEqual(current.Ports, wanted.Ports)):
		changed := current.DeepCopy()
		changed.Endpoints, changed.Ports = wanted.Endpoints, wanted.Ports
		_, err = endpointSlices.Update(ctx, changed, metav1.UpdateOptions{})
	}
	if err != nil && !elsewhere(err) {
		return fmt.Errorf("publish endpoint slice of the API: %w", err)
	}
	return nil
}

// elsewhere says that another API server wrote at the same moment, surely the
// same; the next look tells.
func elsewhere(err error) bool { return apierrors.IsAlreadyExists(err) || apierrors.IsConflict(err) }
