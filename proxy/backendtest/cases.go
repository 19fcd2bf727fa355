package backendtest

import (
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
)

// offer is a service and its endpoints.
type offer struct {
	// second is at the address service2 instead of service.
	second    bool
	with      []option
	endpoints []string
}

type option func(*world, *corev1.Service)

// expectation is what who connects to a place and port sees, by TCP and by UDP.
type expectation struct {
	from, to string
	// answers are the endpoints that answer, all of them and no others; or one of
	// refused, silent, and unserved, which is anything but an answer.
	answers []string
	// source is the place whose address the endpoint sees, kept for the client's
	// own, changed for any other; empty: not looked at.
	source string
}

type testCase struct {
	name string
	// nodePorts are nodePortAddresses, by place or range.
	nodePorts []string
	offers    []offer
	expect    []expectation
}

func one(endpoints []string, with ...option) []offer {
	return []offer{{with: with, endpoints: endpoints}}
}

func nodePort(_ *world, s *corev1.Service) {
	s.Spec.Type = corev1.ServiceTypeNodePort
	s.Spec.Ports[0].NodePort, s.Spec.Ports[1].NodePort = 30080, 30080
}

func externalIP(w *world, s *corev1.Service) {
	s.Spec.ExternalIPs = []string{w.address("external").String()}
}

func externalLocal(_ *world, s *corev1.Service) {
	s.Spec.ExternalTrafficPolicy = corev1.ServiceExternalTrafficPolicyLocal
}

func internalLocal(_ *world, s *corev1.Service) {
	s.Spec.InternalTrafficPolicy = ptr.To(corev1.ServiceInternalTrafficPolicyLocal)
}

func balancer(mode corev1.LoadBalancerIPMode) option {
	return func(w *world, s *corev1.Service) {
		nodePort(w, s)
		s.Spec.Type = corev1.ServiceTypeLoadBalancer
		s.Status.LoadBalancer.Ingress = []corev1.LoadBalancerIngress{{IP: w.address("balancer").String(), IPMode: &mode}}
	}
}

func sourceRange(place string) option {
	return func(w *world, s *corev1.Service) {
		s.Spec.LoadBalancerSourceRanges = append(s.Spec.LoadBalancerSourceRanges, w.inFamily([]string{place})...)
	}
}

func affinity(_ *world, s *corev1.Service) { s.Spec.SessionAffinity = corev1.ServiceAffinityClientIP }

func age(hours int) option {
	return func(_ *world, s *corev1.Service) {
		s.CreationTimestamp = metav1.NewTime(time.Unix(1_000_000, 0).Add(-time.Duration(hours) * time.Hour))
	}
}

func label(key string) option {
	return func(_ *world, s *corev1.Service) { s.Labels = map[string]string{key: "theirs"} }
}

// ports gives the service as many more ports as Kubernetes has been seen to get.
func ports(count int) option {
	return func(_ *world, s *corev1.Service) {
		for i := range count {
			s.Spec.Ports = append(s.Spec.Ports, corev1.ServicePort{Name: fmt.Sprintf("p%d", i), Protocol: corev1.ProtocolTCP, Port: int32(1000 + i)})
		}
	}
}

var (
	refused  = []string{"refused"}
	silent   = []string{"silent"}
	unserved = []string{"unserved"}
	here0    = []string{"here0"}
	here1    = []string{"here1"}
	far      = []string{"far"}
	everyone = []string{"here0", "here1", "far"}
)

