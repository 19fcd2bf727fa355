package policy

import (
	"fmt"
	"net"
	"net/netip"
	"os/exec"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/utils/ptr"

	"github.com/skiff-run/skiff/internal/testenv"
	"github.com/skiff-run/skiff/proxy/backendtest"
)

type change func(*networkingv1.NetworkPolicySpec)

// policy selects the pods of the namespace shop with this label app, all if it is empty.
func policyFor(app string, changes ...change) *networkingv1.NetworkPolicy {
	p := &networkingv1.NetworkPolicy{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "p-" + app}}
	if app != "" {
		p.Spec.PodSelector = metav1.LabelSelector{MatchLabels: map[string]string{"app": app}}
	}
	for _, c := range changes {
		c(&p.Spec)
	}
	return p
}

func closed(types ...networkingv1.PolicyType) change {
	return func(s *networkingv1.NetworkPolicySpec) { s.PolicyTypes = types }
}

func in(ports []networkingv1.NetworkPolicyPort, from ...networkingv1.NetworkPolicyPeer) change {
	return func(s *networkingv1.NetworkPolicySpec) {
		s.PolicyTypes = append(s.PolicyTypes, "Ingress")
		s.Ingress = append(s.Ingress, networkingv1.NetworkPolicyIngressRule{Ports: ports, From: from})
	}
}

func out(ports []networkingv1.NetworkPolicyPort, to ...networkingv1.NetworkPolicyPeer) change {
	return func(s *networkingv1.NetworkPolicySpec) {
		s.PolicyTypes = append(s.PolicyTypes, "Egress")
		s.Egress = append(s.Egress, networkingv1.NetworkPolicyEgressRule{Ports: ports, To: to})
	}
}

func port(protocol corev1.Protocol, of intstr.IntOrString, end int32) []networkingv1.NetworkPolicyPort {
	p := networkingv1.NetworkPolicyPort{Protocol: &protocol, Port: &of}
	if end != 0 {
		p.EndPort = &end
	}
	return []networkingv1.NetworkPolicyPort{p}
}

