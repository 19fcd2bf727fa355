package dns

import (
	"net/netip"
	"slices"
	"strconv"
	"strings"

	miekg "github.com/miekg/dns"
	discoveryv1 "k8s.io/api/discovery/v1"
)

// reverse answers PTR questions for service addresses and for endpoints of
// headless services that have a host name. ours is false for addresses that
// are not the cluster's: they are asked upstream.
func (z *zone) reverse(name string, qtype uint16) (found answer, ours bool) {
	address, valid := reverseAddress(name)
	if !valid {
		return answer{}, false
	}
	if address == z.server {
		return pointer(name, qtype, "kube-dns.kube-system.svc."+z.domain), true
	}
	if services := z.source.ServicesAt(address); len(services) > 0 {
		return pointer(name, qtype, services[0].Name+"."+services[0].Namespace+".svc."+z.domain), true
	}
	told := map[string]bool{}
	for _, slice := range z.source.SlicesAt(address) {
		service := z.source.Service(slice.Namespace, slice.Labels[discoveryv1.LabelServiceName])
		if service == nil || !headless(service) {
			continue
		}
		for _, e := range z.endpointsIn(service, slice) {
			target := e.name + "." + service.Name + "." + service.Namespace + ".svc." + z.domain
			if !slices.Contains(e.addresses, address) || told[target] {
				continue
			}
			told[target], found.exists, ours = true, true, true
			found.records = append(found.records, pointer(name, qtype, target).records...)
		}
	}
	return found, ours
}

func pointer(name string, qtype uint16, target string) answer {
	if qtype != miekg.TypePTR && qtype != miekg.TypeANY {
		return answer{exists: true}
	}
	return answer{exists: true, records: []miekg.RR{&miekg.PTR{Hdr: header(name, miekg.TypePTR), Ptr: target}}}
}

// reverseAddress parses d.c.b.a.in-addr.arpa. and its IPv6 counterpart.
func reverseAddress(name string) (netip.Addr, bool) {
	if rest, v4 := strings.CutSuffix(name, ".in-addr.arpa."); v4 {
		parts := strings.Split(rest, ".")
		slices.Reverse(parts)
		address, err := netip.ParseAddr(strings.Join(parts, "."))
		return address, err == nil && address.Is4()
	}
	rest, v6 := strings.CutSuffix(name, ".ip6.arpa.")
	nibbles := strings.Split(rest, ".")
	if !v6 || len(nibbles) != 32 {
		return netip.Addr{}, false
	}
	slices.Reverse(nibbles)
	var bytes [16]byte
	for i, nibble := range nibbles {
		value, err := strconv.ParseUint(nibble, 16, 4)
		if err != nil {
			return netip.Addr{}, false
		}
		bytes[i/2] = bytes[i/2]<<4 | byte(value)
	}
	return netip.AddrFrom16(bytes), true
}
