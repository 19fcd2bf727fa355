package nftables

import (
	"net/netip"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/knftables"
)

// The names of the fixed objects. Those that Kubernetes' own nftables proxy has
// bear its names, which administrators know.
const (
	serviceIPs            = "service-ips"
	serviceNodePorts      = "service-nodeports"
	nodePortIPs           = "nodeport-ips"
	firewallIPs           = "firewall-ips"
	noEndpointServices    = "no-endpoint-services"
	noEndpointNodePorts   = "no-endpoint-nodeports"
	clusterIPs            = "cluster-ips"
	hairpinConnections    = "hairpin-connections"
	servicesChain         = "services"
	markForMasquerade     = "mark-for-masquerade"
	masqueradingChain     = "masquerading"
	serviceEndpointsCheck = "service-endpoints-check"
	clusterIPsCheck       = "cluster-ips-check"
	nodePortCheck         = "nodeport-endpoints-check"
	firewallCheck         = "firewall-check"
	rejectChain           = "reject-chain"
)

// masqueradeMark is the bit by which a packet remembers, from where it is
// matched to where it leaves, that its source must become ours: the bit that
// Kubernetes uses.
const masqueradeMark = "0x4000"

func (f *family) ip() string {
	if f.kind == corev1.IPv6Protocol {
		return "ip6"
	}
	return "ip"
}

// skeleton empties the table and makes everything that does not depend on
// services.
func (f *family) skeleton(tx *knftables.Transaction) {
	tx.Add(&knftables.Table{})
	tx.Delete(&knftables.Table{})
	tx.Add(&knftables.Table{Comment: knftables.PtrTo("service addresses, by skiff-proxy")})
	for _, o := range f.fixed() {
		tx.Add(o)
	}
}

