package nftables

import (
	"crypto/sha256"
	"encoding/base32"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"sigs.k8s.io/knftables"

	"github.com/skiff-run/skiff/proxy/table"
)

// rendered is a service port in nftables' terms: what to add for it and what
// to remove when it goes.
type rendered struct {
	elements []*knftables.Element
	chains   []chain
	sets     []affinitySet
}

type chain struct {
	name  string
	rules []string
}

// affinitySet remembers which clients an endpoint has. Its name tells its
// timeout, because the kernel cannot change that of a set it has.
type affinitySet struct {
	name    string
	address string
	timeout time.Duration
}

func (r *rendered) element(e knftables.Element) { r.elements = append(r.elements, &e) }

func (f *family) render(port *table.ServicePort) *rendered {
	r := &rendered{}
	protocol := strings.ToLower(string(port.Protocol))
	number := strconv.Itoa(int(port.Port))
	at := func(address netip.Addr) []string { return []string{address.String(), protocol, number} }
	verdict := func(name string, key []string, verdict string) {
		r.element(knftables.Element{Map: name, Key: key, Value: []string{verdict}})
	}

	r.element(knftables.Element{Set: clusterIPs, Key: []string{port.ClusterIP.String()}})
	f.endpointChains(r, port)
	cluster := f.choiceChain(r, port, "service", port.Cluster)
	local := f.choiceChain(r, port, "local", port.Local)
	internal, external := cluster, cluster
	if port.InternalLocal {
		internal = local
	}
	if port.ExternalLocal {
		external = local
	}
	if internal != "" {
		verdict(serviceIPs, at(port.ClusterIP), "goto "+internal)
	} else {
		verdict(noEndpointServices, at(port.ClusterIP), refusal(port))
	}
	if !port.ExternallyAccessible() {
		return r
	}
	addresses := append(append([]netip.Addr{}, port.ExternalIPs...), port.LoadBalancerIPs...)
	nodePort := []string{protocol, strconv.Itoa(int(port.NodePort))}
	// With the policy Local, pods and the node itself are served also where
	// everybody else is dropped.
	if cluster != "" || local != "" {
		entry := f.externalChain(r, port, cluster, external)
		for _, address := range addresses {
			verdict(serviceIPs, at(address), "goto "+entry)
		}
		if port.NodePort != 0 {
			verdict(serviceNodePorts, nodePort, "goto "+entry)
		}
	}
	if external == "" {
		for _, address := range addresses {
			verdict(noEndpointServices, at(address), refusal(port))
		}
		if port.NodePort != 0 {
			verdict(noEndpointNodePorts, nodePort, refusal(port))
		}
	}
	if len(port.SourceRanges) > 0 {
		c := chain{name: chainName("firewall", port.Name, ""), rules: []string{fmt.Sprintf("%s saddr != %s drop", f.ip(), anyOf(port.SourceRanges))}}
		r.chains = append(r.chains, c)
		for _, address := range port.LoadBalancerIPs {
			verdict(firewallIPs, at(address), "goto "+c.name)
		}
	}
	return r
}

// refusal: a service without endpoints is refused at once; one that merely has
// none on this node is dropped, because a load balancer may still send here.
func refusal(port *table.ServicePort) string {
	if port.HasEndpoints {
		return "drop"
	}
	return "goto " + rejectChain
}

// endpointChains renders what several choices among the endpoints share: a
// pod that talks to itself, and what remembers the clients of each endpoint.
func (f *family) endpointChains(r *rendered, port *table.ServicePort) {
	for _, endpoint := range port.AllEndpoints() {
		if endpoint.Local {
			address := endpoint.Address.Addr().String()
			r.element(knftables.Element{Set: hairpinConnections, Key: []string{address, address}})
		}
		if port.Affinity == 0 {
			continue
		}
		set := f.affinity(port, endpoint)
		r.sets = append(r.sets, set)
		r.chains = append(r.chains, chain{name: chainName("endpoint", port.Name, endpoint.Address.String()), rules: []string{
			fmt.Sprintf("update @%s { %s saddr }", set.name, f.ip()),
			fmt.Sprintf("meta l4proto %s dnat to %s", strings.ToLower(string(port.Protocol)), endpoint.Address),
		}})
	}
}

func (f *family) affinity(port *table.ServicePort, endpoint table.Endpoint) affinitySet {
	return affinitySet{
		name:    chainName("affinity", port.Name, fmt.Sprintf("%s/%d", endpoint.Address, int64(port.Affinity/time.Second))),
		address: f.ip(), timeout: port.Affinity,
	}
}

