package table

import (
	"slices"

	discoveryv1 "k8s.io/api/discovery/v1"
)

// near returns which endpoints topology hints leave for this node, or nil when
// they limit nothing. Hints count only when every ready endpoint has them and
// one is for us: the slices may be half updated (KEP-2433), and traffic to a
// far endpoint is better than none. Hints for nodes go before those for zones
// (KEP-3015).
func (all candidates) near(node Node) func(*discoveryv1.EndpointHints) bool {
	forNode := func(h *discoveryv1.EndpointHints) bool {
		return slices.ContainsFunc(h.ForNodes, func(n discoveryv1.ForNode) bool { return n.Name == node.Name })
	}
	forZone := func(h *discoveryv1.EndpointHints) bool {
		return node.Zone != "" && slices.ContainsFunc(h.ForZones, func(z discoveryv1.ForZone) bool { return z.Name == node.Zone })
	}
	everyNode, everyZone, someNode, someZone := true, true, false, false
	for _, c := range all {
		if !c.ready {
			continue
		}
		hints := c.hints
		if hints == nil {
			return nil
		}
		everyNode = everyNode && len(hints.ForNodes) > 0
		everyZone = everyZone && len(hints.ForZones) > 0
		someNode = someNode || forNode(hints)
		someZone = someZone || forZone(hints)
	}
	switch {
	case everyNode && someNode:
		return forNode
	case everyZone && someZone:
		return forZone
	}
	return nil
}