// cases are what every backend does. They run one after the other against one
// kernel, so each is also a change from the one before.
func cases() []testCase {
	return []testCase{
		{"the cluster address leads to every endpoint", nil, one(everyone), []expectation{
			{"here0", "service:80", everyone, ""}, {"node", "service:80", everyone, ""}, {"client", "service:80", everyone, "changed"},
		}},
		{"pods keep their address", nil, one(far), []expectation{{"here0", "service:80", far, "kept"}, {"here1", "service:80", far, "kept"}}},
		{"a pod reaches itself", nil, one(here0), []expectation{{"here0", "service:80", here0, "changed"}, {"here1", "service:80", here0, "kept"}}},
		{"without endpoints connections are refused", nil, one(nil, nodePort, externalIP), []expectation{
			{"here0", "service:80", refused, ""}, {"node", "service:80", refused, ""}, {"client", "service:80", refused, ""},
			{"client", "node:30080", refused, ""}, {"node", "node:30080", refused, ""}, {"client", "external:80", refused, ""}, {"here0", "external:80", refused, ""},
		}},
		{"endpoints that are not ready are none", nil, one([]string{"here0 not-ready", "far not-ready"}), []expectation{{"here1", "service:80", refused, ""}}},
		{"a port that no service has is refused", nil, one(here0), []expectation{{"here1", "service:81", refused, ""}, {"node", "service:81", refused, ""}, {"client", "service:81", refused, ""}}},
		{"node ports are served on every address of the node", nil, one(everyone, nodePort), []expectation{
			{"client", "node:30080", everyone, "changed"}, {"client", "second:30080", everyone, ""}, {"node", "node:30080", everyone, ""}, {"here0", "node:30080", everyone, ""},
			{"client", "node:80", refused, ""},
		}},
		{"node ports are served on the addresses of nodePortAddresses only", []string{"second"}, one(here0, nodePort), []expectation{
			{"client", "second:30080", here0, ""}, {"client", "node:30080", refused, ""},
		}},
		{"node ports are served on the node's primary address", []string{"primary"}, one(here0, nodePort), []expectation{
			{"client", "node:30080", here0, ""}, {"client", "second:30080", refused, ""},
		}},
		{"the policy Local keeps the client's address", nil, one(everyone, nodePort, externalIP, externalLocal), []expectation{
			{"client", "node:30080", []string{"here0", "here1"}, "kept"}, {"client", "external:80", []string{"here0", "here1"}, "kept"},
			{"here0", "external:80", everyone, ""}, {"node", "external:80", everyone, ""}, {"node", "node:30080", everyone, ""},
			{"here0", "service:80", everyone, ""},
		}},
		{"both policies Local do not hold for external addresses from inside", nil, one([]string{"here0", "far"}, nodePort, externalIP, externalLocal, internalLocal), []expectation{
			{"client", "external:80", here0, "kept"}, {"here1", "service:80", here0, "kept"}, {"node", "service:80", here0, ""},
			{"here1", "external:80", []string{"here0", "far"}, ""}, {"node", "external:80", []string{"here0", "far"}, ""}, {"node", "node:30080", []string{"here0", "far"}, ""},
		}},
		{"the policy Local and affinity", nil, one(everyone, nodePort, externalIP, externalLocal, affinity), []expectation{
			{"client", "node:30080", []string{"same"}, ""}, {"here0", "external:80", []string{"same"}, ""}, {"node", "external:80", []string{"same"}, ""},
		}},
		{"the policy Local without endpoints here is silent to the outside", nil, one(far, nodePort, externalIP, externalLocal), []expectation{
			{"client", "node:30080", silent, ""}, {"client", "external:80", silent, ""},
			{"here0", "external:80", far, "kept"}, {"node", "external:80", far, ""}, {"node", "node:30080", far, ""}, {"here0", "service:80", far, "kept"},
		}},
		{"the policy Local without any endpoint is refused", nil, one(nil, nodePort, externalLocal), []expectation{{"client", "node:30080", refused, ""}}},
		{"the policy Local falls back to endpoints here that terminate", nil, one([]string{"here0 terminating", "far"}, nodePort, externalLocal), []expectation{
			{"client", "node:30080", here0, "kept"}, {"here1", "service:80", far, ""},
		}},
		{"endpoints that terminate serve when there are no others", nil, one([]string{"here0 terminating", "here1 terminating not-ready"}), []expectation{{"far", "service:80", here0, ""}}},
		{"endpoints that terminate get nothing new while others serve", nil, one([]string{"here0 terminating", "here1"}), []expectation{{"far", "service:80", here1, ""}}},
		{"internal traffic with the policy Local stays here", nil, one([]string{"here0", "far"}, internalLocal), []expectation{
			{"here1", "service:80", here0, "kept"}, {"node", "service:80", here0, ""},
		}},
		{"internal traffic with the policy Local and no endpoint here is silent", nil, one(far, internalLocal, nodePort), []expectation{
			{"here1", "service:80", silent, ""}, {"node", "service:80", silent, ""}, {"client", "node:30080", far, ""},
		}},
		{"an external address is served", nil, one(here0, externalIP), []expectation{
			{"client", "external:80", here0, "changed"}, {"here1", "external:80", here0, ""}, {"client", "balancer:80", unserved, ""},
		}},
		{"a load balancer's address is served", nil, one(here0, balancer(corev1.LoadBalancerIPModeVIP)), []expectation{
			{"client", "balancer:80", here0, "changed"}, {"here1", "balancer:80", here0, ""},
		}},
		{"a load balancer that proxies is not passed by", nil, one(here0, balancer(corev1.LoadBalancerIPModeProxy)), []expectation{
			{"here1", "balancer:80", unserved, ""}, {"client", "node:30080", here0, ""},
		}},
		{"source ranges close the load balancer's address only", nil, one(here0, balancer(corev1.LoadBalancerIPModeVIP), sourceRange("client"), externalIP), []expectation{
			{"client", "balancer:80", here0, ""}, {"stranger", "balancer:80", silent, ""}, {"here1", "balancer:80", silent, ""},
			{"stranger", "external:80", here0, ""}, {"stranger", "node:30080", here0, ""}, {"stranger", "service:80", here0, ""},
		}},
		{"source ranges with the policy Local", nil, one(here0, balancer(corev1.LoadBalancerIPModeVIP), sourceRange("client"), externalLocal), []expectation{
			{"client", "balancer:80", here0, "kept"}, {"stranger", "balancer:80", silent, ""},
		}},
		{"a client keeps its endpoint", nil, one(everyone, affinity, nodePort), []expectation{
			{"here0", "service:80", []string{"same"}, ""}, {"client", "node:30080", []string{"same"}, ""}, {"node", "service:80", []string{"same"}, ""},
		}},
		{"a client whose endpoint went gets another and keeps that", nil, one(here1, affinity, nodePort), []expectation{{"here0", "service:80", here1, ""}, {"client", "node:30080", here1, ""}}},
		{"topology hints keep traffic in the zone", nil, one([]string{"here0 zone-b", "far zone-a"}), []expectation{{"here1", "service:80", far, ""}}},
		{"topology hints for other zones are ignored", nil, one([]string{"here0 zone-b", "far zone-c"}), []expectation{{"here1", "service:80", []string{"here0", "far"}, ""}}},
		{"a named port has another number at each endpoint", nil, one([]string{"here0", "far port=8081"}), []expectation{{"here1", "service:80", []string{"here0", "far"}, ""}}},
		{"of two services that claim the same the older is served", nil, []offer{
			{with: []option{nodePort, externalIP, age(1)}, endpoints: here0}, {second: true, with: []option{nodePort, externalIP, age(2)}, endpoints: here1},
		}, []expectation{
			{"client", "node:30080", here1, ""}, {"client", "external:80", here1, ""}, {"far", "service:80", here0, ""}, {"far", "service2:80", here1, ""},
		}},
		{"a service of another proxy is not served", nil, one(here0, label("service.kubernetes.io/service-proxy-name")), []expectation{{"here1", "service:80", unserved, ""}}},
		{"a service labelled headless is not served", nil, one(here0, label(corev1.IsHeadlessService)), []expectation{{"here1", "service:80", unserved, ""}}},
		{"a service with a thousand ports", nil, one(here0, ports(1000)), []expectation{
			{"here1", "service:80", here0, "kept"}, {"here1", "service:1999", refused, ""},
		}},
		{"an address that moves to another service", nil, []offer{{with: []option{externalIP}, endpoints: far}, {second: true, endpoints: here0}}, []expectation{
			{"client", "external:80", far, ""}, {"far", "service2:80", here0, ""},
		}},
	}
}

// localhost is the one case in which modes differ, as they do in kube-proxy.
func localhost(family int, served bool) testCase {
	if served && family == 0 {
		return testCase{"node ports are served on loopback", nil, one([]string{"here0", "far"}, nodePort), []expectation{
			{"node", "localhost:30080", []string{"here0", "far"}, "changed"}, {"client", "node:30080", []string{"here0", "far"}, ""},
		}}
	}
	return testCase{"node ports are not served on loopback", nil, one(here0, nodePort), []expectation{{"node", "localhost:30080", refused, ""}, {"client", "node:30080", here0, ""}}}
}