func app(name string) networkingv1.NetworkPolicyPeer {
	return networkingv1.NetworkPolicyPeer{PodSelector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": name}}}
}

func team(name string) networkingv1.NetworkPolicyPeer {
	return networkingv1.NetworkPolicyPeer{NamespaceSelector: &metav1.LabelSelector{MatchLabels: map[string]string{"team": name}}}
}

func (w *world) block(cidr [2]string, except ...[2]string) networkingv1.NetworkPolicyPeer {
	b := &networkingv1.IPBlock{CIDR: cidr[w.family]}
	for _, e := range except {
		b.Except = append(b.Except, e[w.family])
	}
	return networkingv1.NetworkPolicyPeer{IPBlock: b}
}

var (
	outside = [2]string{"192.0.2.0/24", "2001:db8:2::/64"}
	client  = [2]string{"192.0.2.100/32", "2001:db8:2::100/128"}
	world0  = [2]string{"0.0.0.0/0", "::/0"}
)

func TestPoliciesInTheKernel(t *testing.T) {
	t.Parallel()
	testenv.RequireRoot(t)
	testenv.RequireProgram(t, "nft")
	for family, name := range []string{"IPv4", "IPv6"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, family)
			tcp80 := port("TCP", intstr.FromInt32(80), 0)
			for _, tc := range []struct {
				name     string
				policies []*networkingv1.NetworkPolicy
				expect   string
			}{
				{"another policy's pods are open", []*networkingv1.NetworkPolicy{policyFor("none", closed("Ingress", "Egress"))},
					"db>web:80/tcp db>web:80/udp client>web:80/tcp web>far:80/tcp far>web:80/tcp web>client:80/tcp"},
				{"closed for ingress", []*networkingv1.NetworkPolicy{policyFor("web", closed("Ingress"))},
					"-db>web:80/tcp -db>web:80/udp -client>web:80/tcp -far>web:80/tcp web>db:80/tcp web>client:80/udp db>far:80/tcp"},
				{"closed for egress", []*networkingv1.NetworkPolicy{policyFor("web", closed("Egress"))},
					"-web>db:80/tcp -web>db:80/udp -web>client:80/tcp -web>far:80/tcp db>web:80/tcp client>web:80/udp"},
				{"the node always reaches its pods, and they it", []*networkingv1.NetworkPolicy{policyFor("", closed("Ingress", "Egress"))},
					"node>web:80/tcp node>db:80/udp web>node:80/tcp -web>db:80/tcp -client>db:80/tcp"},
				{"a pod reaches itself, also through a service", []*networkingv1.NetworkPolicy{policyFor("", closed("Ingress", "Egress"))},
					"web>web:80/tcp web>service:80/tcp -db>service:80/tcp"},
				{"a port for everybody", []*networkingv1.NetworkPolicy{policyFor("web", in(tcp80))},
					"db>web:80/tcp client>web:80/tcp -db>web:80/udp -db>web:81/tcp"},
				{"every port for a pod", []*networkingv1.NetworkPolicy{policyFor("web", in(nil, app("db")))},
					"db>web:80/tcp db>web:81/udp -far>web:80/tcp -client>web:80/tcp"},
				{"a pod's label means the policy's own namespace", []*networkingv1.NetworkPolicy{policyFor("web", in(nil, app("far")))},
					"-far>web:80/tcp -db>web:80/tcp"},
				{"every pod of a namespace", []*networkingv1.NetworkPolicy{policyFor("web", in(nil, team("office")))},
					"far>web:80/tcp -db>web:80/tcp"},
				{"a pod of a namespace", []*networkingv1.NetworkPolicy{policyFor("web", in(nil, networkingv1.NetworkPolicyPeer{
					NamespaceSelector: &metav1.LabelSelector{}, PodSelector: app("far").PodSelector,
				}))}, "far>web:80/tcp -db>web:80/tcp"},
				{"one peer or another", []*networkingv1.NetworkPolicy{policyFor("web", in(nil, app("db"), team("office"), w.block(client)))},
					"far>web:80/tcp db>web:80/tcp client>web:80/tcp -stranger>web:80/tcp"},
				{"a range with an exception", []*networkingv1.NetworkPolicy{policyFor("web", in(nil, w.block(outside, client)))},
					"-client>web:80/tcp stranger>web:80/tcp -db>web:80/tcp"},
				{"an exception that another peer allows", []*networkingv1.NetworkPolicy{policyFor("web", in(nil, w.block(outside, client), w.block(client)))},
					"client>web:80/tcp stranger>web:80/tcp -db>web:80/tcp"},
				{"all addresses", []*networkingv1.NetworkPolicy{policyFor("web", in(nil, w.block(world0)))}, "client>web:80/tcp db>web:80/udp"},
				{"a range of ports", []*networkingv1.NetworkPolicy{policyFor("web", in(port("TCP", intstr.FromInt32(81), 9000)))},
					"db>web:81/tcp db>web:8080/tcp -db>web:80/tcp -db>web:81/udp"},
				{"ranges that overlap", []*networkingv1.NetworkPolicy{policyFor("web", in(append(port("TCP", intstr.FromInt32(70), 80), port("TCP", intstr.FromInt32(75), 81)...)))},
					"db>web:80/tcp db>web:81/tcp -db>web:8080/tcp"},
				{"every port of a protocol", []*networkingv1.NetworkPolicy{policyFor("web", in([]networkingv1.NetworkPolicyPort{{Protocol: ptr.To(corev1.ProtocolUDP)}}))},
					"db>web:80/udp db>web:8080/udp -db>web:80/tcp"},
				{"a port by name", []*networkingv1.NetworkPolicy{policyFor("web", in(port("TCP", intstr.FromString("http"), 0)), in(port("UDP", intstr.FromString("names"), 0)))},
					"db>web:80/tcp db>web:81/udp -db>web:81/tcp -db>web:80/udp -db>web:8080/tcp"},
				{"egress to a port by name", []*networkingv1.NetworkPolicy{policyFor("web", out(port("TCP", intstr.FromString("http"), 0), team("office")))},
					"web>far:80/tcp -web>far:81/tcp -web>db:80/tcp"},
				{"egress to a port by name, wherever", []*networkingv1.NetworkPolicy{policyFor("web", out(port("TCP", intstr.FromString("http"), 0)))},
					"web>far:80/tcp web>db:80/tcp -web>db:81/tcp -web>client:80/tcp"},
				{"egress to a range with an exception", []*networkingv1.NetworkPolicy{policyFor("web", out(nil, w.block(outside, client)))},
					"-web>client:80/tcp web>stranger:80/tcp -web>db:80/tcp"},
				{"both ends have to allow", []*networkingv1.NetworkPolicy{policyFor("web", in(nil, app("db"))), policyFor("db", out(nil, app("far")))},
					"-db>web:80/tcp"},
				{"both ends allow", []*networkingv1.NetworkPolicy{policyFor("web", in(tcp80, app("db"))), policyFor("db", out(nil, app("web")))},
					"db>web:80/tcp -db>web:81/tcp -db>client:80/tcp"},
				{"policies add up", []*networkingv1.NetworkPolicy{policyFor("", closed("Ingress")), policyFor("web", in(tcp80, w.block(client)))},
					"client>web:80/tcp -stranger>web:80/tcp -client>db:80/tcp -client>web:81/tcp"},
				{"what a service leads to is judged", []*networkingv1.NetworkPolicy{policyFor("web", in(port("TCP", intstr.FromInt32(80), 0), app("db"))), policyFor("db", out(tcp80, app("web")))},
					"db>service:80/tcp -far>service:80/tcp"},
			} {
				t.Run(tc.name, func(t *testing.T) {
					w.t = t
					w.translate()
					w.enforce(input(tc.policies...))
					w.expect(tc.expect)
				})
			}
			w.t = t
			w.hosts["node"].Must(func() error { return w.kernel.Sync(t.Context(), nil) })
			w.expect("db>web:80/tcp client>db:80/tcp")
			if output, err := w.nft("list tables"); err != nil || strings.Contains(output, TableName) {
				t.Errorf("without policies: %s, %v", output, err)
			}
		})
	}
}

