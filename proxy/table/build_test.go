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
	"k8s.io/apimachinery/pkg/types"
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

// endpoint notation: address, then r for ready, s serving, t terminating, l
// local, then hints: z and n for our zone and node, Z and N for others.
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
		hints := &discoveryv1.EndpointHints{}
		for flag, name := range map[string]string{"z": "our-zone", "Z": "their-zone"} {
			if *has(flag) {
				hints.ForZones = append(hints.ForZones, discoveryv1.ForZone{Name: name})
			}
		}
		for flag, name := range map[string]string{"n": "here", "N": "other"} {
			if *has(flag) {
				hints.ForNodes = append(hints.ForNodes, discoveryv1.ForNode{Name: name})
			}
		}
		s.Endpoints = append(s.Endpoints, discoveryv1.Endpoint{
			Addresses: []string{address}, NodeName: &node, Hints: hints,
			Conditions: discoveryv1.EndpointConditions{Ready: has("r"), Serving: has("s"), Terminating: has("t")},
		})
	}
	return s
}

func here() Node {
	return Node{Name: "here", Zone: "our-zone", Addresses: []netip.Addr{netip.MustParseAddr("192.0.2.1")}, Excluded: []netip.Addr{netip.MustParseAddr("10.96.0.10")}}
}

func build(s *corev1.Service, endpointSlices ...*discoveryv1.EndpointSlice) *Table {
	return Build(here(), []*corev1.Service{s}, func(_, _ string) []*discoveryv1.EndpointSlice { return endpointSlices })
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
		s.Spec.Ports[0].NodePort = 30080
	}
	for name, tc := range map[string]struct {
		service            *corev1.Service
		slices             []*discoveryv1.EndpointSlice
		internal, external []string
		has                bool
	}{
		"ready ones only":                          {service(), []*discoveryv1.EndpointSlice{slice("10.0.0.2 rs", "10.0.0.1 rs", "10.0.0.3")}, []string{"10.0.0.1:8080", "10.0.0.2:8080"}, []string{"10.0.0.1:8080", "10.0.0.2:8080"}, true},
		"terminating ones that serve as last hope": {service(), []*discoveryv1.EndpointSlice{slice("10.0.0.1 st", "10.0.0.2 t")}, []string{"10.0.0.1:8080"}, []string{"10.0.0.1:8080"}, true},
		"none":                                                                {service(), nil, nil, nil, false},
		"local ones for internal traffic":                                     {service(internalLocal), []*discoveryv1.EndpointSlice{slice("10.0.0.1 rs", "10.0.0.2 rsl")}, []string{"10.0.0.2:8080"}, nil, true},
		"local ones for external traffic":                                     {service(externalLocal), []*discoveryv1.EndpointSlice{slice("10.0.0.1 rs", "10.0.0.2 rsl")}, []string{"10.0.0.1:8080", "10.0.0.2:8080"}, []string{"10.0.0.2:8080"}, true},
		"a policy that leaves none here":                                      {service(externalLocal), []*discoveryv1.EndpointSlice{slice("10.0.0.1 rs")}, []string{"10.0.0.1:8080"}, nil, true},
		"ready ones here before terminating ones here":                        {service(externalLocal), []*discoveryv1.EndpointSlice{slice("10.0.0.1 rs", "10.0.0.2 stl", "10.0.0.3 rsl")}, []string{"10.0.0.1:8080", "10.0.0.3:8080"}, []string{"10.0.0.3:8080"}, true},
		"terminating ones here though others are ready elsewhere":             {service(externalLocal), []*discoveryv1.EndpointSlice{slice("10.0.0.1 rs", "10.0.0.2 stl")}, []string{"10.0.0.1:8080"}, []string{"10.0.0.2:8080"}, true},
		"a terminating one that is ready, as publishNotReadyAddresses has it": {service(), []*discoveryv1.EndpointSlice{slice("10.0.0.1 rt")}, []string{"10.0.0.1:8080"}, []string{"10.0.0.1:8080"}, true},
		"those of our zone":                                                   {service(), []*discoveryv1.EndpointSlice{slice("10.0.0.1 rsz", "10.0.0.2 rsZ", "10.0.0.3 rszZ")}, []string{"10.0.0.1:8080", "10.0.0.3:8080"}, []string{"10.0.0.1:8080", "10.0.0.3:8080"}, true},
		"all when one has no hint":                                            {service(), []*discoveryv1.EndpointSlice{slice("10.0.0.1 rsz", "10.0.0.2 rs")}, []string{"10.0.0.1:8080", "10.0.0.2:8080"}, []string{"10.0.0.1:8080", "10.0.0.2:8080"}, true},
		"all when none is for our zone":                                       {service(), []*discoveryv1.EndpointSlice{slice("10.0.0.1 rsZ", "10.0.0.2 rsZ")}, []string{"10.0.0.1:8080", "10.0.0.2:8080"}, []string{"10.0.0.1:8080", "10.0.0.2:8080"}, true},
		"those of our node before those of our zone":                          {service(), []*discoveryv1.EndpointSlice{slice("10.0.0.1 rsznl", "10.0.0.2 rszN")}, []string{"10.0.0.1:8080"}, []string{"10.0.0.1:8080"}, true},
		"those of our zone when none is for our node":                         {service(), []*discoveryv1.EndpointSlice{slice("10.0.0.1 rszN", "10.0.0.2 rsZN")}, []string{"10.0.0.1:8080"}, []string{"10.0.0.1:8080"}, true},
		"hints of those that are not ready do not matter":                     {service(), []*discoveryv1.EndpointSlice{slice("10.0.0.1 rsz", "10.0.0.2 rsZ", "10.0.0.3 st")}, []string{"10.0.0.1:8080"}, []string{"10.0.0.1:8080"}, true},
		"local ones whatever the hints":                                       {service(internalLocal), []*discoveryv1.EndpointSlice{slice("10.0.0.1 rsz", "10.0.0.2 rsZl")}, []string{"10.0.0.2:8080"}, nil, true},
		"slices of headless services are not for us": {service(), []*discoveryv1.EndpointSlice{func() *discoveryv1.EndpointSlice {
			s := slice("10.0.0.1 rs")
			s.Labels = map[string]string{corev1.IsHeadlessService: ""}
			return s
		}()}, nil, nil, false},
		"addresses of the wrong family are left out": {service(), []*discoveryv1.EndpointSlice{slice("10.0.0.1 rs", "fd00::1 rs", "nonsense rs")}, []string{"10.0.0.1:8080"}, []string{"10.0.0.1:8080"}, true},
		"one that moves between slices only once":    {service(), []*discoveryv1.EndpointSlice{slice("10.0.0.1"), slice("10.0.0.1 rs")}, []string{"10.0.0.1:8080"}, []string{"10.0.0.1:8080"}, true},
	} {
		t.Run(name, func(t *testing.T) {
			ports := build(tc.service, tc.slices...).Ports
			if len(ports) != 1 {
				t.Fatalf("%d ports", len(ports))
			}
			p := ports[0]
			if !slices.Equal(text(p.Internal()), tc.internal) || !slices.Equal(text(p.External()), tc.external) || p.HasEndpoints != tc.has {
				t.Errorf("got internal %v external %v has %v", text(p.Internal()), text(p.External()), p.HasEndpoints)
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
		"one labelled headless":         {func(s *corev1.Service) { s.Labels = map[string]string{corev1.IsHeadlessService: ""} }, 0},
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
		s.Spec.LoadBalancerSourceRanges = []string{" 198.51.100.7/24", "198.51.100.128/25"}
		s.Spec.SessionAffinity = corev1.ServiceAffinityClientIP
		s.Status.LoadBalancer.Ingress = []corev1.LoadBalancerIngress{{IP: "203.0.113.6"}, {IP: "203.0.113.7", IPMode: &proxyMode}}
	})).Ports[0]
	if p.NodePort != 30080 || len(p.ExternalIPs) != 1 || len(p.LoadBalancerIPs) != 1 || p.LoadBalancerIPs[0].String() != "203.0.113.6" || p.Affinity != 3*time.Hour {
		t.Errorf("got %+v", p)
	}
	if len(p.SourceRanges) != 1 || p.SourceRanges[0].String() != "198.51.100.0/24" {
		t.Errorf("source ranges %v", p.SourceRanges)
	}
}

