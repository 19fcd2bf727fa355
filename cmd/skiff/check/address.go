package check

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// foreignRoute is an address nobody has (RFC 7600); the way to it is the default route.
const foreignRoute = "192.0.0.8:9"

// natAddress is what VirtualBox gives to the first card of every machine.
var natAddress = netip.MustParseAddr("10.0.2.15")

// pluggedLinks are names of links that containers, virtual machines and
// networks of pods make; a node's address is on none of them.
var pluggedLinks = []string{"lo", "veth", "docker", "br-", "virbr", "cni", "flannel", "cali", "cilium", "lxc", "lxd", "incus", "kube-", "nerdctl", "podman", "tunl", "vxlan", "dummy", "ifb", "weave", "tap", "vnet"}

// nodeLinks are the links that a node's address may be on.
func nodeLinks(links []link) []link {
	return slices.DeleteFunc(slices.Clone(links), func(l link) bool {
		made := slices.ContainsFunc(pluggedLinks, func(prefix string) bool { return strings.HasPrefix(l.name, prefix) })
		return made || !l.up || len(candidatesOn(l)) == 0
	})
}

func candidatesOn(l link) []netip.Addr {
	var found []netip.Addr
	for _, p := range l.addresses {
		if a := p.Addr(); a.Is4() && a.IsGlobalUnicast() {
			found = append(found, a)
		}
	}
	return found
}

func checkAddress(_ context.Context, e *examination) {
	links, err := e.links()
	if err != nil {
		e.fail("address", "the network links cannot be listed: "+err.Error())
		return
	}
	// Skiff's own: the bridge of pods, which may have any name, the link of cluster
	// DNS and, in mode ipvs, that of the service addresses.
	own := []string{e.agent.Bridge, "skiff-dns0", "kube-ipvs0"}
	links = slices.DeleteFunc(links, func(l link) bool { return slices.Contains(own, l.name) })
	e.choice(links)
	e.overlaps(links)
}

// choice says which address the node has or will get, and why.
func (e *examination) choice(links []link) {
	name := func(a netip.Addr) string {
		for _, l := range links {
			for _, p := range l.addresses {
				if p.Addr() == a {
					return l.name
				}
			}
		}
		return ""
	}
	chosen, why := netip.Addr{}, "chosen by --node-ip or agent.yaml"
	if e.nodeIP != "" {
		chosen, _ = netip.ParseAddr(e.nodeIP) // was checked
		if name(chosen) == "" {
			e.fail("address", fmt.Sprintf("%s is chosen by --node-ip or agent.yaml, but no link of this machine has it", chosen), "ip -br address", "grep -n nodeIP "+e.UserConfig("agent"))
			return
		}
	} else {
		to := foreignRoute
		why = "on the default route"
		if !e.installed && len(e.servers) > 0 {
			to, why = e.servers[0], "on the route to "+e.servers[0]
		}
		if source, err := e.source(to); err == nil && !source.IsLoopback() && !source.IsUnspecified() {
			chosen = source
		}
	}
	var others []string
	pick := ""
	for _, l := range nodeLinks(links) {
		for _, a := range candidatesOn(l) {
			if !chosen.IsValid() {
				chosen, why = a, "the only one there is, without a route to elsewhere"
				continue
			}
			if a != chosen {
				others = append(others, fmt.Sprintf("%s (%s)", a, l.name))
				if pick == "" && a != natAddress {
					pick = a.String()
				}
			}
		}
	}
	if !chosen.IsValid() {
		e.fail("address", "this machine has no IPv4 address besides loopback", "ip -br address")
		return
	}
	found := fmt.Sprintf("%s (%s), %s", chosen, name(chosen), why)
	choose := e.command() + " --node-ip ADDRESS"
	if pick != "" {
		choose = e.command() + " --node-ip " + pick
	}
	switch {
	case chosen == natAddress:
		e.fail("address", found+": every VirtualBox machine has this address on its NAT card, so no other machine reaches this one by it", choose)
	case e.nodeIP == "" && !e.installed && len(others) > 0:
		e.warn("address", found+"; there are others: "+strings.Join(others, ", ")+". If the machines of the cluster reach each other by another one, choose it", choose)
	case len(others) > 0:
		e.ok("address", "%s; others: %s", found, strings.Join(others, ", "))
	default:
		e.ok("address", "%s", found)
	}
}

// overlaps finds networks of the machine that are also pods' or services': what
// is on them cannot be reached, or pods cannot.
func (e *examination) overlaps(links []link) {
	ranges := map[string]string{"podCIDR": e.control.PodCIDR, "serviceCIDR": e.control.ServiceCIDR}
	clean := true
	for _, name := range []string{"podCIDR", "serviceCIDR"} {
		prefix, err := netip.ParsePrefix(ranges[name])
		if err != nil {
			continue // said with the configuration
		}
		for _, l := range links {
			for _, p := range l.addresses {
				if !p.Overlaps(prefix) {
					continue
				}
				clean = false
				flag := map[string]string{"podCIDR": "--pod-cidr 10.32.0.0/16", "serviceCIDR": "--service-cidr 10.112.0.0/16 --cluster-dns 10.112.0.10"}[name]
				remedy := "skiff init " + flag + "   # ranges nobody has"
				if e.installed {
					remedy = "ip address show dev " + l.name + "   # and take it away: the ranges of a cluster cannot change"
				}
				e.fail("ranges", fmt.Sprintf("%s %s overlaps %s on %s", name, prefix, p.Masked(), l.name), remedy)
			}
		}
	}
	if clean {
		e.ok("ranges", "pods %s and services %s overlap no network here", e.control.PodCIDR, e.control.ServiceCIDR)
	}
}
