package ipvs

import (
	"fmt"
	"net/netip"
	"strings"

	corev1 "k8s.io/api/core/v1"
)

// The chains. All begin with chainPrefix, which no other mode's and nobody
// else's do.
const (
	chainPrefix      = "KUBE-IPVS-"
	servicesChain    = "KUBE-IPVS-SERVICES"
	masqChain        = "KUBE-IPVS-MASQ"
	clusterChain     = "KUBE-IPVS-CLUSTER"
	nodePortChain    = "KUBE-IPVS-NODE-PORT"
	localChain       = "KUBE-IPVS-LOCAL"
	toClusterChain   = "KUBE-IPVS-TO-CLUSTER"
	postroutingChain = "KUBE-IPVS-POSTROUTING"
	filterChain      = "KUBE-IPVS-FILTER"
	rejectChain      = "KUBE-IPVS-REJECT"
	forwardChain     = "KUBE-IPVS-FORWARD"
	firewallChain    = "KUBE-IPVS-FIREWALL"
)

// masqueradeMark is kube-proxy's.
const masqueradeMark = "0x4000"

// chain and its rules, as iptables-restore reads them after "-A CHAIN ".
type chain struct {
	table, name string
	rules       []string
}

// jump is a rule in a chain of the kernel's that leads to one of ours.
type jump struct{ table, from, rule string }

// jumps are put in front of their chains.
var jumps = []jump{
	// Before IPVS, which takes what this machine sends ahead of the table filter.
	{"mangle", "PREROUTING", "-m conntrack --ctstate NEW -j " + firewallChain},
	{"mangle", "OUTPUT", "-m conntrack --ctstate NEW -j " + firewallChain},
	{"nat", "PREROUTING", "-j " + servicesChain},
	{"nat", "OUTPUT", "-j " + servicesChain},
	{"nat", "POSTROUTING", "-j " + postroutingChain},
	{"filter", "INPUT", "-m conntrack --ctstate NEW -j " + filterChain},
	{"filter", "FORWARD", "-j " + forwardChain},
}

// chains are all rules but the jumps. They depend on the services only in
// toCluster.
func chains(family corev1.IPFamily, pods []netip.Prefix, toCluster []string) []chain {
	match := func(set, directions string) string {
		return "-m set --match-set " + setName(family, set) + " " + directions
	}
	fromPods := func(target string) []string {
		var rules []string
		for _, prefix := range pods {
			if familyOf(prefix.Addr()) == family {
				rules = append(rules, fmt.Sprintf("-s %s -j %s", prefix, target))
			}
		}
		return rules
	}
	const fromHere = "-m addrtype --src-type LOCAL"
	jumpIf := func(match, target string) string { return match + " -j " + target }
	firewall := []string{
		jumpIf(match(silentServices, "dst,dst"), "DROP"),
		jumpIf(match(firewalled, "dst,dst")+" -m set ! --match-set "+setName(family, sourceRanges)+" dst,dst,src", "DROP"),
	}
	firewall = append(firewall, fromPods("RETURN")...)
	firewall = append(firewall, jumpIf(fromHere, "RETURN"), jumpIf(match(silentOutside, "dst,dst"), "DROP"))
	// What comes from elsewhere to a cluster address is masqueraded, because the
	// answer would not find back.
	cluster := append(fromPods("RETURN"), "-j "+masqChain)
	if len(cluster) == 1 {
		cluster = nil // nobody knows who is a pod
	}
	nodePorts := []string{
		jumpIf("-p tcp "+match(nodePortsTCP, "dst"), masqChain),
		jumpIf("-p udp "+match(nodePortsUDP, "dst"), masqChain),
		jumpIf("-p sctp "+match(nodePortsSCTP, "dst,dst"), masqChain),
	}
	// Pods and the machine itself are served as if they had gone to a load balancer
	// and back: by all endpoints. What the machine sends to one of its own
	// addresses has that as its source, which an endpoint elsewhere could not answer.
	local := append(fromPods(toClusterChain), jumpIf(fromHere, masqChain), jumpIf(fromHere, toClusterChain))
	return []chain{
		{"mangle", firewallChain, firewall},
		{"nat", masqChain, []string{"-j MARK --or-mark " + masqueradeMark}},
		{"nat", clusterChain, cluster},
		{"nat", nodePortChain, nodePorts},
		{"nat", toClusterChain, toCluster},
		{"nat", localChain, local},
		{"nat", servicesChain, []string{
			jumpIf(match(localServices, "dst,dst"), localChain),
			jumpIf(match(clusterIPs, "dst,dst"), clusterChain),
			jumpIf(match(externalIPs, "dst,dst"), masqChain),
			jumpIf(match(loadBalancers, "dst,dst"), masqChain),
			jumpIf(match(nodeIPs, "dst"), nodePortChain),
		}},
		{"nat", postroutingChain, []string{
			jumpIf(match(loopBack, "dst,dst,src"), "MASQUERADE"),
			"-m mark ! --mark " + masqueradeMark + "/" + masqueradeMark + " -j RETURN",
			// The mark is taken off, so that a packet that passes twice, as through a
			// tunnel, is not treated twice.
			"-j MARK --xor-mark " + masqueradeMark,
			"-j MASQUERADE --random-fully",
		}},
		// The kernel limits how many refusals by ICMP a peer gets; a reset is never
		// withheld.
		{"filter", rejectChain, []string{"-p tcp -j REJECT --reject-with tcp-reset", "-j REJECT"}},
		{"filter", filterChain, []string{
			jumpIf(match(refusedServices, "dst,dst"), rejectChain),
			// The addresses of services are addresses of this machine, but what listens
			// on all of its addresses is not meant.
			"-m set ! --match-set " + setName(family, heldIPs) + " dst -j RETURN",
			jumpIf(match(recordedServices, "dst,dst"), "RETURN"),
			jumpIf("-p tcp "+match(healthCheckPorts, "dst"), "RETURN"),
			"-j " + rejectChain,
		}},
		{"filter", forwardChain, []string{
			// Answers, where others drop what is forwarded.
			"-m mark --mark " + masqueradeMark + "/" + masqueradeMark + " -j ACCEPT",
			"-m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT",
		}},
	}
}

// restoreText is what iptables-restore --noflush makes the chains from, with
// jumps to insert.
func restoreText(chains []chain, insert []jump) string {
	var b strings.Builder
	for _, table := range []string{"mangle", "nat", "filter"} {
		var lines []string
		for _, c := range chains {
			if c.table == table {
				lines = append(lines, ":"+c.name+" - [0:0]")
			}
		}
		for _, c := range chains {
			if c.table == table {
				for _, rule := range c.rules {
					lines = append(lines, "-A "+c.name+" "+rule)
				}
			}
		}
		for _, j := range insert {
			if j.table == table {
				lines = append(lines, "-I "+j.from+" 1 "+j.rule)
			}
		}
		if len(lines) > 0 {
			fmt.Fprintf(&b, "*%s\n%s\nCOMMIT\n", table, strings.Join(lines, "\n"))
		}
	}
	return b.String()
}
