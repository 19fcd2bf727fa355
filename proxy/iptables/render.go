package iptables

import (
	"crypto/sha256"
	"encoding/base32"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/skiff-run/skiff/proxy/table"
)

// rendered is a service port in iptables' terms.
type rendered struct {
	// entries are rules in chains that services share. Their order does not
	// matter, because no two match the same packet.
	entries []entry
	// chains of the table nat belong to the port alone.
	chains []chain
}

type entry struct {
	chainKey
	rule string
}

type chain struct {
	name  string
	rules []string
}

// renderer writes the rules of one service port.
type renderer struct {
	*rendered
	f    *family
	port *table.ServicePort
	// name is how kube-proxy spells the port, protocol how iptables does.
	name, protocol string
	// nodeAddresses are the matches of packets to node ports.
	nodeAddresses []string
}

func (f *family) render(port *table.ServicePort, nodeAddresses []string) *rendered {
	r := renderer{
		rendered: &rendered{}, f: f, port: port, name: portName(port), protocol: strings.ToLower(string(port.Protocol)), nodeAddresses: nodeAddresses,
	}
	cluster := r.choiceChain(servicePrefix, port.Cluster, !port.InternalLocal)
	local := r.choiceChain(localPrefix, port.Local, port.InternalLocal)
	internal, external := cluster, cluster
	if port.InternalLocal {
		internal = local
	}
	if port.ExternalLocal {
		external = local
	}
	r.endpointChains()
	r.clusterAddress(internal)
	if port.ExternallyAccessible() {
		entrance := ""
		// With the policy Local, pods and the node itself are served also where
		// everybody else is dropped.
		if cluster != "" || local != "" {
			entrance = r.externalChain(cluster, external)
		}
		r.externalAddresses(entrance, external == "")
	}
	return r.rendered
}

// portName is namespace/service:port, the same for both families.
func portName(port *table.ServicePort) string {
	return strings.TrimSuffix(strings.TrimSuffix(port.Name, "/ipv6"), ":")
}

// chainName is kube-proxy's.
func chainName(prefix string, words ...string) string {
	sum := sha256.Sum256([]byte(strings.Join(words, "")))
	return prefix + base32.StdEncoding.EncodeToString(sum[:])[:16]
}

func (r *renderer) chainName(prefix string) string { return chainName(prefix, r.name, r.protocol) }

func (r *renderer) endpointChain(e table.Endpoint) string {
	return chainName(endpointPrefix, r.name, r.protocol, e.Address.String())
}

func comment(text string) string { return `-m comment --comment "` + text + `" ` }

// chainComment is for chains of endpoints, of which there are many: a comment
// takes a quarter of a kilobyte of the kernel's memory.
func (r *renderer) chainComment(text string) string {
	if r.f.large {
		return ""
	}
	return comment(text)
}

func single(address netip.Addr) string {
	return netip.PrefixFrom(address, address.BitLen()).String()
}

// at matches packets to a port of an address.
func (r *renderer) at(address netip.Addr, text string) string {
	return "-d " + single(address) + " -p " + r.protocol + " " + comment(r.name+" "+text) + "-m " + r.protocol + " --dport " + strconv.Itoa(int(r.port.Port))
}

func (r *renderer) entry(table, chain, rule string) {
	r.entries = append(r.entries, entry{chainKey{table, chain}, rule})
}

// refusal is what becomes of packets that no endpoint may get, and why: a
// service without endpoints refuses at once; one that merely has none on this
// node is silent, because a load balancer may still send here.
func (r *renderer) refusal() (text, target string) {
	switch {
	case r.port.HasEndpoints:
		return "has no local endpoints", "DROP"
	case r.port.Protocol == corev1.ProtocolTCP:
		return "has no endpoints", "REJECT --reject-with tcp-reset"
	}
	return "has no endpoints", "REJECT"
}

func (r *renderer) clusterAddress(internal string) {
	address := r.port.ClusterIP
	if internal != "" {
		r.entry(nat, servicesChain, r.at(address, "cluster IP")+" -j "+internal)
	} else {
		text, target := r.refusal()
		r.entry(filter, servicesChain, r.at(address, text)+" -j "+target)
	}
	// A port that no service has is refused, not sent to the default route. One
	// rule for each block keeps the way of a packet short.
	block := netip.PrefixFrom(address, address.BitLen()-8).Masked().String()
	name := chainName(blockPrefix, block)
	r.entry(filter, clusterIPsChain, "-d "+block+" -j "+name)
	r.entry(filter, name, "-d "+single(address)+" -j "+rejectChain)
}

