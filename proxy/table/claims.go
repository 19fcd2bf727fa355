package table

import (
	"fmt"
	"net/netip"

	corev1 "k8s.io/api/core/v1"
)

// claim is what only one service port can have. The address of a node port is
// the zero value of its family's.
type claim struct {
	address  netip.Addr
	ipv6     bool
	protocol corev1.Protocol
	port     uint16
}

func (c claim) String() string {
	if c.address.IsValid() {
		return fmt.Sprintf("%s/%s", netip.AddrPortFrom(c.address, c.port), c.protocol)
	}
	return fmt.Sprintf("%d/%s", c.port, c.protocol)
}

// claim adds the ports of the services, in their order, to the table. What two
// claim the first gets; and no external address takes what is a cluster address,
// however old its service is.
func (t *Table) claim(order []*built) {
	held := make(map[claim]*ServicePort, 2*cap(t.Ports))
	for _, one := range order {
		for _, p := range one.ports {
			c := claim{address: p.ClusterIP, ipv6: p.ClusterIP.Is6(), protocol: p.Protocol, port: p.Port}
			if t.take(held, c, p) {
				t.Ports = append(t.Ports, p)
			}
		}
	}
	for i, p := range t.Ports {
		t.Ports[i] = t.external(held, p)
	}
}

// external claims what a port has besides its cluster address, and returns a
// copy without what others have.
func (t *Table) external(held map[claim]*ServicePort, p *ServicePort) *ServicePort {
	if !p.ExternallyAccessible() {
		return p
	}
	kept := *p
	changed := false
	ipv6 := p.ClusterIP.Is6()
	if p.NodePort != 0 && !t.take(held, claim{ipv6: ipv6, protocol: p.Protocol, port: p.NodePort}, p) {
		kept.NodePort, changed = 0, true
	}
	keep := func(addresses []netip.Addr) []netip.Addr {
		var free []netip.Addr
		for _, address := range addresses {
			c := claim{address: address, ipv6: ipv6, protocol: p.Protocol, port: p.Port}
			// One address may be an external and a load balancer's of one service.
			if held[c] == p || t.take(held, c, p) {
				free = append(free, address)
			} else {
				changed = true
			}
		}
		return free
	}
	kept.ExternalIPs, kept.LoadBalancerIPs = keep(p.ExternalIPs), keep(p.LoadBalancerIPs)
	if changed {
		return &kept
	}
	return p
}

func (t *Table) take(held map[claim]*ServicePort, c claim, p *ServicePort) bool {
	if holder, taken := held[c]; taken {
		t.Conflicts = append(t.Conflicts, Conflict{Claim: c.String(), Port: p.Name, Holder: holder.Name})
		return false
	}
	held[c] = p
	return true
}
