package nftables

import (
	"fmt"
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

	address := "ipv4_addr"
	if f.kind == corev1.IPv6Protocol {
		address = "ipv6_addr"
	}
	tx.Add(&knftables.Map{Name: serviceIPs, Type: address + " . inet_proto . inet_service : verdict"})
	tx.Add(&knftables.Map{Name: serviceNodePorts, Type: "inet_proto . inet_service : verdict"})
	tx.Add(&knftables.Map{Name: noEndpointServices, Type: address + " . inet_proto . inet_service : verdict"})
	tx.Add(&knftables.Map{Name: noEndpointNodePorts, Type: "inet_proto . inet_service : verdict"})
	tx.Add(&knftables.Set{Name: clusterIPs, Type: address})
	tx.Add(&knftables.Set{Name: hairpinConnections, Type: address + " . " + address})

	for _, name := range []string{servicesChain, markForMasquerade, masqueradingChain, serviceEndpointsCheck, clusterIPsCheck, nodePortCheck, rejectChain} {
		tx.Add(&knftables.Chain{Name: name})
	}
	rule := func(chain string, words ...string) {
		tx.Add(&knftables.Rule{Chain: chain, Rule: strings.Join(words, " ")})
	}
	base := func(name string, kind knftables.BaseChainType, hook knftables.BaseChainHook, priority knftables.BaseChainPriority) {
		tx.Add(&knftables.Chain{Name: name, Type: &kind, Hook: &hook, Priority: &priority})
	}
	base("nat-prerouting", knftables.NATType, knftables.PreroutingHook, knftables.DNATPriority)
	base("nat-output", knftables.NATType, knftables.OutputHook, "-100")
	base("nat-postrouting", knftables.NATType, knftables.PostroutingHook, knftables.SNATPriority)
	// Before DNAT on the way out of this host: a service without endpoints is
	// refused under its own address.
	base("filter-input", knftables.FilterType, knftables.InputHook, "-110")
	base("filter-forward", knftables.FilterType, knftables.ForwardHook, "-110")
	base("filter-output", knftables.FilterType, knftables.OutputHook, "-110")
	// After DNAT: what still has a cluster address is for a port no service has.
	base("filter-output-post-dnat", knftables.FilterType, knftables.OutputHook, "-90")

	rule("nat-prerouting", "jump", servicesChain)
	rule("nat-output", "jump", servicesChain)
	rule("nat-postrouting", "jump", masqueradingChain)
	rule("filter-input", "ct state new jump", nodePortCheck)
	rule("filter-input", "ct state new jump", serviceEndpointsCheck)
	rule("filter-forward", "ct state new jump", serviceEndpointsCheck)
	rule("filter-forward", "ct state new jump", clusterIPsCheck)
	rule("filter-output", "ct state new jump", serviceEndpointsCheck)
	rule("filter-output-post-dnat", "ct state new jump", clusterIPsCheck)

	if cidr := f.options.ClusterCIDR; cidr.IsValid() && cidr.Addr().Is6() == (f.kind == corev1.IPv6Protocol) {
		rule(servicesChain, f.ip(), "saddr !=", cidr.String(), f.ip(), "daddr @"+clusterIPs, "jump", markForMasquerade)
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

	rule(serviceEndpointsCheck, f.ip(), "daddr . meta l4proto . th dport vmap @"+noEndpointServices)
	// Refused, not sent to the default route.
	rule(clusterIPsCheck, f.ip(), "daddr @"+clusterIPs, "goto", rejectChain)
	rule(nodePortCheck, f.nodeAddresses(), "meta l4proto . th dport vmap @"+noEndpointNodePorts)
	rule(rejectChain, "reject")
}

// nodeAddresses matches packets to an address of this node that serves node
// ports. Loopback never does: the kernel would not route the answers.
func (f *family) nodeAddresses() string {
	loopback := "127.0.0.0/8"
	if f.kind == corev1.IPv6Protocol {
		loopback = "::1"
	}
	match := fmt.Sprintf("fib daddr type local %s daddr != %s", f.ip(), loopback)
	if ranges := ofFamily(f.options.NodePortAddresses, f.kind); len(ranges) > 0 {
		match += fmt.Sprintf(" %s daddr { %s }", f.ip(), strings.Join(ranges, ", "))
	}
	return match
}

func ofFamily(prefixes []netip.Prefix, kind corev1.IPFamily) []string {
	var out []string
	for _, prefix := range prefixes {
		if prefix.Addr().Is6() == (kind == corev1.IPv6Protocol) {
			out = append(out, prefix.String())
		}
	}
	return out
}