// externalAddresses lead to the entrance, empty without any endpoint. Closed
// says that the outside is refused there.
func (r *renderer) externalAddresses(entrance string, closed bool) {
	text, target := r.refusal()
	refuse := func(address netip.Addr) {
		if closed {
			r.entry(filter, externalServicesChain, r.at(address, text)+" -j "+target)
		}
	}
	guarded := entrance
	if len(r.port.SourceRanges) > 0 && len(r.port.LoadBalancerIPs) > 0 && entrance != "" {
		guarded = r.sourcesChain(entrance)
	}
	for _, address := range r.port.LoadBalancerIPs {
		if guarded != "" {
			r.entry(nat, servicesChain, r.at(address, "loadbalancer IP")+" -j "+guarded)
		}
		if guarded != entrance {
			r.entry(filter, firewallChain, r.at(address, "traffic not accepted by "+guarded)+" -j DROP")
		}
		refuse(address)
	}
	for _, address := range r.port.ExternalIPs {
		// Source ranges close an address that is the load balancer's too.
		if slices.Contains(r.port.LoadBalancerIPs, address) {
			continue
		}
		if entrance != "" {
			r.entry(nat, servicesChain, r.at(address, "external IP")+" -j "+entrance)
		}
		refuse(address)
	}
	if r.port.NodePort == 0 {
		return
	}
	number := "-m " + r.protocol + " --dport " + strconv.Itoa(int(r.port.NodePort))
	if entrance != "" {
		r.entry(nat, nodePortsChain, "-p "+r.protocol+" "+comment(r.name)+number+" -j "+entrance)
	}
	if closed {
		for _, match := range r.nodeAddresses {
			r.entry(filter, externalServicesChain, match+" -p "+r.protocol+" "+comment(r.name+" "+text)+number+" -j "+target)
		}
	}
}

// sourcesChain lets those in the source ranges of a load balancer pass. The
// others stay untranslated, and KUBE-PROXY-FIREWALL drops them.
func (r *renderer) sourcesChain(entrance string) string {
	c := chain{name: r.chainName(sourcesPrefix)}
	for _, prefix := range r.port.SourceRanges {
		c.rules = append(c.rules, "-s "+prefix.String()+" "+comment(r.name+" loadbalancer IP")+"-j "+entrance)
	}
	c.rules = append(c.rules, strings.TrimSpace(comment("other traffic to "+r.name+" will be dropped by "+firewallChain)))
	r.chains = append(r.chains, c)
	return c.name
}

// externalChain renders where traffic to node ports, external and load balancer
// addresses goes, and whose source must become ours for the answer to find
// back. Cluster or external may be empty: no such endpoint.
func (r *renderer) externalChain(cluster, external string) string {
	c := chain{name: r.chainName(externalPrefix)}
	add := func(match, text, target string) {
		c.rules = append(c.rules, match+comment(text+" for "+r.name+" external destinations")+"-j "+target)
	}
	const fromHere = "-m addrtype --src-type LOCAL "
	if !r.port.ExternalLocal {
		// The endpoint may be on another node, which would answer past us.
		add("", "masquerade traffic", markChain)
	} else {
		// Pods and the node are served as if they had gone to a load balancer and
		// back: by all endpoints. What the node sends to one of its own addresses
		// has that as its source, which an endpoint elsewhere could not answer.
		for _, pods := range r.f.clusterCIDRs() {
			if cluster != "" {
				add("-s "+pods.String()+" ", "pod traffic", cluster)
			}
		}
		add(fromHere, "masquerade LOCAL traffic", markChain)
		if cluster != "" {
			add(fromHere, "route LOCAL traffic", cluster)
		}
	}
	if external != "" {
		c.rules = append(c.rules, "-j "+external)
	}
	r.chains = append(r.chains, c)
	return c.name
}

// choiceChain renders the choice among endpoints and returns the chain's name,
// empty without endpoints.
func (r *renderer) choiceChain(prefix string, endpoints []table.Endpoint, internal bool) string {
	if len(endpoints) == 0 {
		return ""
	}
	c := chain{name: r.chainName(prefix), rules: make([]string, 0, len(endpoints)+1)}
	if internal {
		for _, pods := range r.f.clusterCIDRs() {
			c.rules = append(c.rules, "! -s "+pods.String()+" "+r.at(r.port.ClusterIP, "cluster IP")+" -j "+markChain)
		}
	}
	if r.port.Affinity > 0 {
		for _, e := range endpoints {
			own := r.endpointChain(e)
			c.rules = append(c.rules, r.chainComment(r.name+" -> "+e.Address.String())+"-m recent --rcheck --seconds "+
				strconv.Itoa(int(r.port.Affinity/time.Second))+" --reap --name "+own+" --rsource -j "+own)
		}
	}
	for i, e := range endpoints {
		chance := ""
		if left := len(endpoints) - i; left > 1 {
			chance = fmt.Sprintf("-m statistic --mode random --probability %.11f ", 1/float64(left))
		}
		c.rules = append(c.rules, r.chainComment(r.name+" -> "+e.Address.String())+chance+"-j "+r.endpointChain(e))
	}
	r.chains = append(r.chains, c)
	return c.name
}

// endpointChains translate the destination, after a pod that talks to itself is
// marked and the client is remembered.
func (r *renderer) endpointChains() {
	for _, e := range r.port.AllEndpoints() {
		c := chain{name: r.endpointChain(e), rules: make([]string, 0, 2)}
		text := r.chainComment(r.name)
		if e.Local {
			c.rules = append(c.rules, "-s "+single(e.Address.Addr())+" "+text+"-j "+markChain)
		}
		affinity := ""
		if r.port.Affinity > 0 {
			affinity = "-m recent --set --name " + c.name + " --rsource "
		}
		c.rules = append(c.rules, "-p "+r.protocol+" "+text+affinity+"-m "+r.protocol+" -j DNAT --to-destination "+e.Address.String())
		r.chains = append(r.chains, c)
	}
}
