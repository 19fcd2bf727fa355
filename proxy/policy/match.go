package policy

import (
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"go4.org/netipx"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/utils/ptr"
)

// peers are the alternatives of a rule's other end, as words of a rule; empty
// words match everybody.
func (c *compiler) peers(p *compiled, r rule, d direction) []string {
	if len(r.peers) == 0 {
		return []string{""}
	}
	var alternatives []string
	if key, members := c.peerPods(p, r); key != "" {
		for _, f := range families {
			if !c.present[f.digit] {
				continue
			}
			name := "pods" + f.digit + "-" + hash(key)
			if c.rules.sets[name] == nil {
				s := c.rules.set(name, set{of: f.of})
				for _, member := range members {
					for _, address := range member.addresses {
						if digit(address) == f.digit {
							s.add(address.String())
						}
					}
				}
			}
			alternatives = append(alternatives, d.peer(f.ip)+" @"+name)
		}
	}
	return append(alternatives, blocks(r.peers, d)...)
}

// peerPods are the pods that a rule's peers select, and a key that is the same
// for the same selection; the key is empty when no peer selects pods.
func (c *compiler) peerPods(p *compiled, r rule) (string, []*pod) {
	var keys []string
	var members []*pod
	for i := range r.peers {
		peer := &r.peers[i]
		if peer.PodSelector == nil && peer.NamespaceSelector == nil {
			continue
		}
		key := "pods:" + metav1.FormatLabelSelector(peer.PodSelector)
		if peer.NamespaceSelector == nil {
			key += " in " + p.Namespace
		} else {
			key += " in namespaces:" + metav1.FormatLabelSelector(peer.NamespaceSelector)
		}
		keys = append(keys, key)
		members = append(members, c.selected(key, p.Namespace, peer)...)
	}
	slices.Sort(keys)
	return strings.Join(slices.Compact(keys), ","), members
}

// selected are the pods that one peer selects, found once for each key.
func (c *compiler) selected(key, namespace string, peer *networkingv1.NetworkPolicyPeer) []*pod {
	if found, done := c.found[key]; done {
		return found
	}
	pods := labels.Everything()
	if peer.PodSelector != nil {
		pods = selector(peer.PodSelector)
	}
	var found []*pod
	look := func(in string) {
		for _, p := range c.pods[in] {
			if pods.Matches(labels.Set(p.Labels)) {
				found = append(found, p)
			}
		}
	}
	if peer.NamespaceSelector == nil {
		look(namespace)
	} else {
		namespaces := selector(peer.NamespaceSelector)
		for name, set := range c.labels {
			if namespaces.Matches(set) {
				look(name)
			}
		}
	}
	c.found[key] = found
	return found
}

// blocks are the alternatives of the ranges of addresses among the peers.
func blocks(peers []networkingv1.NetworkPolicyPeer, d direction) []string {
	var all netipx.IPSetBuilder
	for i := range peers {
		block := peers[i].IPBlock
		if block == nil {
			continue
		}
		var one netipx.IPSetBuilder
		if prefix, ok := parsePrefix(block.CIDR); ok {
			one.AddPrefix(prefix)
		}
		for _, text := range block.Except {
			if prefix, ok := parsePrefix(text); ok {
				one.RemovePrefix(prefix)
			}
		}
		if set, err := one.IPSet(); err == nil {
			all.AddSet(set)
		}
	}
	set, err := all.IPSet()
	if err != nil {
		return nil
	}
	var alternatives []string
	for _, f := range families {
		var texts []string
		whole := false
		for _, r := range set.Ranges() {
			if digit(r.From()) != f.digit {
				continue
			}
			prefix, is := r.Prefix()
			switch {
			case is && prefix.Bits() == 0:
				whole = true
			case is:
				texts = append(texts, prefix.String())
			default:
				texts = append(texts, r.From().String()+"-"+r.To().String())
			}
		}
		switch {
		case whole:
			alternatives = append(alternatives, "meta nfproto ipv"+f.digit)
		case len(texts) > 0:
			alternatives = append(alternatives, d.peer(f.ip)+" { "+strings.Join(texts, ", ")+" }")
		}
	}
	return alternatives
}

// parsePrefix also reads what only old releases of the API accepted: bits set
// beyond the prefix, and IPv4 within IPv6.
func parsePrefix(text string) (netip.Prefix, bool) {
	prefix, err := netip.ParsePrefix(text)
	if err != nil {
		return prefix, false
	}
	if prefix.Addr().Is4In6() {
		if prefix.Bits() < 96 {
			return prefix, false
		}
		prefix = netip.PrefixFrom(prefix.Addr().Unmap(), prefix.Bits()-96)
	}
	return prefix.Masked(), true
}

