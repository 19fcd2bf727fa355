package ipvs

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/skiff-run/skiff/proxy/table"
)

var families = []corev1.IPFamily{corev1.IPv4Protocol, corev1.IPv6Protocol}

func familyOf(address netip.Addr) corev1.IPFamily {
	if address.Is6() {
		return corev1.IPv6Protocol
	}
	return corev1.IPv4Protocol
}

// environment is what of this machine the rendering depends on.
type environment struct {
	// own are the machine's addresses, but for those on the holder.
	own map[netip.Addr]bool
	// nodePorts are those of them that serve node ports, in order.
	nodePorts []netip.Addr
}

func (e environment) equal(other environment) bool {
	return slices.Equal(e.nodePorts, other.nodePorts) && len(e.own) == len(other.own) &&
		!slices.ContainsFunc(keys(e.own), func(a netip.Addr) bool { return !other.own[a] })
}

func keys[K comparable, V any](m map[K]V) []K {
	out := make([]K, 0, len(m))
	for k := range m {
		out = append(out, k)
	}
	return out
}

// environmentOf finds the addresses that serve node ports. Loopback never does:
// the kernel would not route the answers; and what is valid on one link only
// cannot be told apart by a virtual service.
func environmentOf(own []netip.Addr, ranges []netip.Prefix) environment {
	e := environment{own: map[netip.Addr]bool{}}
	for _, address := range own {
		if e.own[address] {
			continue
		}
		e.own[address] = true
		if address.IsLoopback() || address.Is6() && address.IsLinkLocalUnicast() {
			continue
		}
		if slices.ContainsFunc(ranges, func(r netip.Prefix) bool { return r.Contains(address) }) {
			e.nodePorts = append(e.nodePorts, address)
		}
	}
	slices.SortFunc(e.nodePorts, netip.Addr.Compare)
	return e
}

// rendered is a service port in IPVS' terms.
type rendered struct {
	virtuals []*virtual
	held     []netip.Addr
	elements []element
	// toCluster are rules that lead pods and this machine from an address whose
	// policy is Local to a virtual service with all endpoints of the cluster.
	toCluster []string
}

// renderer of service ports.
type renderer struct {
	scheduler string
	environment
	// detours are the ports of the virtual services that detour makes.
	detours map[*table.ServicePort]uint16
}

func (r *renderer) settings(port *table.ServicePort) settings {
	s := settings{scheduler: r.scheduler, affinity: port.Affinity}
	switch r.scheduler {
	// A source whose destination has weight 0 is led to another instead of being refused.
	case "sh":
		s.flags = flagFallback
	case "mh":
		s.flags = flagFallback | flagPort
	}
	if port.Affinity > 0 {
		s.flags |= flagPersistent
	}
	return s
}

func (out *rendered) element(family corev1.IPFamily, set, value string) {
	out.elements = append(out.elements, element{setName(family, set), value})
}

// serve makes a virtual service, recorded as ours.
func (out *rendered) serve(k key, s settings, endpoints []table.Endpoint) {
	v := &virtual{key: k, settings: s}
	for _, endpoint := range endpoints {
		v.endpoints = append(v.endpoints, endpoint.Address)
	}
	out.virtuals = append(out.virtuals, v)
	out.element(familyOf(k.address), recordedServices, k.element())
}

// hold makes an address one of this machine, unless it is already.
func (r *renderer) hold(out *rendered, address netip.Addr) {
	if !r.own[address] && !slices.Contains(out.held, address) {
		out.held = append(out.held, address)
		out.element(familyOf(address), heldIPs, address.String())
	}
}

// render renders a port.
func (r *renderer) render(port *table.ServicePort) *rendered {
	out := &rendered{}
	family := port.Family()
	s := r.settings(port)
	cluster := key{port.Protocol, port.ClusterIP, port.Port}
	r.hold(out, port.ClusterIP)
	out.serve(cluster, s, port.Internal())
	out.element(family, clusterIPs, cluster.element())
	if len(port.Internal()) == 0 {
		out.element(family, withoutEndpoints(port, silentServices), cluster.element())
	}
	for _, endpoint := range port.AllEndpoints() {
		if endpoint.Local {
			k := key{port.Protocol, endpoint.Address.Addr(), endpoint.Address.Port()}
			out.element(family, loopBack, k.element()+","+k.address.String())
		}
	}
	if port.ExternallyAccessible() {
		r.renderExternal(out, port, s)
	}
	return out
}

// withoutEndpoints is the set of a service that leads nowhere: one without
// endpoints refuses at once; one whose policy leaves none on this machine is
// silent, because a load balancer may still send here.
func withoutEndpoints(port *table.ServicePort, silent string) string {
	if port.HasEndpoints {
		return silent
	}
	return refusedServices
}

