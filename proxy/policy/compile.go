package policy

import (
	"crypto/sha256"
	"encoding/base32"
	"net/netip"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
)

// Input is the state of the cluster as far as policies are concerned. Objects
// are read-only.
type Input struct {
	// Node is the machine the rules are for, Ranges its pods' ranges.
	Node       string
	Ranges     []netip.Prefix
	Policies   []*networkingv1.NetworkPolicy
	Pods       []*corev1.Pod
	Namespaces []*corev1.Namespace
	// Delivered says that what services lead to is not forwarded but delivered to
	// the kernel's load balancer, which sends it on as IPVS does.
	Delivered bool
}

// The fixed parts of the table.
const (
	baseChain    = "forward"
	outputChain  = "output"
	judgeChain   = "connection"
	basePriority = "filter - 5"
	ingressChain = "ingress"
	deniedChain  = "denied"
	strayChain   = "no-connection"
	unknownChain = "unknown-pod"
)

// families differ in the words of rules; their names end with the digit.
var families = []struct{ digit, ip, of string }{{"4", "ip", "ipv4_addr"}, {"6", "ip6", "ipv6_addr"}}

// initiator and responder are a connection's ends as connection tracking knows
// them: before the source and after the destination was translated.
func initiator(ip string) string { return "ct original " + ip + " saddr" }
func responder(ip string) string { return "ct reply " + ip + " saddr" }

// responderPort is the port of the end that answers, at that end.
const responderPort = "ct reply proto-src"

// compiler holds what Compile looks up often.
type compiler struct {
	input   Input
	rules   *Ruleset
	pods    map[string][]*pod // by namespace
	labels  map[string]labels.Set
	present map[string]bool // families that any pod has, by digit
	found   map[string][]*pod
}

// pod is a pod with the addresses that are its own.
type pod struct {
	*corev1.Pod
	addresses []netip.Addr
}

// Compile returns what this node's table has to hold.
func Compile(input Input) *Ruleset {
	c := &compiler{input: input, rules: newRuleset(), pods: map[string][]*pod{}, labels: map[string]labels.Set{}, present: map[string]bool{}, found: map[string][]*pod{}}
	for _, namespace := range input.Namespaces {
		c.labels[namespace.Name] = namespace.Labels
	}
	local := c.settle()
	skeleton(c.rules, input.Ranges, input.Delivered)
	byNamespace := map[string][]*compiled{}
	for _, p := range input.Policies {
		byNamespace[p.Namespace] = append(byNamespace[p.Namespace], compiledPolicy(p))
	}
	for _, policies := range byNamespace {
		slices.SortFunc(policies, func(a, b *compiled) int { return strings.Compare(a.Name, b.Name) })
	}
	for _, p := range local {
		for _, address := range p.addresses {
			c.rules.set("known"+digit(address), set{}).add(address.String())
		}
		c.isolate(p, byNamespace[p.Namespace], egress)
		c.isolate(p, byNamespace[p.Namespace], ingress)
	}
	return c.rules
}

func digit(a netip.Addr) string {
	if a.Is4() {
		return "4"
	}
	return "6"
}

// Guard is the table without any pod known: no packet gets to or from the
// ranges but by the node itself.
func Guard(ranges []netip.Prefix, delivered bool) *Ruleset {
	r := newRuleset()
	skeleton(r, ranges, delivered)
	return r
}

// settle finds the pods that have addresses and returns those of this node. An
// address that two pods report is the younger one's: the other has ended, and
// its end is not yet known here.
func (c *compiler) settle() []*pod {
	owners := map[netip.Addr]*corev1.Pod{}
	for _, p := range c.input.Pods {
		for _, address := range addresses(p) {
			if other := owners[address]; other == nil || younger(p, other) {
				owners[address] = p
			}
		}
	}
	var local []*pod
	for _, object := range c.input.Pods {
		p := &pod{Pod: object}
		for _, address := range addresses(object) {
			if owners[address] == object {
				p.addresses = append(p.addresses, address)
				c.present[digit(address)] = true
			}
		}
		if len(p.addresses) == 0 {
			continue
		}
		c.pods[object.Namespace] = append(c.pods[object.Namespace], p)
		if object.Spec.NodeName == c.input.Node {
			local = append(local, p)
		}
	}
	return local
}

func younger(a, b *corev1.Pod) bool {
	if !a.CreationTimestamp.Equal(&b.CreationTimestamp) {
		return b.CreationTimestamp.Before(&a.CreationTimestamp)
	}
	return a.UID > b.UID
}

// addresses are those that are a pod's own: not the node's, and not those that
// it had before it ended.
func addresses(p *corev1.Pod) []netip.Addr {
	if p.Spec.HostNetwork || p.Status.Phase == corev1.PodSucceeded || p.Status.Phase == corev1.PodFailed {
		return nil
	}
	var all []netip.Addr
	for _, ip := range p.Status.PodIPs {
		if address, err := netip.ParseAddr(ip.IP); err == nil {
			all = append(all, address.Unmap())
		}
	}
	return all
}

// compiled is a policy with its selector.
type compiled struct {
	*networkingv1.NetworkPolicy
	selector labels.Selector
}

func compiledPolicy(p *networkingv1.NetworkPolicy) *compiled {
	return &compiled{p, selector(&p.Spec.PodSelector)}
}

// selector never fails: what the API accepted by mistake selects nothing.
func selector(s *metav1.LabelSelector) labels.Selector {
	parsed, err := metav1.LabelSelectorAsSelector(s)
	if err != nil {
		return labels.Nothing()
	}
	return parsed
}