// translate leads the service's address to web, as any backend of services would.
func (w *world) translate() {
	w.t.Helper()
	ip := []string{"ip", "ip6"}[w.family]
	w.hosts["node"].Must(func() error {
		if err := exec.Command("nft", "list", "table", ip, "services").Run(); err == nil {
			return nil
		}
		script := fmt.Sprintf(`table %[1]s services {
			chain prerouting { type nat hook prerouting priority dstnat; %[1]s daddr %[2]s dnat to %[3]s; }
			chain postrouting { type nat hook postrouting priority srcnat; %[1]s saddr %[3]s %[1]s daddr %[3]s masquerade; }
		}`, ip, w.address("service"), w.address("web"))
		output, err := exec.Command("nft", script).CombinedOutput()
		if err != nil {
			return fmt.Errorf("%w\n%s", err, output)
		}
		return nil
	})
}

func (w *world) nft(command string) (output string, err error) {
	err = w.hosts["node"].In(func() error {
		bytes, err := exec.Command("nft", strings.Fields(command)...).CombinedOutput()
		output = string(bytes)
		return err
	})
	return output, err
}

// open returns a connection that has been answered.
func (w *world) open(network, from, to string) net.Conn {
	w.t.Helper()
	connection, err := w.hosts[from].Connect(network, netip.AddrPortFrom(w.address(to), 80), answerLimit)
	if err == nil {
		_, err = backendtest.Ask(connection, answerLimit)
	}
	if err != nil {
		w.t.Fatalf("%s to %s: %v", from, to, err)
	}
	w.t.Cleanup(func() { connection.Close() })
	return connection
}

func TestPoliciesHoldForEstablishedConnections(t *testing.T) {
	t.Parallel()
	testenv.RequireRoot(t)
	testenv.RequireProgram(t, "nft")
	w := newWorld(t, 0)
	w.translate()
	for _, network := range []string{"tcp", "udp"} {
		w.enforce(input(policyFor("web", in(nil, app("db"), team("office"), w.block(client)))))
		allowed, denied, service := w.open(network, "db", "web"), w.open(network, "far", "web"), w.open(network, "client", "service")
		w.enforce(input(policyFor("web", in(nil, app("db"), w.block(client)))))
		for _, each := range []net.Conn{allowed, service} {
			if answer, err := backendtest.Ask(each, answerLimit); err != nil {
				t.Errorf("%s, still allowed: %q, %v", network, answer, err)
			}
		}
		if answer, err := backendtest.Ask(denied, silenceLimit); err == nil {
			t.Errorf("%s, no longer allowed: %q", network, answer)
		}
		// The end that answers is silenced too: nothing of a stream gets out.
		w.enforce(input(policyFor("web", in(nil, app("db")))))
		if answer, err := backendtest.Ask(service, silenceLimit); err == nil {
			t.Errorf("%s through a service, no longer allowed: %q", network, answer)
		}
		w.enforce(input(policyFor("none", closed("Ingress"))))
		if _, err := backendtest.Ask(denied, answerLimit); err != nil {
			t.Errorf("%s, allowed again: %v", network, err)
		}
	}
}