// renderExternal renders node ports, external and load balancer addresses.
func (r *renderer) renderExternal(out *rendered, port *table.ServicePort, s settings) {
	family := port.Family()
	for _, address := range unique(port.ExternalIPs, port.LoadBalancerIPs) {
		k := key{port.Protocol, address, port.Port}
		r.hold(out, address)
		r.entry(out, port, s, k)
	}
	for _, of := range []struct {
		set       string
		addresses []netip.Addr
	}{{externalIPs, port.ExternalIPs}, {loadBalancers, port.LoadBalancerIPs}} {
		for _, address := range of.addresses {
			// With the policy Local the client's address is kept.
			if !port.ExternalLocal {
				out.element(family, of.set, key{port.Protocol, address, port.Port}.element())
			}
		}
	}
	if port.NodePort != 0 {
		for _, address := range r.nodePorts {
			if familyOf(address) == family {
				k := key{port.Protocol, address, port.NodePort}
				r.entry(out, port, s, k)
				if port.Protocol == corev1.ProtocolSCTP && !port.ExternalLocal {
					out.element(family, nodePortsSCTP, k.element())
				}
			}
		}
		if set := nodePortSets[port.Protocol]; set != "" && !port.ExternalLocal {
			out.element(family, set, strconv.Itoa(int(port.NodePort)))
		}
	}
	if len(port.SourceRanges) > 0 {
		for _, address := range port.LoadBalancerIPs {
			k := key{port.Protocol, address, port.Port}.element()
			out.element(family, firewalled, k)
			for _, prefix := range halves(port.SourceRanges) {
				out.element(family, sourceRanges, k+","+prefix)
			}
		}
	}
	r.detour(out, port, s)
}

// entry renders one address and port of external traffic.
func (r *renderer) entry(out *rendered, port *table.ServicePort, s settings, k key) {
	family := port.Family()
	out.serve(k, s, port.External())
	if len(port.External()) == 0 {
		silent := silentServices
		if port.ExternalLocal {
			silent = silentOutside
		}
		out.element(family, withoutEndpoints(port, silent), k.element())
	}
	if port.ExternalLocal && len(port.Cluster) > 0 {
		out.element(family, localServices, k.element())
		to := netip.AddrPortFrom(port.ClusterIP, r.clusterPort(port))
		out.toCluster = append(out.toCluster, fmt.Sprintf("-d %s -p %s --dport %d -j DNAT --to-destination %s",
			netip.PrefixFrom(k.address, k.address.BitLen()), strings.ToLower(string(k.protocol)), k.port, to))
	}
}

// clusterPort is the port of the cluster address that leads to all endpoints of
// the cluster.
func (r *renderer) clusterPort(port *table.ServicePort) uint16 {
	if port.InternalLocal {
		return r.detours[port]
	}
	return port.Port
}

// detour makes the virtual service for the case that the policy is Local for
// internal and for external traffic, in which no other has all endpoints. Its
// port is one that the service does not use; whoever asks for it directly gets
// no answer.
func (r *renderer) detour(out *rendered, port *table.ServicePort, s settings) {
	if !needsDetour(port) {
		return
	}
	k := key{port.Protocol, port.ClusterIP, r.detours[port]}
	out.serve(k, s, port.Cluster)
	out.element(port.Family(), silentServices, k.element())
}

func needsDetour(port *table.ServicePort) bool {
	return port.InternalLocal && port.ExternalLocal && port.ExternallyAccessible() && len(port.Cluster) > 0
}

// detourPorts chooses a port for each service port that needs a detour: the
// highest of its cluster address that the service does not use.
func detourPorts(ports []*table.ServicePort) map[*table.ServicePort]uint16 {
	var chosen map[*table.ServicePort]uint16
	var taken map[key]bool
	for _, port := range ports {
		if !needsDetour(port) {
			continue
		}
		if taken == nil {
			chosen, taken = map[*table.ServicePort]uint16{}, map[key]bool{}
			for _, p := range ports {
				taken[key{p.Protocol, p.ClusterIP, p.Port}] = true
			}
		}
		for number := uint16(65535); number > 0; number-- {
			if k := (key{port.Protocol, port.ClusterIP, number}); !taken[k] {
				taken[k] = true
				chosen[port] = number
				break
			}
		}
	}
	return chosen
}

func unique(lists ...[]netip.Addr) []netip.Addr {
	var out []netip.Addr
	for _, address := range slices.Concat(lists...) {
		if !slices.Contains(out, address) {
			out = append(out, address)
		}
	}
	return out
}

// halves are prefixes as ipset takes and prints them: everything is two halves,
// and a single address has no length.
func halves(prefixes []netip.Prefix) []string {
	var out []string
	for _, prefix := range prefixes {
		switch {
		case prefix.Bits() == 0 && prefix.Addr().Is4():
			out = append(out, "0.0.0.0/1", "128.0.0.0/1")
		case prefix.Bits() == 0:
			out = append(out, "::/1", "8000::/1")
		case prefix.IsSingleIP():
			out = append(out, prefix.Addr().String())
		default:
			out = append(out, prefix.String())
		}
	}
	return out
}