func TestANodeThatMayUseALoadBalancerMayFromItsAddressToo(t *testing.T) {
	t.Parallel()
	p := build(service(func(s *corev1.Service) {
		s.Spec.Type, s.Spec.LoadBalancerSourceRanges = corev1.ServiceTypeLoadBalancer, []string{"192.0.2.0/24"}
		s.Status.LoadBalancer.Ingress = []corev1.LoadBalancerIngress{{IP: "203.0.113.6"}}
	})).Ports[0]
	if len(p.SourceRanges) != 2 || p.SourceRanges[1].String() != "203.0.113.6/32" {
		t.Errorf("source ranges %v", p.SourceRanges)
	}
}

func TestWhatTwoServicesClaimTheOlderGets(t *testing.T) {
	t.Parallel()
	claims := func(name string, age int, options ...func(*corev1.Service)) *corev1.Service {
		s := service(func(s *corev1.Service) {
			s.Name, s.CreationTimestamp = name, metav1.NewTime(time.Unix(int64(100-age), 0))
			s.Spec.Type, s.Spec.Ports[0].NodePort, s.Spec.ExternalIPs = corev1.ServiceTypeNodePort, 30080, []string{"203.0.113.5"}
			s.Spec.ClusterIPs = []string{"10.96.1." + name}
			s.Spec.ClusterIP = s.Spec.ClusterIPs[0]
		})
		for _, option := range options {
			option(s)
		}
		return s
	}
	young, old := claims("1", 1), claims("2", 2)
	thief := claims("3", 50, func(s *corev1.Service) { s.Spec.Ports[0].NodePort, s.Spec.ExternalIPs = 30081, []string{"10.96.1.1"} })
	built := Build(here(), []*corev1.Service{young, old, thief}, func(_, _ string) []*discoveryv1.EndpointSlice { return nil })
	got := map[string]*ServicePort{}
	for _, p := range built.Ports {
		got[p.Service.Name] = p
	}
	if got["2"].NodePort != 30080 || len(got["2"].ExternalIPs) != 1 || got["1"].NodePort != 0 || len(got["1"].ExternalIPs) != 0 {
		t.Errorf("old %+v\nyoung %+v", got["2"], got["1"])
	}
	if len(got["3"].ExternalIPs) != 0 || got["3"].NodePort != 30081 {
		t.Errorf("a cluster address was taken: %+v", got["3"])
	}
	if want := (Conflict{Claim: "30080/TCP", Port: "default/1:http", Holder: "default/2:http"}); len(built.Conflicts) != 3 || !slices.Contains(built.Conflicts, want) {
		t.Errorf("conflicts %+v", built.Conflicts)
	}
}