func TestAnAddressThatIsNotKnownIsClosed(t *testing.T) {
	t.Parallel()
	testenv.RequireRoot(t)
	testenv.RequireProgram(t, "nft")
	w := newWorld(t, 0)
	unknown := input(policyFor("none", closed("Ingress")))
	unknown.Pods = unknown.Pods[1:] // not web
	w.enforce(unknown)
	w.expect("-db>web:80/tcp -client>web:80/udp -web>db:80/tcp -web>client:80/udp node>web:80/tcp db>far:80/tcp far>db:80/tcp")

	t.Run("one that ended is not known", func(t *testing.T) {
		w.t = t
		over := input(policyFor("none", closed("Ingress")))
		over.Pods[0].Status.Phase = corev1.PodSucceeded
		w.enforce(over)
		w.expect("-db>web:80/tcp")
	})
	t.Run("one that was given away is its new owner's", func(t *testing.T) {
		w.t = t
		again := input(policyFor("new", closed("Ingress")))
		owner := podOf("web")
		owner.Name, owner.UID, owner.Labels["app"] = "new", "2", "new"
		again.Pods = append(again.Pods, owner)
		w.enforce(again)
		w.expect("-db>web:80/tcp web>db:80/tcp")
	})
	t.Run("with a load balancer in the kernel the node itself is let through", func(t *testing.T) {
		w.t = t
		delivered := input(policyFor("", closed("Ingress", "Egress")))
		delivered.Delivered = true
		w.hosts["node"].Must(func() error { return w.kernel.Sync(t.Context(), nil) })
		w.enforce(delivered)
		w.expect("node>web:80/tcp web>node:80/tcp -db>web:80/tcp")
	})
	t.Run("no address is known to a guard", func(t *testing.T) {
		w.t = t
		w.hosts["node"].Must(func() error { return w.kernel.Sync(t.Context(), Guard(ranges, false)) })
		w.expect("-db>web:80/tcp -far>db:80/tcp -web>client:80/tcp node>web:80/tcp client>far:80/tcp")
	})
}

func TestChangesByOthersAreNoticedAndRepaired(t *testing.T) {
	t.Parallel()
	testenv.RequireRoot(t)
	testenv.RequireProgram(t, "nft")
	w := newWorld(t, 0)
	in := input(policyFor("web", in(port("TCP", intstr.FromInt32(80), 90), app("db"))))
	check := func() (found string) {
		w.hosts["node"].Must(func() (err error) {
			found, err = w.kernel.Check(t.Context())
			return err
		})
		return found
	}
	w.enforce(in)
	for _, damage := range []string{"flush chain inet skiff-policy forward", "flush map inet skiff-policy ingress4", "flush set inet skiff-policy known4", "delete table inet skiff-policy", "flush ruleset"} {
		if found := check(); found != "" {
			t.Errorf("nothing was changed, but %s", found)
		}
		if output, err := w.nft(damage); err != nil {
			t.Fatalf("%s: %v\n%s", damage, err, output)
		}
		if check() == "" {
			t.Errorf("not noticed: %s", damage)
		}
		w.enforce(in)
		w.expect("db>web:80/tcp -far>web:80/tcp")
	}
	w.nft("add table inet theirs")
	w.hosts["node"].Must(func() error { return Cleanup(t.Context()) })
	if output, err := w.nft("list tables"); err != nil || strings.TrimSpace(output) != "table inet theirs" {
		t.Errorf("after the clean-up: %s, %v", output, err)
	}
}
