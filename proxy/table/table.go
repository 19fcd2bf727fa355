// Package table is the desired state of a node's service addresses: what
// Services and EndpointSlices mean for this node, in the kernel's terms
// (addresses, ports, endpoints) but in no kernel's language. Backends turn a
// Table into rules.
//
// Building one is a pure function. The package knows no API client and no rule.
package table

import (
	"net/netip"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// Table is the state of one node, in order of service name.
type Table struct {
	Ports []ServicePort
}

// ServicePort is one port of one service in one address family: the unit that
// backends program.
type ServicePort struct {
	// Name is namespace/service:port, with the family's mark for IPv6.
	Name     string
	Protocol corev1.Protocol
	// ClusterIP and Port are where pods reach it.
	ClusterIP netip.Addr
	Port      uint16
	// NodePort on every address of the node; 0 for none.
	NodePort uint16
	// ExternalIPs are external and load balancer addresses routed to this node.
	ExternalIPs []netip.Addr
	// SourceRanges limits who may use load balancer addresses; empty: everyone.
	SourceRanges []netip.Prefix

	// Affinity is how long a client keeps its endpoint; 0: no affinity.
	Affinity time.Duration

	// Internal endpoints serve the cluster address, External ones node ports and
	// external addresses. They differ by the traffic policies.
	Internal, External []Endpoint
	// ExternalLocal says that External are endpoints of this node only, so that
	// the client's address is kept.
	ExternalLocal bool
	// HasEndpoints tells a service without any endpoint, which is refused, from
	// one whose policy leaves none on this node, which is dropped.
	HasEndpoints bool
}

// Endpoint is where a connection ends.
type Endpoint struct {
	Address netip.AddrPort
	// Local endpoints run on this node.
	Local bool
}

// Family is the address family of the port.
func (p *ServicePort) Family() corev1.IPFamily {
	if p.ClusterIP.Is6() {
		return corev1.IPv6Protocol
	}
	return corev1.IPv4Protocol
}