// direction tells the two halves of a policy apart.
type direction struct {
	name string
	kind networkingv1.PolicyType
	// subject and peer are the ends of the connection that the policy selects and names.
	subject, peer func(ip string) string
	// allow is where an allowed packet goes.
	allow string
	rules func(*networkingv1.NetworkPolicy) []rule
}

// rule is an ingress or egress rule.
type rule struct {
	ports []networkingv1.NetworkPolicyPort
	peers []networkingv1.NetworkPolicyPeer
}

var (
	egress = direction{"egress", networkingv1.PolicyTypeEgress, initiator, responder, "goto " + ingressChain, func(p *networkingv1.NetworkPolicy) []rule {
		var out []rule
		for _, r := range p.Spec.Egress {
			out = append(out, rule{r.Ports, r.To})
		}
		return out
	}}
	ingress = direction{"ingress", networkingv1.PolicyTypeIngress, responder, initiator, "accept", func(p *networkingv1.NetworkPolicy) []rule {
		var out []rule
		for _, r := range p.Spec.Ingress {
			out = append(out, rule{r.Ports, r.From})
		}
		return out
	}}
)

// isolate leads a pod's connections of a direction to the policies that select
// it. Pods that the same policies select share a chain.
func (c *compiler) isolate(p *pod, policies []*compiled, d direction) {
	var names []string
	for _, policy := range policies {
		if !slices.Contains(policy.Spec.PolicyTypes, d.kind) || !policy.selector.Matches(labels.Set(p.Labels)) {
			continue
		}
		names = append(names, c.policy(policy, d))
	}
	if len(names) == 0 {
		return
	}
	chain := chainName(d.name+"-pods", p.Namespace, strings.Join(names, "|"))
	if _, made := c.rules.chains[chain]; !made {
		for _, name := range names {
			c.rules.rule(chain, "jump", name)
		}
		c.rules.rule(chain, "goto", deniedChain)
	}
	for _, address := range p.addresses {
		text, digit := address.String(), digit(address)
		c.rules.set(d.name+digit, set{}).lead(text, "goto "+chain)
		c.rules.set("isolated"+digit, set{}).add(text)
		c.rules.set("itself"+digit, set{}).add(text, text)
	}
}

// policy makes the chain of a policy, if it is not there, and returns its name.
func (c *compiler) policy(p *compiled, d direction) string {
	name := chainName(d.name, p.Namespace+"/"+p.Name, "")
	if _, made := c.rules.chains[name]; made {
		return name
	}
	c.rules.chains[name] = nil
	for _, r := range d.rules(p.NetworkPolicy) {
		for _, peer := range c.peers(p, r, d) {
			for _, ports := range c.ports(p, r, d) {
				words := slices.DeleteFunc([]string{peer, ports, d.allow}, func(w string) bool { return w == "" })
				c.rules.rule(name, words...)
			}
		}
	}
	return name
}

// chainName is unique and readable: a hash of the whole, then the names as far
// as nftables allows.
func chainName(kind, readable, rest string) string {
	return truncate(kind + "-" + hash(kind, readable, rest) + "-" + readable)
}

func hash(parts ...string) string {
	sum := sha256.Sum256([]byte(strings.Join(parts, "\x00")))
	return base32.StdEncoding.EncodeToString(sum[:])[:10]
}

func truncate(name string) string { return name[:min(len(name), 200)] }

// skeleton makes what every table has.
func skeleton(r *Ruleset, ranges []netip.Prefix, delivered bool) {
	r.rule(baseChain, "goto", judgeChain)
	if delivered {
		// The machine's own packets are always let through.
		r.rule(outputChain, "fib saddr type local accept")
		r.rule(outputChain, "goto", judgeChain)
	}
	r.rule(judgeChain, "ct state { invalid, untracked } goto", strayChain)
	r.rule(judgeChain, "meta l4proto { icmp, ipv6-icmp } ct state related accept")
	for _, f := range families {
		r.set("local"+f.digit, set{of: f.of, interval: true})
		r.set("known"+f.digit, set{of: f.of})
		r.set("isolated"+f.digit, set{of: f.of})
		r.set("itself"+f.digit, set{of: f.of + conjunction + f.of})
		r.set(egress.name+f.digit, set{of: f.of, verdicts: true})
		r.set(ingress.name+f.digit, set{of: f.of, verdicts: true})
		for _, end := range []string{initiator(f.ip), responder(f.ip)} {
			r.rule(judgeChain, end, "@local"+f.digit, end, "!= @known"+f.digit, "goto", unknownChain)
		}
		r.rule(deniedChain, initiator(f.ip), ".", responder(f.ip), "@itself"+f.digit, "accept")
		for _, end := range []string{f.ip + " saddr", f.ip + " daddr"} {
			r.rule(strayChain, end, "@isolated"+f.digit, "counter drop")
			r.rule(strayChain, end, "@local"+f.digit, end, "!= @known"+f.digit, "counter drop")
		}
	}
	for _, f := range families {
		r.rule(judgeChain, initiator(f.ip), "vmap @"+egress.name+f.digit)
		r.rule(ingressChain, responder(f.ip), "vmap @"+ingress.name+f.digit)
	}
	r.rule(judgeChain, "goto", ingressChain)
	// What IPVS takes at a service's address it sends as if it came from this
	// machine, past the forwarding; only the answers pass that. What really comes
	// from here has an address of this machine as its source.
	r.rule(outputChain, "fib saddr type local accept")
	r.chains[outputChain] = append(r.chains[outputChain], r.chains[baseChain]...)
	r.rule(ingressChain, "accept")
	r.rule(deniedChain, "counter drop")
	r.rule(unknownChain, "counter drop")
	for _, prefix := range ranges {
		r.set("local"+digit(prefix.Addr()), set{}).add(prefix.Masked().String())
	}
}
