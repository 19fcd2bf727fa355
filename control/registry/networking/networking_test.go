package networking

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/utils/ptr"
)

func messages(errs field.ErrorList) []string {
	var out []string
	for _, err := range errs {
		out = append(out, err.Error())
	}
	return out
}

func policy(change func(*networkingv1.NetworkPolicySpec)) *networkingv1.NetworkPolicy {
	p := &networkingv1.NetworkPolicy{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "p"}}
	change(&p.Spec)
	setNetworkPolicyDefaults(p)
	return p
}

func from(block *networkingv1.IPBlock) func(*networkingv1.NetworkPolicySpec) {
	return func(s *networkingv1.NetworkPolicySpec) {
		s.Ingress = []networkingv1.NetworkPolicyIngressRule{{From: []networkingv1.NetworkPolicyPeer{{IPBlock: block}}}}
	}
}

func port(p networkingv1.NetworkPolicyPort) func(*networkingv1.NetworkPolicySpec) {
	return func(s *networkingv1.NetworkPolicySpec) {
		s.Egress = []networkingv1.NetworkPolicyEgressRule{{Ports: []networkingv1.NetworkPolicyPort{p}}}
	}
}

func TestValidationOfNetworkPolicies(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		change func(*networkingv1.NetworkPolicySpec)
		want   []string
	}{
		"one that selects everything": {change: func(*networkingv1.NetworkPolicySpec) {}},
		"a range of ports":            {change: port(networkingv1.NetworkPolicyPort{Port: ptr.To(intstr.FromInt32(80)), EndPort: ptr.To[int32](90)})},
		"a range that ends before it begins": {port(networkingv1.NetworkPolicyPort{Port: ptr.To(intstr.FromInt32(80)), EndPort: ptr.To[int32](79)}), []string{
			"spec.egress[0].ports[0].endPort: Invalid value: 79: must be greater than or equal to `port`",
		}},
		"a range that begins with a name": {port(networkingv1.NetworkPolicyPort{Port: ptr.To(intstr.FromString("http")), EndPort: ptr.To[int32](79)}), []string{
			"spec.egress[0].ports[0].endPort: Invalid value: 79: may not be specified when `port` is non-numeric",
		}},
		"a range without a beginning": {port(networkingv1.NetworkPolicyPort{EndPort: ptr.To[int32](79)}), []string{
			"spec.egress[0].ports[0].endPort: Invalid value: 79: may not be specified when `port` is not specified",
		}},
		"a protocol that has no ports": {port(networkingv1.NetworkPolicyPort{Protocol: ptr.To(corev1.Protocol("ICMP"))}), []string{
			`spec.egress[0].ports[0].protocol: Unsupported value: "ICMP": supported values: "TCP", "UDP", "SCTP"`,
		}},
		"a peer that names nobody": {from(nil), []string{"spec.ingress[0].from[0]: Required value: must specify a peer"}},
		"a block without a range":  {from(&networkingv1.IPBlock{}), []string{"spec.ingress[0].from[0].ipBlock.cidr: Required value"}},
		"a block with exceptions":  {change: from(&networkingv1.IPBlock{CIDR: "10.0.0.0/8", Except: []string{"10.1.0.0/16"}})},
		"an exception outside of the block": {from(&networkingv1.IPBlock{CIDR: "10.0.0.0/8", Except: []string{"11.1.0.0/16", "10.0.0.0/8"}}), []string{
			"spec.ingress[0].from[0].ipBlock.except[0]: Invalid value: \"11.1.0.0/16\": must be a strict subset of `cidr`",
			"spec.ingress[0].from[0].ipBlock.except[1]: Invalid value: \"10.0.0.0/8\": must be a strict subset of `cidr`",
		}},
		"a block and pods at once": {func(s *networkingv1.NetworkPolicySpec) {
			from(&networkingv1.IPBlock{CIDR: "10.0.0.0/8"})(s)
			s.Ingress[0].From[0].PodSelector = &metav1.LabelSelector{}
		}, []string{"spec.ingress[0].from[0]: Forbidden: may not specify both ipBlock and another peer"}},
		"an unknown type": {func(s *networkingv1.NetworkPolicySpec) { s.PolicyTypes = []networkingv1.PolicyType{"Both"} }, []string{
			`spec.policyTypes[0]: Unsupported value: "Both": supported values: "Ingress", "Egress"`,
		}},
		"a selector that is none": {func(s *networkingv1.NetworkPolicySpec) {
			s.PodSelector.MatchExpressions = []metav1.LabelSelectorRequirement{{Key: "a", Operator: "Like"}}
		}, []string{`spec.podSelector.matchExpressions[0].operator: Invalid value: "Like": not a valid selector operator`}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if diff := cmp.Diff(tc.want, messages(validateNetworkPolicy(policy(tc.change), nil))); diff != "" {
				t.Errorf("messages (-want +got):\n%s", diff)
			}
		})
	}
}

