package iptables

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
)

// The names of the fixed chains: kube-proxy's, but for the last two.
const (
	servicesChain         = "KUBE-SERVICES"
	externalServicesChain = "KUBE-EXTERNAL-SERVICES"
	nodePortsChain        = "KUBE-NODEPORTS"
	postroutingChain      = "KUBE-POSTROUTING"
	markChain             = "KUBE-MARK-MASQ"
	forwardChain          = "KUBE-FORWARD"
	firewallChain         = "KUBE-PROXY-FIREWALL"
	canaryChain           = "KUBE-PROXY-CANARY"
	localnetChain         = "KUBE-FIREWALL"
	// clusterIPsChain refuses what no service serves at a cluster address; it
	// leads to a chain for each block of addresses.
	clusterIPsChain = "KUBE-CLUSTER-IPS"
	rejectChain     = "KUBE-PROXY-REJECT"
)

// The beginnings of the names of chains that belong to a service port or a
// block of cluster addresses.
const (
	servicePrefix  = "KUBE-SVC-"
	localPrefix    = "KUBE-SVL-"
	externalPrefix = "KUBE-EXT-"
	sourcesPrefix  = "KUBE-FW-"
	endpointPrefix = "KUBE-SEP-"
	blockPrefix    = "KUBE-CIP-"
)

// masqueradeMark is kube-proxy's.
const masqueradeMark = "0x4000"

// The tables.
const (
	nat    = "nat"
	filter = "filter"
	mangle = "mangle"
)

type chainKey struct{ table, chain string }

// fixedChains are there whatever the services, in the order of their tables.
// The canaries are empty: they show when somebody flushed all rules.
var fixedChains = []chainKey{
	{mangle, canaryChain},
	{filter, canaryChain}, {filter, servicesChain}, {filter, externalServicesChain}, {filter, nodePortsChain}, {filter, forwardChain},
	{filter, firewallChain}, {filter, localnetChain}, {filter, clusterIPsChain}, {filter, rejectChain},
	{nat, canaryChain}, {nat, servicesChain}, {nat, nodePortsChain}, {nat, postroutingChain}, {nat, markChain},
}

// ours says whether a chain is one that this package makes.
func ours(name string) bool {
	for _, c := range fixedChains {
		if c.chain == name {
			return true
		}
	}
	for _, prefix := range []string{servicePrefix, localPrefix, externalPrefix, sourcesPrefix, endpointPrefix, blockPrefix} {
		if strings.HasPrefix(name, prefix) {
			return true
		}
	}
	return false
}

// jump is a rule in a chain of the kernel's that leads to one of ours.
type jump struct {
	table, from, to string
	comment         string
	// newOnly leaves established connections alone.
	newOnly bool
}

// jumps in the order in which they are put at the front of their chains: the
// last one is the first that packets meet.
func jumps() []jump {
	return []jump{
		{filter, "INPUT", externalServicesChain, "kubernetes externally-visible service portals", true},
		{filter, "FORWARD", externalServicesChain, "kubernetes externally-visible service portals", true},
		{filter, "INPUT", nodePortsChain, "kubernetes health check service ports", false},
		{filter, "FORWARD", servicesChain, "kubernetes service portals", true},
		{filter, "OUTPUT", servicesChain, "kubernetes service portals", true},
		{filter, "FORWARD", forwardChain, "kubernetes forwarding rules", false},
		{filter, "INPUT", firewallChain, "kubernetes load balancer firewall", true},
		{filter, "OUTPUT", firewallChain, "kubernetes load balancer firewall", true},
		{filter, "FORWARD", firewallChain, "kubernetes load balancer firewall", true},
		{filter, "INPUT", localnetChain, "", false},
		{filter, "OUTPUT", localnetChain, "", false},
		{nat, "OUTPUT", servicesChain, "kubernetes service portals", false},
		{nat, "PREROUTING", servicesChain, "kubernetes service portals", false},
		{nat, "POSTROUTING", postroutingChain, "kubernetes postrouting rules", false},
	}
}

func (j jump) words() []string {
	var words []string
	if j.newOnly {
		words = append(words, "-m", "conntrack", "--ctstate", "NEW")
	}
	if j.comment != "" {
		words = append(words, "-m", "comment", "--comment", j.comment)
	}
	return append(words, "-j", j.to)
}

