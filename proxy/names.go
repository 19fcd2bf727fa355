package proxy

import (
	"net/netip"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/client-go/tools/cache"
)

// byAddress is the index by which names of addresses are found.
const byAddress = "address"

// clusterAddresses are those of a service.
func clusterAddresses(object any) ([]string, error) {
	service, ok := object.(*corev1.Service)
	if !ok {
		return nil, nil
	}
	if len(service.Spec.ClusterIPs) > 0 {
		return canonical(service.Spec.ClusterIPs), nil
	}
	return canonical([]string{service.Spec.ClusterIP}), nil
}

// headlessAddresses are those of a headless service's endpoints. Others have no
// name by address, and there can be very many.
func headlessAddresses(object any) ([]string, error) {
	slice, ok := object.(*discoveryv1.EndpointSlice)
	if !ok {
		return nil, nil
	}
	_, all := slice.Labels[corev1.IsHeadlessService]
	var out []string
	for i := range slice.Endpoints {
		// Slices that people make lack the label, but host names are for this.
		if e := &slice.Endpoints[i]; all || e.Hostname != nil {
			out = append(out, canonical(e.Addresses)...)
		}
	}
	return out, nil
}

func canonical(texts []string) []string {
	var out []string
	for _, text := range texts {
		if address, err := netip.ParseAddr(text); err == nil {
			out = append(out, address.String())
		}
	}
	return out
}

// source lets the name server read what the proxy watches.
type source struct{ proxy *Proxy }

func (s *source) Service(namespace, name string) *corev1.Service {
	service, err := s.proxy.services.Services(namespace).Get(name)
	if err != nil {
		return nil
	}
	return service
}

func (s *source) Slices(namespace, service string) []*discoveryv1.EndpointSlice {
	return s.proxy.slicesOf(namespace, service)
}

func (s *source) Namespace(name string) bool {
	_, err := s.proxy.namespaces.Get(name)
	return err == nil
}

func (s *source) ServicesAt(address netip.Addr) []*corev1.Service {
	return at[*corev1.Service](s.proxy.factory.Core().V1().Services().Informer().GetIndexer(), address)
}

func (s *source) SlicesAt(address netip.Addr) []*discoveryv1.EndpointSlice {
	return at[*discoveryv1.EndpointSlice](s.proxy.slices, address)
}

func at[T any](indexer cache.Indexer, address netip.Addr) []T {
	objects, err := indexer.ByIndex(byAddress, address.String())
	if err != nil {
		return nil
	}
	out := make([]T, 0, len(objects))
	for _, object := range objects {
		if typed, ok := object.(T); ok {
			out = append(out, typed)
		}
	}
	return out
}