// ports are the alternatives of a rule's ports at the end that answers; empty
// words match every port and protocol.
func (c *compiler) ports(p *compiled, r rule, d direction) []string {
	if len(r.ports) == 0 {
		return []string{""}
	}
	var alternatives []string
	for _, protocol := range []corev1.Protocol{corev1.ProtocolTCP, corev1.ProtocolUDP, corev1.ProtocolSCTP} {
		match := "meta l4proto " + strings.ToLower(string(protocol))
		var numbers []span
		var names []string
		every := false
		for i := range r.ports {
			port := &r.ports[i]
			switch {
			case ptr.Deref(port.Protocol, corev1.ProtocolTCP) != protocol:
			case port.Port == nil:
				every = true
			case port.Port.Type == intstr.String:
				names = append(names, port.Port.StrVal)
			default:
				numbers = append(numbers, span{port.Port.IntVal, ptr.Deref(port.EndPort, port.Port.IntVal)})
			}
		}
		if every {
			alternatives = append(alternatives, match)
			continue
		}
		if len(numbers) > 0 {
			alternatives = append(alternatives, match+" "+responderPort+" @"+c.numbers(numbers))
		}
		if len(names) > 0 {
			alternatives = append(alternatives, c.named(p, r, d, protocol, names)...)
		}
	}
	return alternatives
}

type span struct{ from, to int32 }

// numbers makes the set of these ports, none of them twice.
func (c *compiler) numbers(spans []span) string {
	slices.SortFunc(spans, func(a, b span) int { return int(a.from - b.from) })
	var merged []span
	for _, s := range spans {
		if last := len(merged) - 1; last >= 0 && s.from <= merged[last].to+1 {
			merged[last].to = max(merged[last].to, s.to)
			continue
		}
		merged = append(merged, s)
	}
	var texts []string
	for _, s := range merged {
		text := strconv.Itoa(int(s.from))
		if s.to > s.from {
			text += "-" + strconv.Itoa(int(s.to))
		}
		texts = append(texts, text)
	}
	name := truncate("ports-" + hash(strings.Join(texts, ",")))
	s := c.rules.set(name, set{of: "inet_service", interval: true})
	for _, text := range texts {
		s.add(text)
	}
	return name
}

// named are the alternatives of ports by name: what the name means differs from
// pod to pod, so the sets hold addresses with ports. The pods are those that
// answer: with ingress this node's that the policy selects, with egress those
// that the peers select.
func (c *compiler) named(p *compiled, r rule, d direction, protocol corev1.Protocol, names []string) []string {
	slices.Sort(names)
	names = slices.Compact(names)
	var answering []*pod
	var key string
	switch {
	case d.kind == networkingv1.PolicyTypeIngress:
		key = "of " + p.Namespace + "/" + p.Name
		for _, candidate := range c.pods[p.Namespace] {
			if candidate.Spec.NodeName == c.input.Node && p.selector.Matches(labels.Set(candidate.Labels)) {
				answering = append(answering, candidate)
			}
		}
	default:
		ranges := slices.ContainsFunc(r.peers, func(peer networkingv1.NetworkPolicyPeer) bool { return peer.IPBlock != nil })
		if key, answering = c.peerPods(p, r); key == "" || ranges {
			// Ranges, or everybody: a name means something at pods only.
			key, answering = "of all", nil
			for _, in := range c.pods {
				answering = append(answering, in...)
			}
		}
	}
	var alternatives []string
	for _, f := range families {
		if !c.present[f.digit] {
			continue
		}
		name := "named" + f.digit + "-" + hash(key, string(protocol), strings.Join(names, ","))
		if c.rules.sets[name] == nil {
			s := c.rules.set(name, set{of: f.of + conjunction + "inet_service"})
			for _, member := range answering {
				for _, number := range portsNamed(member.Pod, protocol, names) {
					for _, address := range member.addresses {
						if digit(address) == f.digit {
							s.add(address.String(), strconv.Itoa(int(number)))
						}
					}
				}
			}
		}
		alternatives = append(alternatives, strings.Join([]string{"meta l4proto", strings.ToLower(string(protocol)), responder(f.ip), ".", responderPort, "@" + name}, " "))
	}
	return alternatives
}

// portsNamed are the container ports of those names.
func portsNamed(p *corev1.Pod, protocol corev1.Protocol, names []string) []int32 {
	var out []int32
	visit := func(containers []corev1.Container) {
		for i := range containers {
			for _, port := range containers[i].Ports {
				if port.Name != "" && slices.Contains(names, port.Name) && (port.Protocol == protocol || port.Protocol == "" && protocol == corev1.ProtocolTCP) {
					out = append(out, port.ContainerPort)
				}
			}
		}
	}
	visit(p.Spec.Containers)
	// Only init containers that keep running serve anything.
	for i := range p.Spec.InitContainers {
		if ptr.Deref(p.Spec.InitContainers[i].RestartPolicy, "") == corev1.ContainerRestartPolicyAlways {
			visit(p.Spec.InitContainers[i : i+1])
		}
	}
	return out
}