// rule is the jump as iptables-save writes it.
func (j jump) rule() string {
	words := j.words()
	for i, word := range words {
		if strings.Contains(word, " ") {
			words[i] = `"` + word + `"`
		}
	}
	return strings.Join(words, " ")
}

func (j jump) key() jumpKey { return jumpKey{j.table, j.from, j.rule()} }

// fixedRules are those that do not depend on services, by chain. In chains that
// services share they stand after the services' rules.
func (f *family) fixedRules(nodePortRanges []netip.Prefix) map[chainKey][]string {
	marked := "-m mark --mark " + masqueradeMark + "/" + masqueradeMark
	rules := map[chainKey][]string{
		{nat, postroutingChain}: {
			"-m mark ! --mark " + masqueradeMark + "/" + masqueradeMark + " -j RETURN",
			// The mark is taken off, so that a packet that passes twice, as through a
			// tunnel, is not treated twice.
			"-j MARK --xor-mark " + masqueradeMark,
			`-m comment --comment "kubernetes service traffic requiring SNAT" -j MASQUERADE --random-fully`,
		},
		{nat, markChain}:     {"-j MARK --or-mark " + masqueradeMark},
		{nat, servicesChain}: f.nodePortJumps(nodePortRanges),
		{filter, forwardChain}: {
			// A packet that conntrack has no place for is not translated, and the
			// endpoint's host would answer it with a reset.
			"-m conntrack --ctstate INVALID -j DROP",
			`-m comment --comment "kubernetes forwarding rules" ` + marked + " -j ACCEPT",
			`-m comment --comment "kubernetes forwarding conntrack rule" -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT`,
		},
		{filter, servicesChain}: {`-m comment --comment "what no service serves" -j ` + clusterIPsChain},
		// The kernel limits how many refusals by ICMP a peer gets; a reset is never
		// withheld.
		{filter, rejectChain}: {"-p tcp -j REJECT --reject-with tcp-reset", "-j REJECT"},
	}
	if f.liberal() {
		rules[chainKey{filter, forwardChain}] = rules[chainKey{filter, forwardChain}][1:]
	}
	if f.localhost(nodePortRanges) {
		// Routing 127.0.0.0/8 opens what listens there to the neighbours
		// (CVE-2020-8558); this closes it.
		rules[chainKey{filter, localnetChain}] = []string{`-d 127.0.0.0/8 ! -s 127.0.0.0/8 -m comment --comment "block incoming localnet connections" -m conntrack ! --ctstate RELATED,ESTABLISHED,DNAT -j DROP`}
	}
	return rules
}

// localhost says whether node ports are served on loopback too. IPv6 has no
// such way.
func (f *family) localhost(ranges []netip.Prefix) bool {
	return f.options.LocalhostNodePorts && f.kind == corev1.IPv4Protocol &&
		slices.ContainsFunc(ranges, loopback[corev1.IPv4Protocol].Overlaps)
}

var loopback = map[corev1.IPFamily]netip.Prefix{
	corev1.IPv4Protocol: netip.MustParsePrefix("127.0.0.0/8"), corev1.IPv6Protocol: netip.MustParsePrefix("::1/128"),
}

// nodeAddresses are matches, any of which a packet to a node port fulfils.
func (f *family) nodeAddresses(ranges []netip.Prefix) []string {
	localhost := f.localhost(ranges)
	var matches []string
	for _, prefix := range f.ofFamily(ranges) {
		own := loopback[f.kind]
		within := prefix.Bits() >= own.Bits() && own.Contains(prefix.Addr())
		switch {
		case prefix.Bits() == 0 && localhost:
			matches = append(matches, "-m addrtype --dst-type LOCAL")
		case prefix.Bits() == 0:
			matches = append(matches, fmt.Sprintf("! -d %s -m addrtype --dst-type LOCAL", own))
		case within && !localhost:
		default:
			matches = append(matches, fmt.Sprintf("-d %s -m addrtype --dst-type LOCAL", prefix))
		}
	}
	return matches
}

// nodePortJumps lead to the node ports; they must be last.
func (f *family) nodePortJumps(ranges []netip.Prefix) []string {
	var rules []string
	for _, match := range f.nodeAddresses(ranges) {
		rules = append(rules, match+` -m comment --comment "kubernetes service nodeports; NOTE: this must be the last rule in this chain" -j `+nodePortsChain)
	}
	return rules
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
