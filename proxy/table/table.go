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
	"k8s.io/apimachinery/pkg/types"
)

// Table is the state of one node. It and everything in it is read-only.
type Table struct {
	// Ports in order of their names. A port whose pointer a Builder returned
	// before has not changed since.
	Ports []*ServicePort
	// NodePortRanges are the addresses that serve node ports, of those the node
	// has: all of a family is the prefix of length 0, and none is none.
	NodePortRanges []netip.Prefix
	// HealthChecks of the services that have a healthCheckNodePort, in order of
	// the services' names.
	HealthChecks []HealthCheck
	// Conflicts are addresses and ports that two services claim; only the first
	// is served there.
	Conflicts []Conflict
}

// ServicePort is one port of one service in one address family: the unit that
// backends program.
type ServicePort struct {
	// Name is namespace/service:port, with the family's mark for IPv6.
	Name     string
	Service  types.NamespacedName
	Protocol corev1.Protocol
	// ClusterIP and Port are where pods reach it.
	ClusterIP netip.Addr
	Port      uint16
	// NodePort on the node's addresses in Table.NodePortRanges; 0 for none.
	NodePort uint16
	// ExternalIPs are routed to this node by somebody else.
	ExternalIPs []netip.Addr
	// LoadBalancerIPs are addresses of a load balancer that delivers packets
	// unchanged, so that they arrive here under its address.
	LoadBalancerIPs []netip.Addr
	// SourceRanges limits who may use LoadBalancerIPs; empty: everyone. They do
	// not overlap.
	SourceRanges []netip.Prefix

	// Affinity is how long a client keeps its endpoint; 0: no affinity.
	Affinity time.Duration

	// Cluster are the endpoints of traffic whose policy is Cluster, already
	// limited by topology; Local those of traffic whose policy is Local. Both are
	// in order of address. One that the service's policies have no use for is empty.
	Cluster, Local []Endpoint
	// InternalLocal and ExternalLocal say that the policy for traffic to the
	// cluster address, and to all others, is Local.
	InternalLocal, ExternalLocal bool
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

// Conflict is an address and port that a service claims and another has.
type Conflict struct {
	// Claim is what cannot be served, as address:port/protocol or port/protocol
	// for a node port.
	Claim string
	// Port is the name of the service port that does not get it, Holder of the
	// one that has it.
	Port, Holder string
}

// Family is the address family of the port.
func (p *ServicePort) Family() corev1.IPFamily {
	if p.ClusterIP.Is6() {
		return corev1.IPv6Protocol
	}
	return corev1.IPv4Protocol
}

// Internal are the endpoints of traffic to the cluster address.
func (p *ServicePort) Internal() []Endpoint {
	if p.InternalLocal {
		return p.Local
	}
	return p.Cluster
}

// External are the endpoints of traffic to all other addresses. What pods and
// the node itself send there follows no policy: it uses Cluster.
func (p *ServicePort) External() []Endpoint {
	if p.ExternalLocal {
		return p.Local
	}
	return p.Cluster
}

// ExternallyAccessible says whether there is an address besides the cluster's.
func (p *ServicePort) ExternallyAccessible() bool {
	return p.NodePort != 0 || len(p.ExternalIPs) > 0 || len(p.LoadBalancerIPs) > 0
}

// AllEndpoints are those that any traffic may lead to, each once, in order of
// address.
func (p *ServicePort) AllEndpoints() []Endpoint {
	all := make([]Endpoint, 0, len(p.Cluster)+len(p.Local))
	i, j := 0, 0
	for i < len(p.Cluster) || j < len(p.Local) {
		switch {
		case j == len(p.Local) || i < len(p.Cluster) && p.Cluster[i].Address.Compare(p.Local[j].Address) < 0:
			all = append(all, p.Cluster[i])
			i++
		case i == len(p.Cluster) || p.Cluster[i].Address != p.Local[j].Address:
			all = append(all, p.Local[j])
			j++
		default:
			all = append(all, p.Local[j])
			i++
			j++
		}
	}
	return all
}
