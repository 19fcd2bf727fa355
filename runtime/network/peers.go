package network

import (
	"context"
	"errors"
	"fmt"
	"net/netip"

	"github.com/vishvananda/netlink"

	"github.com/skiff-run/skiff/internal/dump"
)

// Peer is another machine of the cluster.
type Peer struct {
	// Name of the node, for messages.
	Name string
	// Address of the machine through which its pods are reached.
	Address netip.Addr
	// PodCIDRs are the ranges of its pods.
	PodCIDRs []netip.Prefix
}

// routeProtocol marks our routes among those of the machine.
const routeProtocol netlink.RouteProtocol = 157

// SetPeers routes each peer's ranges directly to its machine and removes the
// routes of peers that are gone. Machines must share a segment. It may be repeated.
func (n *Network) SetPeers(_ context.Context, peers []Peer) error {
	var errs []error
	want := map[netip.Prefix]bool{}
	for _, peer := range peers {
		for _, cidr := range peer.PodCIDRs {
			if cidr.Addr().Is4() != peer.Address.Is4() {
				continue // reached by the peer's address of the other family
			}
			want[cidr.Masked()] = true
			route := &netlink.Route{Dst: ipNet(cidr.Masked()), Gw: peer.Address.AsSlice(), Protocol: routeProtocol}
			if err := n.host.RouteReplace(route); err != nil {
				errs = append(errs, fmt.Errorf("route to the pods %s of node %s by %s: %w", cidr, peer.Name, peer.Address, err))
			}
		}
	}
	for _, family := range []int{netlink.FAMILY_V4, netlink.FAMILY_V6} {
		routes, err := dump.Whole(func() ([]netlink.Route, error) {
			return n.host.RouteListFiltered(family, &netlink.Route{Protocol: routeProtocol}, netlink.RT_FILTER_PROTOCOL)
		})
		if err != nil {
			errs = append(errs, fmt.Errorf("list routes: %w", err))
			continue
		}
		for _, route := range routes {
			if route.Dst == nil || want[prefixOf(route.Dst)] {
				continue
			}
			if err := n.host.RouteDel(&route); err != nil {
				errs = append(errs, fmt.Errorf("remove route to %s: %w", route.Dst, err))
			}
		}
	}
	return errors.Join(errs...)
}