func TestHealthChecksCountReadyPodsHere(t *testing.T) {
	t.Parallel()
	checked := service(func(s *corev1.Service) {
		s.Spec.Type, s.Spec.ExternalTrafficPolicy, s.Spec.HealthCheckNodePort = corev1.ServiceTypeLoadBalancer, corev1.ServiceExternalTrafficPolicyLocal, 32000
		s.Spec.Ports = append(s.Spec.Ports, corev1.ServicePort{Name: "other", Port: 81, Protocol: corev1.ProtocolTCP})
	})
	eps := slice("10.0.0.1 rs", "10.0.0.2 rsl", "10.0.0.3 stl", "10.0.0.4 rsl")
	eps.Ports = append(eps.Ports, discoveryv1.EndpointPort{Name: ptr.To("other"), Port: ptr.To[int32](8081)})
	got := build(checked, eps).HealthChecks
	if want := (HealthCheck{Service: types.NamespacedName{Namespace: "default", Name: "web"}, Port: 32000, LocalEndpoints: 2}); len(got) != 1 || got[0] != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
	checked.Spec.ExternalTrafficPolicy = corev1.ServiceExternalTrafficPolicyCluster
	if got := build(checked, eps).HealthChecks; len(got) != 0 {
		t.Errorf("policy Cluster: got %+v", got)
	}
}

func TestABuilderKeepsWhatDidNotChange(t *testing.T) {
	t.Parallel()
	one := service()
	two := service(func(s *corev1.Service) {
		s.Name, s.Spec.ClusterIP, s.Spec.ClusterIPs = "two", "10.96.0.8", []string{"10.96.0.8"}
	})
	eps := map[string][]*discoveryv1.EndpointSlice{"web": {slice("10.0.0.1 rs")}, "two": {slice("10.0.0.2 rs")}}
	slicesOf := func(_, name string) []*discoveryv1.EndpointSlice { return eps[name] }
	var b Builder
	before := b.Build(here(), []*corev1.Service{one, two}, slicesOf)
	eps["two"] = []*discoveryv1.EndpointSlice{slice("10.0.0.3 rs")}
	after := b.Build(here(), []*corev1.Service{two, one}, slicesOf)
	if before.Ports[1] != after.Ports[1] || before.Ports[0] == after.Ports[0] || after.Ports[0].Cluster[0].Address.String() != "10.0.0.3:8080" {
		t.Errorf("before %+v %+v, after %+v %+v", before.Ports[0], before.Ports[1], after.Ports[0], after.Ports[1])
	}
	elsewhere := here()
	elsewhere.Zone = "another"
	if again := b.Build(elsewhere, []*corev1.Service{two, one}, slicesOf); again.Ports[1] == after.Ports[1] {
		t.Error("the node changed and the table did not")
	}
}

func TestAddressesOfNodePorts(t *testing.T) {
	t.Parallel()
	node := here()
	for _, tc := range []struct {
		texts, want []string
		bad         bool
	}{
		{nil, []string{"0.0.0.0/0", "::/0"}, false},
		{[]string{"primary"}, []string{"192.0.2.1/32"}, false},
		{[]string{"198.51.100.0/24", "198.51.100.128/25", "10.0.0.1/8"}, []string{"10.0.0.0/8", "198.51.100.0/24"}, false},
		{[]string{"primary", "10.0.0.0/8"}, nil, true},
		{[]string{"10.0.0.1"}, nil, true},
	} {
		addresses, err := ParseNodePortAddresses(tc.texts)
		if (err != nil) != tc.bad {
			t.Errorf("%v: error %v", tc.texts, err)
		}
		if err != nil {
			continue
		}
		node.NodePorts = addresses
		var got []string
		for _, prefix := range Build(node, nil, nil).NodePortRanges {
			got = append(got, prefix.String())
		}
		if !slices.Equal(got, tc.want) {
			t.Errorf("%v: got %v, want %v", tc.texts, got, tc.want)
		}
	}
}
