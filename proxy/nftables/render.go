package nftables

import (
	"crypto/sha256"
	"encoding/base32"
	"fmt"
	"slices"
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

// affinitySet remembers which clients an endpoint has.
type affinitySet struct {
	name    string
	address string
	timeout time.Duration
}

func (f *family) render(port *table.ServicePort) *rendered {
	r := &rendered{}
	protocol := strings.ToLower(string(port.Protocol))
	number := strconv.Itoa(int(port.Port))

	r.element(knftables.Element{Set: clusterIPs, Key: []string{port.ClusterIP.String()}})
	internal := f.serviceChain(r, port, "service", port.Internal)
	external := internal
	if len(port.External) != len(port.Internal) || !slices.Equal(port.External, port.Internal) {
		external = f.serviceChain(r, port, "local", port.External)
	}
	if internal != "" {
		r.element(knftables.Element{Map: serviceIPs, Key: []string{port.ClusterIP.String(), protocol, number}, Value: []string{"goto " + internal}})
	} else {
		r.element(knftables.Element{Map: noEndpointServices, Key: []string{port.ClusterIP.String(), protocol, number}, Value: []string{refusal(port)}})
	}
	addresses := port.ExternalIPs
	if len(addresses) == 0 && port.NodePort == 0 {
		return r
	}
	if external == "" {
		for _, address := range addresses {
			r.element(knftables.Element{Map: noEndpointServices, Key: []string{address.String(), protocol, number}, Value: []string{refusal(port)}})
		}
		if port.NodePort != 0 {
			r.element(knftables.Element{Map: noEndpointNodePorts, Key: []string{protocol, strconv.Itoa(int(port.NodePort))}, Value: []string{refusal(port)}})
		}
		return r
	}
	entry := f.externalChain(r, port, external)
	for _, address := range addresses {
		r.element(knftables.Element{Map: serviceIPs, Key: []string{address.String(), protocol, number}, Value: []string{"goto " + entry}})
	}
	if port.NodePort != 0 {
		r.element(knftables.Element{Map: serviceNodePorts, Key: []string{protocol, strconv.Itoa(int(port.NodePort))}, Value: []string{"goto " + entry}})
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

func (r *rendered) element(e knftables.Element) { r.elements = append(r.elements, &e) }

// serviceChain renders the choice among endpoints and returns the chain's
// name, empty without endpoints.
func (f *family) serviceChain(r *rendered, port *table.ServicePort, kind string, endpoints []table.Endpoint) string {
	if len(endpoints) == 0 {
		return ""
	}
	c := chain{name: chainName(kind, port.Name, "")}
	for _, endpoint := range endpoints {
		address := endpoint.Address.Addr().String()
		r.element(knftables.Element{Set: hairpinConnections, Key: []string{address, address}})
	}
	protocol := strings.ToLower(string(port.Protocol))
	if port.Affinity == 0 {
		c.rules = []string{fmt.Sprintf("meta l4proto %s dnat %s to %s", protocol, f.ip(), choice(endpoints, func(e table.Endpoint) string {
			return e.Address.Addr().String() + " . " + strconv.Itoa(int(e.Address.Port()))
		}))}
		r.chains = append(r.chains, c)
		return c.name
	}
	var jumps []string
	for _, endpoint := range endpoints {
		own := chain{name: chainName("endpoint-"+kind, port.Name, endpoint.Address.String())}
		set := affinitySet{name: chainName("affinity-"+kind, port.Name, endpoint.Address.String()), address: f.ip(), timeout: port.Affinity}
		own.rules = []string{
			fmt.Sprintf("update @%s { %s saddr }", set.name, f.ip()),
			fmt.Sprintf("meta l4proto %s dnat to %s", protocol, endpoint.Address),
		}
		r.sets = append(r.sets, set)
		r.chains = append(r.chains, own)
		c.rules = append(c.rules, fmt.Sprintf("%s saddr @%s goto %s", f.ip(), set.name, own.name))
		jumps = append(jumps, own.name)
	}
	index := make([]string, len(jumps))
	for i, name := range jumps {
		index[i] = fmt.Sprintf("%d : goto %s", i, name)
	}
	c.rules = append(c.rules, fmt.Sprintf("numgen random mod %d vmap { %s }", len(jumps), strings.Join(index, " , ")))
	r.chains = append(r.chains, c)
	return c.name
}

// choice picks one of the endpoints at random.
func choice(endpoints []table.Endpoint, value func(table.Endpoint) string) string {
	index := make([]string, len(endpoints))
	for i, endpoint := range endpoints {
		index[i] = fmt.Sprintf("%d : %s", i, value(endpoint))
	}
	return fmt.Sprintf("numgen random mod %d map { %s }", len(endpoints), strings.Join(index, ", "))
}

// externalChain renders what comes from outside the cluster: source ranges,
// and masquerading unless the policy keeps the client's address.
func (f *family) externalChain(r *rendered, port *table.ServicePort, service string) string {
	c := chain{name: chainName("external", port.Name, "")}
	if len(port.SourceRanges) > 0 {
		ranges := make([]string, len(port.SourceRanges))
		for i, prefix := range port.SourceRanges {
			ranges[i] = prefix.String()
		}
		// NAT chains cannot drop; without DNAT the packet finds nobody and the
		// check before delivery refuses it.
		c.rules = append(c.rules, fmt.Sprintf("%s saddr != { %s } return", f.ip(), strings.Join(ranges, ", ")))
	}
	if !port.ExternalLocal {
		c.rules = append(c.rules, "jump "+markForMasquerade)
	}
	c.rules = append(c.rules, "goto "+service)
	r.chains = append(r.chains, c)
	return c.name
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
