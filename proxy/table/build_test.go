package table

import (
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
)

func service(options ...func(*corev1.Service)) *corev1.Service {
	s := &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "web"},
		Spec: corev1.ServiceSpec{
			Type: corev1.ServiceTypeClusterIP, ClusterIP: "10.96.0.9", ClusterIPs: []string{"10.96.0.9"},
			Ports: []corev1.ServicePort{{Name: "http", Protocol: corev1.ProtocolTCP, Port: 80}},
		},
	}
	for _, option := range options {
		option(s)
	}
	return s
}

// endpoint notation: address, then r for ready, s serving, t terminating, l local.
func slice(endpoints ...string) *discoveryv1.EndpointSlice {
	s := &discoveryv1.EndpointSlice{
		AddressType: discoveryv1.AddressTypeIPv4,
		Ports:       []discoveryv1.EndpointPort{{Name: ptr.To("http"), Protocol: ptr.To(corev1.ProtocolTCP), Port: ptr.To[int32](8080)}},
	}
	for _, text := range endpoints {
		address, flags, _ := strings.Cut(text, " ")
		has := func(flag string) *bool { return ptr.To(strings.Contains(flags, flag)) }
		node := "other"
		if *has("l") {
			node = "here"
		}
		s.Endpoints = append(s.Endpoints, discoveryv1.Endpoint{
			Addresses: []string{address}, NodeName: &node,
			Conditions: discoveryv1.EndpointConditions{Ready: has("r"), Serving: has("s"), Terminating: has("t")},
		})
	}
	return s
}

func build(s *corev1.Service, endpointSlices ...*discoveryv1.EndpointSlice) *Table {
	return Build(Node{Name: "here", Excluded: []netip.Addr{netip.MustParseAddr("10.96.0.10")}}, []*corev1.Service{s},
		func(_, _ string) []*discoveryv1.EndpointSlice { return endpointSlices })
}

func text(endpoints []Endpoint) []string {
	var out []string
	for _, e := range endpoints {
		out = append(out, e.Address.String())
	}
	return out
}

func TestWhichEndpointsServe(t *testing.T) {
	t.Parallel()
	local := corev1.ServiceInternalTrafficPolicyLocal
	internalLocal := func(s *corev1.Service) { s.Spec.InternalTrafficPolicy = &local }
	externalLocal := func(s *corev1.Service) {
		s.Spec.Type, s.Spec.ExternalTrafficPolicy = corev1.ServiceTypeNodePort, corev1.ServiceExternalTrafficPolicyLocal
	}
	for name, tc := range map[string]struct {
		service            *corev1.Service
		slices             []*discoveryv1.EndpointSlice
		internal, external []string
		has                bool
	}{
		"ready ones only":                          {service(), []*discoveryv1.EndpointSlice{slice("10.0.0.2 rs", "10.0.0.1 rs", "10.0.0.3")}, []string{"10.0.0.1:8080", "10.0.0.2:8080"}, []string{"10.0.0.1:8080", "10.0.0.2:8080"}, true},
		"terminating ones that serve as last hope": {service(), []*discoveryv1.EndpointSlice{slice("10.0.0.1 st", "10.0.0.2 t")}, []string{"10.0.0.1:8080"}, []string{"10.0.0.1:8080"}, true},
		"none":                                    {service(), nil, nil, nil, false},
		"local ones for internal traffic":         {service(internalLocal), []*discoveryv1.EndpointSlice{slice("10.0.0.1 rs", "10.0.0.2 rsl")}, []string{"10.0.0.2:8080"}, []string{"10.0.0.1:8080", "10.0.0.2:8080"}, true},
		"local ones for external traffic":         {service(externalLocal), []*discoveryv1.EndpointSlice{slice("10.0.0.1 rs", "10.0.0.2 rsl")}, []string{"10.0.0.1:8080", "10.0.0.2:8080"}, []string{"10.0.0.2:8080"}, true},
		"a policy that leaves none here":          {service(externalLocal), []*discoveryv1.EndpointSlice{slice("10.0.0.1 rs")}, []string{"10.0.0.1:8080"}, nil, true},
		"one that moves between slices only once": {service(), []*discoveryv1.EndpointSlice{slice("10.0.0.1"), slice("10.0.0.1 rs")}, []string{"10.0.0.1:8080"}, []string{"10.0.0.1:8080"}, true},
	} {
		t.Run(name, func(t *testing.T) {
			ports := build(tc.service, tc.slices...).Ports
			if len(ports) != 1 {
				t.Fatalf("%d ports", len(ports))
			}
			p := ports[0]
			if !slices.Equal(text(p.Internal), tc.internal) || !slices.Equal(text(p.External), tc.external) || p.HasEndpoints != tc.has {
				t.Errorf("got internal %v external %v has %v", text(p.Internal), text(p.External), p.HasEndpoints)
			}
		})
	}
}

func TestWhichServicesAreServed(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		option func(*corev1.Service)
		ports  int
	}{
		"a plain one":                   {func(*corev1.Service) {}, 1},
		"headless":                      {func(s *corev1.Service) { s.Spec.ClusterIP = "None" }, 0},
		"an external name":              {func(s *corev1.Service) { s.Spec.Type = corev1.ServiceTypeExternalName }, 0},
		"one of another proxy":          {func(s *corev1.Service) { s.Labels = map[string]string{LabelServiceProxyName: "theirs"} }, 0},
		"the name server's own address": {func(s *corev1.Service) { s.Spec.ClusterIP, s.Spec.ClusterIPs = "10.96.0.10", []string{"10.96.0.10"} }, 0},
		"both families":                 {func(s *corev1.Service) { s.Spec.ClusterIPs = append(s.Spec.ClusterIPs, "fd00::9") }, 2},
	} {
		t.Run(name, func(t *testing.T) {
			if got := len(build(service(tc.option)).Ports); got != tc.ports {
				t.Errorf("%d ports, want %d", got, tc.ports)
			}
		})
	}
}

func TestAddressesFromOutside(t *testing.T) {
	t.Parallel()
	proxyMode := corev1.LoadBalancerIPModeProxy
	p := build(service(func(s *corev1.Service) {
		s.Spec.Type, s.Spec.Ports[0].NodePort = corev1.ServiceTypeLoadBalancer, 30080
		s.Spec.ExternalIPs = []string{"203.0.113.5", "2001:db8::5"}
		s.Spec.LoadBalancerSourceRanges = []string{" 198.51.100.7/24"}
		s.Spec.SessionAffinity = corev1.ServiceAffinityClientIP
		s.Status.LoadBalancer.Ingress = []corev1.LoadBalancerIngress{{IP: "203.0.113.6"}, {IP: "203.0.113.7", IPMode: &proxyMode}}
	})).Ports[0]
	if p.NodePort != 30080 || len(p.ExternalIPs) != 2 || p.ExternalIPs[1].String() != "203.0.113.6" || p.SourceRanges[0].String() != "198.51.100.0/24" || p.Affinity != 3*time.Hour {
		t.Errorf("got %+v", p)
	}
}