// choiceChain renders the choice among endpoints and returns the chain's name,
// empty without endpoints.
func (f *family) choiceChain(r *rendered, port *table.ServicePort, kind string, endpoints []table.Endpoint) string {
	if len(endpoints) == 0 {
		return ""
	}
	c := chain{name: chainName(kind, port.Name, "")}
	protocol := "meta l4proto " + strings.ToLower(string(port.Protocol)) + " "
	if port.Affinity == 0 && len(endpoints) > fewEndpoints {
		c.rules = []string{fmt.Sprintf("%sdnat %s to numgen random mod %d map { %s }", protocol, f.ip(), len(endpoints),
			numbered(endpoints, func(e table.Endpoint) string {
				return e.Address.Addr().String() + " . " + strconv.Itoa(int(e.Address.Port()))
			}))}
		r.chains = append(r.chains, c)
		return c.name
	}
	verdict := func(e table.Endpoint) string { return protocol + "dnat to " + e.Address.String() }
	if port.Affinity != 0 {
		own := func(e table.Endpoint) string { return "goto " + chainName("endpoint", port.Name, e.Address.String()) }
		for _, endpoint := range endpoints {
			c.rules = append(c.rules, fmt.Sprintf("%s saddr @%s %s", f.ip(), f.affinity(port, endpoint).name, own(endpoint)))
		}
		if verdict = own; len(endpoints) > fewEndpoints {
			c.rules = append(c.rules, fmt.Sprintf("numgen random mod %d vmap { %s }", len(endpoints), numbered(endpoints, own)))
			r.chains = append(r.chains, c)
			return c.name
		}
	}
	// Each takes its share of what those before it leave.
	for i, endpoint := range endpoints {
		if left := len(endpoints) - i; left > 1 {
			c.rules = append(c.rules, "numgen random mod "+strconv.Itoa(left)+" 0 "+verdict(endpoint))
		} else {
			c.rules = append(c.rules, verdict(endpoint))
		}
	}
	r.chains = append(r.chains, c)
	return c.name
}

// fewEndpoints is up to how many endpoints are chosen from by a rule for each.
// Beyond, one rule has a map of its own, which costs a packet the same for any
// number. But to make a map takes the kernel a look at every one there is: with
// 10,000 services that alone took ten seconds.
const fewEndpoints = 16

// numbered are the elements of a map from a number to one of the endpoints.
func numbered(endpoints []table.Endpoint, value func(table.Endpoint) string) string {
	elements := make([]string, len(endpoints))
	for i, endpoint := range endpoints {
		elements[i] = fmt.Sprintf("%d : %s", i, value(endpoint))
	}
	// The blank before the comma keeps it from being part of a chain's name.
	return strings.Join(elements, " , ")
}

// externalChain renders where traffic to node ports, external and load
// balancer addresses goes, and whose source must become ours for the answer to
// find back. Cluster or external may be empty: no such endpoint.
func (f *family) externalChain(r *rendered, port *table.ServicePort, cluster, external string) string {
	c := chain{name: chainName("external", port.Name, "")}
	add := func(words ...string) { c.rules = append(c.rules, strings.Join(words, " ")) }
	if !port.ExternalLocal {
		// The endpoint may be on another node, which would answer past us.
		add("jump", markForMasquerade)
	} else {
		// Pods and the node are served as if they had gone to a load balancer and
		// back: by all endpoints. What the node sends to one of its own addresses
		// has that as its source, which an endpoint elsewhere could not answer.
		if pods := f.clusterCIDRs(); len(pods) > 0 && cluster != "" {
			add(f.ip(), "saddr", anyOf(pods), "goto", cluster)
		}
		add("fib saddr type local jump", markForMasquerade)
		if cluster != "" {
			add("fib saddr type local goto", cluster)
		}
	}
	if external != "" {
		add("goto", external)
	}
	r.chains = append(r.chains, c)
	return c.name
}

// renderNodePorts renders which of the node's addresses serve node ports.
func (f *family) renderNodePorts(ranges []netip.Prefix) *rendered {
	r := &rendered{}
	for _, prefix := range f.ofFamily(ranges) {
		r.element(knftables.Element{Set: nodePortIPs, Key: []string{prefix.String()}})
	}
	return r
}

// anyOf is an anonymous set.
func anyOf(prefixes []netip.Prefix) string {
	texts := make([]string, len(prefixes))
	for i, prefix := range prefixes {
		texts[i] = prefix.String()
	}
	return "{ " + strings.Join(texts, ", ") + " }"
}

// chainName is unique and readable: a hash of the whole, then as much of the
// name as nftables allows.
func chainName(kind, port, rest string) string {
	sum := sha256.Sum256([]byte(kind + "|" + port + "|" + rest))
	hash := base32.StdEncoding.EncodeToString(sum[:])[:8]
	readable := strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z', r >= 'A' && r <= 'Z', r >= '0' && r <= '9', r == '-', r == '.', r == '/':
			return r
		}
		return '/'
	}, port)
	name := kind + "-" + hash + "-" + readable
	if rest != "" {
		name += "_" + strings.NewReplacer(":", ".", "[", "", "]", "").Replace(rest)
	}
	return name[:min(len(name), 200)]
}
