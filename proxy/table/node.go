package table

import (
	"fmt"
	"net/netip"
	"slices"

	corev1 "k8s.io/api/core/v1"
)

// Primary is the word for the node's own addresses among nodePortAddresses.
const Primary = "primary"

// Node is what the table must know of the machine it is built for.
type Node struct {
	Name string
	// Zone is the value of the label topology.kubernetes.io/zone; empty if unknown.
	Zone string
	// Addresses are the node's primary addresses, at most one of each family.
	Addresses []netip.Addr
	// NodePorts says which addresses serve node ports.
	NodePorts NodePortAddresses
	// Excluded addresses are served by somebody else on the node: cluster DNS.
	Excluded []netip.Addr
}

// NodePortAddresses are the node's primary addresses or ranges of addresses.
type NodePortAddresses struct {
	Primary bool
	Ranges  []netip.Prefix
}

// ParseNodePortAddresses reads a list of prefixes, or of the word primary
// alone. An empty list is every address.
func ParseNodePortAddresses(texts []string) (NodePortAddresses, error) {
	var n NodePortAddresses
	for _, text := range texts {
		if text == Primary {
			if len(texts) > 1 {
				return n, fmt.Errorf("%q must stand alone", Primary)
			}
			n.Primary = true
			continue
		}
		prefix, err := netip.ParsePrefix(text)
		if err != nil {
			return n, fmt.Errorf("%q is neither %q nor a range such as 192.0.2.0/24", text, Primary)
		}
		n.Ranges = append(n.Ranges, prefix.Masked())
	}
	return n, nil
}

// nodePortRanges are the ranges without overlaps. A family that is not
// mentioned serves no node ports, as in kube-proxy, unless nothing is mentioned.
func (n Node) nodePortRanges() []netip.Prefix {
	if n.NodePorts.Primary {
		var ranges []netip.Prefix
		for _, address := range n.Addresses {
			ranges = append(ranges, netip.PrefixFrom(address, address.BitLen()))
		}
		return disjoint(ranges)
	}
	if len(n.NodePorts.Ranges) == 0 {
		return []netip.Prefix{netip.PrefixFrom(netip.IPv4Unspecified(), 0), netip.PrefixFrom(netip.IPv6Unspecified(), 0)}
	}
	return disjoint(n.NodePorts.Ranges)
}

// WithObject returns the node with what its API object says.
func (n Node) WithObject(object *corev1.Node) Node {
	n.Zone = object.Labels[corev1.LabelTopologyZone]
	n.Addresses = nil
	has := map[bool]bool{}
	for _, kind := range []corev1.NodeAddressType{corev1.NodeInternalIP, corev1.NodeExternalIP} {
		for _, a := range object.Status.Addresses {
			address, err := netip.ParseAddr(a.Address)
			if a.Type != kind || err != nil || has[address.Is6()] {
				continue
			}
			has[address.Is6()] = true
			n.Addresses = append(n.Addresses, address)
		}
	}
	return n
}

func (n Node) equal(other Node) bool {
	return n.Name == other.Name && n.Zone == other.Zone && slices.Equal(n.Addresses, other.Addresses) &&
		n.NodePorts.Primary == other.NodePorts.Primary && slices.Equal(n.NodePorts.Ranges, other.NodePorts.Ranges) &&
		slices.Equal(n.Excluded, other.Excluded)
}

// disjoint sorts prefixes and drops those that lie within others: kernels do
// not take overlaps.
func disjoint(prefixes []netip.Prefix) []netip.Prefix {
	sorted := slices.Clone(prefixes)
	slices.SortFunc(sorted, func(a, b netip.Prefix) int {
		if c := a.Addr().Compare(b.Addr()); c != 0 {
			return c
		}
		return a.Bits() - b.Bits()
	})
	out := sorted[:0]
	for _, prefix := range sorted {
		if len(out) == 0 || !out[len(out)-1].Overlaps(prefix) {
			out = append(out, prefix)
		}
	}
	return out
}
