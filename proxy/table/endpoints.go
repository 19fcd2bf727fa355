package table

import (
	"net/netip"
	"slices"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
)

// candidate is an endpoint with what decides whether it is used.
type candidate struct {
	Endpoint
	ready, serving, terminating bool
	// hints are where the endpoint should be used from; nil for anywhere.
	hints *discoveryv1.EndpointHints
}

type candidates []candidate

// candidatesOf collects the endpoints of a service port over all its slices,
// in order of address and each once.
func candidatesOf(node Node, port *corev1.ServicePort, ipv6 bool, endpointSlices []*discoveryv1.EndpointSlice) candidates {
	family := discoveryv1.AddressTypeIPv4
	if ipv6 {
		family = discoveryv1.AddressTypeIPv6
	}
	var found candidates
	for _, slice := range endpointSlices {
		if slice.AddressType != family {
			continue
		}
		number, has := slicePort(slice, port)
		if !has {
			continue
		}
		for i := range slice.Endpoints {
			endpoint := &slice.Endpoints[i]
			if len(endpoint.Addresses) == 0 {
				continue
			}
			// All addresses of an endpoint are the same pod: the first is used.
			address, err := netip.ParseAddr(endpoint.Addresses[0])
			if err != nil || address.Is6() != ipv6 || address.Is4In6() {
				continue
			}
			found = append(found, candidate{
				Endpoint:    Endpoint{Address: netip.AddrPortFrom(address, number), Local: endpoint.NodeName != nil && *endpoint.NodeName == node.Name},
				ready:       endpoint.Conditions.Ready == nil || *endpoint.Conditions.Ready,
				serving:     endpoint.Conditions.Serving == nil || *endpoint.Conditions.Serving,
				terminating: endpoint.Conditions.Terminating != nil && *endpoint.Conditions.Terminating,
				hints:       endpoint.Hints,
			})
		}
	}
	slices.SortStableFunc(found, func(a, b candidate) int { return a.Address.Compare(b.Address) })
	return merge(found)
}

// merge joins entries of one address: while a pod moves between slices it may
// be in both, and the better state counts.
func merge(found candidates) candidates {
	merged := found[:0]
	for _, c := range found {
		if last := len(merged) - 1; last >= 0 && merged[last].Address == c.Address {
			merged[last].ready = merged[last].ready || c.ready
			merged[last].serving = merged[last].serving || c.serving
			merged[last].terminating = merged[last].terminating && c.terminating
			merged[last].Local = merged[last].Local || c.Local
			if merged[last].hints == nil {
				merged[last].hints = c.hints
			}
			continue
		}
		merged = append(merged, c)
	}
	return merged
}

// slicePort finds the number that a service's port has at the endpoints of the
// slice: a named target port may differ from slice to slice. A slice port
// without number stands for all and cannot be served.
func slicePort(slice *discoveryv1.EndpointSlice, port *corev1.ServicePort) (uint16, bool) {
	for _, p := range slice.Ports {
		name, protocol := "", corev1.ProtocolTCP
		if p.Name != nil {
			name = *p.Name
		}
		if p.Protocol != nil {
			protocol = *p.Protocol
		}
		if p.Port != nil && name == port.Name && (protocol == port.Protocol || port.Protocol == "") {
			return uint16(*p.Port), true
		}
	}
	return 0, false
}

// choose sets the endpoints of a port whose policies are set. Where no endpoint
// is ready, those that still serve while they terminate are used (KEP-1669).
func (all candidates) choose(node Node, p *ServicePort) {
	ready := func(c candidate) bool { return c.ready }
	lastHope := func(c candidate) bool { return c.serving && c.terminating }
	p.HasEndpoints = slices.ContainsFunc(all, ready) || slices.ContainsFunc(all, lastHope)
	// External traffic from pods and from the node needs Cluster also when its
	// policy is Local.
	if !p.InternalLocal || p.ExternallyAccessible() {
		p.Cluster = all.pick(ready)
		if near := all.near(node); near != nil {
			p.Cluster = all.pick(func(c candidate) bool { return c.ready && near(c.hints) })
		}
		if len(p.Cluster) == 0 {
			p.Cluster = all.pick(lastHope)
		}
	}
	if p.InternalLocal || p.ExternalLocal {
		p.Local = all.pick(func(c candidate) bool { return c.Local && c.ready })
		if len(p.Local) == 0 {
			p.Local = all.pick(func(c candidate) bool { return c.Local && lastHope(c) })
		}
	}
}

func (all candidates) pick(wanted func(candidate) bool) []Endpoint {
	var out []Endpoint
	for _, c := range all {
		if wanted(c) {
			out = append(out, c.Endpoint)
		}
	}
	return out
}