// fixed are the objects that do not depend on services, in the order in which
// they refer to one another.
func (f *family) fixed() []knftables.Object {
	address := "ipv4_addr"
	if f.ip() == "ip6" {
		address = "ipv6_addr"
	}
	all := []knftables.Object{
		&knftables.Map{Name: serviceIPs, Type: address + " . inet_proto . inet_service : verdict"},
		&knftables.Map{Name: serviceNodePorts, Type: "inet_proto . inet_service : verdict"},
		&knftables.Map{Name: noEndpointServices, Type: address + " . inet_proto . inet_service : verdict"},
		&knftables.Map{Name: noEndpointNodePorts, Type: "inet_proto . inet_service : verdict"},
		&knftables.Map{Name: firewallIPs, Type: address + " . inet_proto . inet_service : verdict"},
		&knftables.Set{Name: clusterIPs, Type: address},
		&knftables.Set{Name: hairpinConnections, Type: address + " . " + address},
		&knftables.Set{Name: nodePortIPs, Type: address, Flags: []knftables.SetFlag{knftables.IntervalFlag}},
	}
	for _, name := range []string{servicesChain, markForMasquerade, masqueradingChain, serviceEndpointsCheck, clusterIPsCheck, nodePortCheck, firewallCheck, rejectChain} {
		all = append(all, &knftables.Chain{Name: name})
	}
	rule := func(chain string, words ...string) {
		all = append(all, &knftables.Rule{Chain: chain, Rule: strings.Join(words, " ")})
	}
	base := func(name string, kind knftables.BaseChainType, hook knftables.BaseChainHook, priority knftables.BaseChainPriority) {
		all = append(all, &knftables.Chain{Name: name, Type: &kind, Hook: &hook, Priority: &priority})
	}
	base("nat-prerouting", knftables.NATType, knftables.PreroutingHook, knftables.DNATPriority)
	base("nat-output", knftables.NATType, knftables.OutputHook, "-100")
	base("nat-postrouting", knftables.NATType, knftables.PostroutingHook, knftables.SNATPriority)
	// Source ranges look at the address that the client asked for, before DNAT.
	base("filter-prerouting-pre-dnat", knftables.FilterType, knftables.PreroutingHook, "-110")
	base("filter-output-pre-dnat", knftables.FilterType, knftables.OutputHook, "-110")
	// After DNAT: what still has a service's address found no endpoint there.
	base("filter-input", knftables.FilterType, knftables.InputHook, "-110")
	base("filter-forward", knftables.FilterType, knftables.ForwardHook, "-110")
	base("filter-output", knftables.FilterType, knftables.OutputHook, "-90")

	rule("nat-prerouting", "jump", servicesChain)
	rule("nat-output", "jump", servicesChain)
	rule("nat-postrouting", "jump", masqueradingChain)
	rule("filter-prerouting-pre-dnat", "ct state new jump", firewallCheck)
	rule("filter-output-pre-dnat", "ct state new jump", firewallCheck)
	rule("filter-input", "ct state new jump", nodePortCheck)
	rule("filter-input", "ct state new jump", serviceEndpointsCheck)
	rule("filter-forward", "ct state new jump", serviceEndpointsCheck)
	rule("filter-forward", "ct state new jump", clusterIPsCheck)
	rule("filter-output", "ct state new jump", serviceEndpointsCheck)
	rule("filter-output", "ct state new jump", clusterIPsCheck)

	if pods := f.clusterCIDRs(); len(pods) > 0 {
		rule(servicesChain, f.ip(), "saddr !=", anyOf(pods), f.ip(), "daddr @"+clusterIPs, "jump", markForMasquerade)
	}
	rule(servicesChain, f.ip(), "daddr . meta l4proto . th dport vmap @"+serviceIPs)
	rule(servicesChain, f.nodeAddresses(), "meta l4proto . th dport vmap @"+serviceNodePorts)

	rule(markForMasquerade, "meta mark set meta mark or", masqueradeMark)
	rule(masqueradingChain, f.ip(), "saddr .", f.ip(), "daddr @"+hairpinConnections, "masquerade fully-random")
	rule(masqueradingChain, "meta mark and", masqueradeMark, "== 0 return")
	// The mark is taken off, so that a packet that passes twice, as through a
	// tunnel, is not treated twice.
	rule(masqueradingChain, "meta mark set meta mark xor", masqueradeMark)
	rule(masqueradingChain, "masquerade fully-random")

	rule(firewallCheck, f.ip(), "daddr . meta l4proto . th dport vmap @"+firewallIPs)
	rule(serviceEndpointsCheck, f.ip(), "daddr . meta l4proto . th dport vmap @"+noEndpointServices)
	// Refused, not sent to the default route.
	rule(clusterIPsCheck, f.ip(), "daddr @"+clusterIPs, "goto", rejectChain)
	rule(nodePortCheck, f.nodeAddresses(), "meta l4proto . th dport vmap @"+noEndpointNodePorts)
	// The kernel limits how many refusals by ICMP a peer gets; a reset is never
	// withheld.
	rule(rejectChain, "meta l4proto tcp reject with tcp reset")
	rule(rejectChain, "reject")
	return all
}

// nodeAddresses matches packets to an address of this node that serves node
// ports. Loopback never does: the kernel would not route the answers.
func (f *family) nodeAddresses() string {
	loopback := "127.0.0.0/8"
	if f.ip() == "ip6" {
		loopback = "::1"
	}
	return strings.Join([]string{"fib daddr type local", f.ip(), "daddr !=", loopback, f.ip(), "daddr @" + nodePortIPs}, " ")
}

func (f *family) clusterCIDRs() []netip.Prefix { return f.ofFamily(f.options.ClusterCIDRs) }

func (f *family) ofFamily(prefixes []netip.Prefix) []netip.Prefix {
	var out []netip.Prefix
	for _, prefix := range prefixes {
		if prefix.Addr().Is6() == (f.kind == corev1.IPv6Protocol) {
			out = append(out, prefix)
		}
	}
	return out
}