func TestAPolicyKeepsARangeThatEarlierReleasesAccepted(t *testing.T) {
	t.Parallel()
	old := policy(from(&networkingv1.IPBlock{CIDR: "010.0.0.0/8"}))
	if errs := validateNetworkPolicy(old, nil); len(errs) == 0 {
		t.Error("a new policy may have it too")
	}
	if errs := validateNetworkPolicy(old.DeepCopy(), old); len(errs) > 0 {
		t.Errorf("an update is refused: %v", errs.ToAggregate())
	}
}

func TestDefaultsOfNetworkPolicies(t *testing.T) {
	t.Parallel()
	p := policy(port(networkingv1.NetworkPolicyPort{}))
	if got := *p.Spec.Egress[0].Ports[0].Protocol; got != corev1.ProtocolTCP {
		t.Errorf("protocol %s", got)
	}
	if diff := cmp.Diff([]networkingv1.PolicyType{"Ingress", "Egress"}, p.Spec.PolicyTypes); diff != "" {
		t.Errorf("types with a rule for egress (-want +got):\n%s", diff)
	}
	p = policy(from(nil))
	if diff := cmp.Diff([]networkingv1.PolicyType{"Ingress"}, p.Spec.PolicyTypes); diff != "" {
		t.Errorf("types without (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]any{"p", "<none>", "<unknown>"}, networkPolicyKind().Row(p)); diff != "" {
		t.Errorf("row (-want +got):\n%s", diff)
	}
}

func ingress(change func(*networkingv1.Ingress)) *networkingv1.Ingress {
	i := &networkingv1.Ingress{Spec: networkingv1.IngressSpec{Rules: []networkingv1.IngressRule{{
		Host: "www.example.org", IngressRuleValue: networkingv1.IngressRuleValue{HTTP: &networkingv1.HTTPIngressRuleValue{Paths: []networkingv1.HTTPIngressPath{{
			Path: "/", PathType: ptr.To(networkingv1.PathTypePrefix),
			Backend: networkingv1.IngressBackend{Service: &networkingv1.IngressServiceBackend{Name: "web", Port: networkingv1.ServiceBackendPort{Number: 80}}},
		}}}},
	}}}}
	change(i)
	return i
}

func TestValidationOfIngresses(t *testing.T) {
	t.Parallel()
	onPath := func(change func(*networkingv1.HTTPIngressPath)) func(*networkingv1.Ingress) {
		return func(i *networkingv1.Ingress) { change(&i.Spec.Rules[0].HTTP.Paths[0]) }
	}
	const first = "spec.rules[0].http.paths[0]."
	for name, tc := range map[string]struct {
		change func(*networkingv1.Ingress)
		want   []string
	}{
		"a good one": {change: func(*networkingv1.Ingress) {}},
		"nothing": {func(i *networkingv1.Ingress) { i.Spec.Rules = nil }, []string{
			"spec: Invalid value: null: either `defaultBackend` or `rules` must be specified",
		}},
		"an address as host": {func(i *networkingv1.Ingress) { i.Spec.Rules[0].Host = "192.0.2.1" }, []string{
			`spec.rules[0].host: Invalid value: "192.0.2.1": must be a DNS name, not an IP address`,
		}},
		"no type of path": {onPath(func(p *networkingv1.HTTPIngressPath) { p.PathType = nil }), []string{
			first + "pathType: Required value: pathType must be specified",
		}},
		"a path that is rewritten on its way": {onPath(func(p *networkingv1.HTTPIngressPath) { p.Path = "/a//b/.." }), []string{
			first + `path: Invalid value: "/a//b/..": must not contain '//'`, first + `path: Invalid value: "/a//b/..": cannot end with '/..'`,
		}},
		"a service whose name begins with a digit": {change: onPath(func(p *networkingv1.HTTPIngressPath) { p.Backend.Service.Name = "1web" })},
		"two kinds of port": {onPath(func(p *networkingv1.HTTPIngressPath) { p.Backend.Service.Port.Name = "http" }), []string{
			first + `backend: Invalid value: "": cannot set both port name & port number`,
		}},
		"no backend": {onPath(func(p *networkingv1.HTTPIngressPath) { p.Backend.Service = nil }), []string{
			first + `backend: Invalid value: "": resource or service backend is required`,
		}},
		"an annotation that says something else": {func(i *networkingv1.Ingress) {
			i.Annotations = map[string]string{ClassAnnotation: "a"}
			i.Spec.IngressClassName = ptr.To("b")
		}, []string{"annotations.kubernetes.io/ingress.class: Invalid value: \"a\": must match `ingressClassName` when both are specified"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if diff := cmp.Diff(tc.want, messages(validateNewIngress(ingress(tc.change)))); diff != "" {
				t.Errorf("messages (-want +got):\n%s", diff)
			}
		})
	}
}

func TestColumnsOfIngressesAndTheirClasses(t *testing.T) {
	t.Parallel()
	i := ingress(func(i *networkingv1.Ingress) {
		i.Name = "web"
		for _, host := range []string{"b.example.org", "c.example.org", "d.example.org"} {
			i.Spec.Rules = append(i.Spec.Rules, networkingv1.IngressRule{Host: host})
		}
		i.Spec.TLS = []networkingv1.IngressTLS{{}}
		i.Status.LoadBalancer.Ingress = []networkingv1.IngressLoadBalancerIngress{{IP: "192.0.2.2"}, {IP: "192.0.2.1"}}
	})
	want := []any{"web", "<none>", "www.example.org,b.example.org,c.example.org + 1 more...", "192.0.2.1,192...", "80, 443", "<unknown>"}
	if diff := cmp.Diff(want, ingressKind().Row(i)); diff != "" {
		t.Errorf("row (-want +got):\n%s", diff)
	}
	class := &networkingv1.IngressClass{ObjectMeta: metav1.ObjectMeta{Name: "nginx", Annotations: map[string]string{networkingv1.AnnotationIsDefaultIngressClass: "true"}},
		Spec: networkingv1.IngressClassSpec{Controller: "example.org/nginx", Parameters: &networkingv1.IngressClassParametersReference{APIGroup: ptr.To("example.org"), Kind: "Setup", Name: "one"}}}
	kind := ingressClassKind()
	kind.Default(class)
	if errs := kind.Validate(t.Context(), class); len(errs) > 0 {
		t.Errorf("a good class is refused: %v", errs.ToAggregate())
	}
	if diff := cmp.Diff([]any{"nginx (default)", "example.org/nginx", "Setup.example.org/one", "<unknown>"}, kind.Row(class)); diff != "" {
		t.Errorf("row (-want +got):\n%s", diff)
	}
	class.Spec.Parameters.Namespace, class.Spec.Controller = ptr.To("default"), "nginx"
	if got := strings.Join(messages(kind.Validate(t.Context(), class)), "\n"); !strings.Contains(got, "spec.controller: Invalid value") ||
		!strings.Contains(got, "spec.parameters.namespace: Forbidden: `parameters.scope` is set to 'Cluster'") {
		t.Errorf("got %s", got)
	}
}
