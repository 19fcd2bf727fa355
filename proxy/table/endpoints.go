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
}

type candidates []candidate

// endpoints collects the endpoints of a service port over all its slices, in
// order of address and each once.
func endpoints(node Node, port *corev1.ServicePort, ipv6 bool, endpointSlices []*discoveryv1.EndpointSlice) candidates {
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
			if err != nil {
				continue
			}
			conditions := endpoint.Conditions
			ready := conditions.Ready == nil || *conditions.Ready
			found = append(found, candidate{
				Endpoint:    Endpoint{Address: netip.AddrPortFrom(address, number), Local: endpoint.NodeName != nil && *endpoint.NodeName == node.Name},
				ready:       ready,
				serving:     conditions.Serving == nil && ready || conditions.Serving != nil && *conditions.Serving,
				terminating: conditions.Terminating != nil && *conditions.Terminating,
			})
		}
	}
	slices.SortFunc(found, func(a, b candidate) int { return a.Address.Compare(b.Address) })
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
			continue
		}
		merged = append(merged, c)
	}
	return merged
}

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

// usable returns the ready endpoints, or, when there are none, those that still
// serve while they terminate (KEP-1669); local limits both to this node.
func (all candidates) usable(local bool) []Endpoint {
	pick := func(wanted func(candidate) bool) []Endpoint {
		var out []Endpoint
		for _, c := range all {
			if wanted(c) && (c.Local || !local) {
				out = append(out, c.Endpoint)
			}
		}
		return out
	}
	if ready := pick(func(c candidate) bool { return c.ready }); len(ready) > 0 {
		return ready
	}
	return pick(func(c candidate) bool { return c.serving && c.terminating })
}
