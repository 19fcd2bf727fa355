// Package conntrack makes the kernel forget UDP flows whose endpoint is gone.
//
// TCP needs no help: a new connection makes a new entry. A UDP client that
// keeps its socket keeps the entry alive, and with it an address that nobody
// has any more; and one that began while a service had no endpoint keeps an
// entry that was never translated.
package conntrack

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"

	"github.com/skiff-run/skiff/internal/dump"
	"github.com/skiff-run/skiff/proxy/table"
)

// Flows are the UDP addresses that are served and where each may lead.
type Flows struct {
	addresses map[netip.AddrPort]map[netip.AddrPort]bool
	nodePorts map[uint16]map[netip.AddrPort]bool
}

// FlowsOf reads them from a table.
func FlowsOf(t *table.Table) Flows {
	f := Flows{addresses: map[netip.AddrPort]map[netip.AddrPort]bool{}, nodePorts: map[uint16]map[netip.AddrPort]bool{}}
	for _, port := range t.Ports {
		if port.Protocol != corev1.ProtocolUDP {
			continue
		}
		f.addresses[netip.AddrPortFrom(port.ClusterIP, port.Port)] = endpointSet(port.Internal())
		// Traffic from outside may lead to either kind, depending on who sends it.
		external := endpointSet(port.AllEndpoints())
		for _, addresses := range [][]netip.Addr{port.ExternalIPs, port.LoadBalancerIPs} {
			for _, address := range addresses {
				f.addresses[netip.AddrPortFrom(address, port.Port)] = external
			}
		}
		if port.NodePort != 0 {
			// Both families have the same number, and addresses that differ.
			all := f.nodePorts[port.NodePort]
			if all == nil {
				all = map[netip.AddrPort]bool{}
				f.nodePorts[port.NodePort] = all
			}
			maps.Copy(all, external)
		}
	}
	return f
}

// After returns the flows with what was served before and is not any more: it
// leads nowhere, and a client that goes on must notice.
func (f Flows) After(before Flows) Flows {
	both := Flows{addresses: maps.Clone(f.addresses), nodePorts: maps.Clone(f.nodePorts)}
	for address := range before.addresses {
		if _, served := both.addresses[address]; !served {
			both.addresses[address] = nil
		}
	}
	for port := range before.nodePorts {
		if _, served := both.nodePorts[port]; !served {
			both.nodePorts[port] = nil
		}
	}
	return both
}

func endpointSet(endpoints []table.Endpoint) map[netip.AddrPort]bool {
	set := map[netip.AddrPort]bool{}
	for _, endpoint := range endpoints {
		set[endpoint.Address] = true
	}
	return set
}

// Empty says that there is no UDP service, so that nothing needs a look.
func (f Flows) Empty() bool { return len(f.addresses) == 0 && len(f.nodePorts) == 0 }

// Stale says whether a flow from a client to the address, answered by the
// endpoint, must go: the address is served and the endpoint is not among its
// endpoints. Flows to node ports count only when they were translated, because
// another program may use the same port number elsewhere.
func (f Flows) Stale(address, endpoint netip.AddrPort) bool {
	if endpoints, served := f.addresses[address]; served {
		return !endpoints[endpoint]
	}
	endpoints, served := f.nodePorts[address.Port()]
	return served && address != endpoint && !endpoints[endpoint]
}

// Forget deletes every stale flow from the kernel's table and returns how many
// there were.
func (f Flows) Forget() (int, error) {
	if f.Empty() {
		return 0, nil
	}
	total := uint(0)
	var errs []error
	for _, family := range []netlink.InetFamily{unix.AF_INET, unix.AF_INET6} {
		n, err := dump.Whole(func() (uint, error) { return netlink.ConntrackDeleteFilters(netlink.ConntrackTable, family, f) })
		if err != nil {
			errs = append(errs, fmt.Errorf("delete stale UDP flows: %w", err))
		}
		total += n
	}
	return int(total), errors.Join(errs...)
}

// MatchConntrackFlow implements netlink.CustomConntrackFilter.
func (f Flows) MatchConntrackFlow(flow *netlink.ConntrackFlow) bool {
	if flow.Forward.Protocol != unix.IPPROTO_UDP {
		return false
	}
	to, known := netip.AddrFromSlice(flow.Forward.DstIP)
	by, answered := netip.AddrFromSlice(flow.Reverse.SrcIP)
	if !known || !answered {
		return false
	}
	return f.Stale(netip.AddrPortFrom(to.Unmap(), flow.Forward.DstPort), netip.AddrPortFrom(by.Unmap(), flow.Reverse.SrcPort))
}
