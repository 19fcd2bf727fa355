package dns

import (
	"net/netip"
	"slices"
	"strings"

	miekg "github.com/miekg/dns"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
)

// ttl of answers in seconds, and of the SOA's negative answers, as CoreDNS has
// it in a Kubernetes cluster.
const ttl = 30

// specification is what dns-version.<domain> answers.
const specification = "1.1.0"

// answer is the outcome of a look-up in the cluster's zone.
type answer struct {
	records []miekg.RR
	extra   []miekg.RR
	// exists tells a name without records of the type (NODATA) from no name (NXDOMAIN).
	exists bool
	// alias is the target of an ExternalName service, to be resolved further.
	alias string
}

// zone answers for the cluster's domain and the reverse names of its services.
type zone struct {
	domain string // with a dot at its end
	source Source
	server netip.Addr
}

// lookup answers a question whose name is in lower case and within the zone.
func (z *zone) lookup(name string, qtype uint16) answer {
	relative := strings.TrimSuffix(strings.TrimSuffix(name, z.domain), ".")
	if relative == "" {
		return z.apex(name, qtype)
	}
	parts := strings.Split(relative, ".")
	switch last := parts[len(parts)-1]; {
	case relative == "dns-version":
		return z.version(name, qtype)
	case relative == "ns.dns":
		return addresses(name, qtype, []netip.Addr{z.server})
	case last == "svc":
		return z.service(name, qtype, parts[:len(parts)-1])
	case last == "pod":
		return z.pod(name, qtype, parts[:len(parts)-1])
	}
	return answer{}
}

func header(name string, rrtype uint16) miekg.RR_Header {
	return miekg.RR_Header{Name: name, Rrtype: rrtype, Class: miekg.ClassINET, Ttl: ttl}
}

func (z *zone) soa() miekg.RR {
	return &miekg.SOA{
		Hdr: header(z.domain, miekg.TypeSOA), Ns: "ns.dns." + z.domain, Mbox: "hostmaster." + z.domain,
		Serial: 1, Refresh: 7200, Retry: 1800, Expire: 86400, Minttl: ttl,
	}
}

func (z *zone) apex(name string, qtype uint16) answer {
	switch qtype {
	case miekg.TypeSOA:
		return answer{exists: true, records: []miekg.RR{z.soa()}}
	case miekg.TypeNS:
		return answer{exists: true, records: []miekg.RR{&miekg.NS{Hdr: header(name, miekg.TypeNS), Ns: "ns.dns." + z.domain}}}
	}
	return answer{exists: true}
}

func (z *zone) version(name string, qtype uint16) answer {
	if qtype != miekg.TypeTXT {
		return answer{exists: true}
	}
	return answer{exists: true, records: []miekg.RR{&miekg.TXT{Hdr: header(name, miekg.TypeTXT), Txt: []string{specification}}}}
}

// service answers below svc: service.namespace, with an endpoint's name or a
// port and protocol before it.
func (z *zone) service(name string, qtype uint16, parts []string) answer {
	n := len(parts)
	if n < 2 {
		return answer{exists: n == 0 || z.source.Namespace(parts[0])}
	}
	service := z.source.Service(parts[n-1], parts[n-2])
	if service == nil {
		return answer{}
	}
	prefix := parts[:n-2]
	if service.Spec.Type == corev1.ServiceTypeExternalName {
		if len(prefix) > 0 {
			return answer{}
		}
		target := miekg.Fqdn(strings.ToLower(service.Spec.ExternalName))
		return answer{exists: true, alias: target, records: []miekg.RR{&miekg.CNAME{Hdr: header(name, miekg.TypeCNAME), Target: target}}}
	}
	base := strings.Join(parts[n-2:], ".") + ".svc." + z.domain
	switch {
	case len(prefix) == 0:
		return addresses(name, qtype, z.serviceAddresses(service))
	case len(prefix) == 2 && strings.HasPrefix(prefix[0], "_") && strings.HasPrefix(prefix[1], "_"):
		return z.serviceRecords(name, base, qtype, service, prefix[0][1:], prefix[1][1:])
	case len(prefix) == 1 && strings.HasPrefix(prefix[0], "_"):
		// No records, but ports lie below.
		return answer{exists: slices.ContainsFunc(service.Spec.Ports, func(p corev1.ServicePort) bool {
			return p.Name != "" && strings.EqualFold(string(p.Protocol), prefix[0][1:])
		})}
	case len(prefix) == 1 && headless(service):
		// With two families an endpoint is in a slice of each.
		var all []netip.Addr
		for _, e := range z.endpoints(service) {
			if e.name == prefix[0] {
				all = append(all, e.addresses...)
			}
		}
		return addresses(name, qtype, all)
	}
	return answer{}
}

func headless(service *corev1.Service) bool { return service.Spec.ClusterIP == corev1.ClusterIPNone }

func (z *zone) serviceAddresses(service *corev1.Service) []netip.Addr {
	if headless(service) {
		var all []netip.Addr
		for _, e := range z.endpoints(service) {
			all = append(all, e.addresses...)
		}
		return all
	}
	texts := service.Spec.ClusterIPs
	if len(texts) == 0 {
		texts = []string{service.Spec.ClusterIP}
	}
	return parse(texts)
}

// addresses makes A or AAAA records; the name exists even without any of the
// type asked for.
func addresses(name string, qtype uint16, all []netip.Addr) answer {
	found := answer{exists: len(all) > 0}
	told := make(map[netip.Addr]bool, len(all))
	for _, address := range all {
		if told[address] {
			continue
		}
		told[address] = true
		if record := addressRecord(name, address); record.Header().Rrtype == qtype || qtype == miekg.TypeANY {
			found.records = append(found.records, record)
		}
	}
	return found
}

func addressRecord(name string, address netip.Addr) miekg.RR {
	if address.Is4() {
		return &miekg.A{Hdr: header(name, miekg.TypeA), A: address.AsSlice()}
	}
	return &miekg.AAAA{Hdr: header(name, miekg.TypeAAAA), AAAA: address.AsSlice()}
}

// serviceRecords answers _port._protocol names with SRV records: one for a
// service with a cluster address, one for each endpoint of a headless one.
func (z *zone) serviceRecords(name, base string, qtype uint16, service *corev1.Service, port, protocol string) answer {
	var found answer
	type destination struct {
		target string
		number uint16
	}
	told := map[destination]bool{}
	add := func(target string, number uint16, at []netip.Addr) {
		found.exists = true
		if qtype != miekg.TypeSRV && qtype != miekg.TypeANY {
			return
		}
		for _, address := range at {
			found.extra = append(found.extra, addressRecord(target, address))
		}
		// With two families an endpoint is in a slice of each.
		if told[destination{target, number}] {
			return
		}
		told[destination{target, number}] = true
		found.records = append(found.records, &miekg.SRV{Hdr: header(name, miekg.TypeSRV), Weight: 100, Port: number, Target: target})
	}
	if headless(service) {
		for _, e := range z.endpoints(service) {
			for _, p := range e.ports {
				if p.name == port && p.protocol == protocol {
					add(e.name+"."+base, p.number, e.addresses)
				}
			}
		}
	} else {
		for _, p := range service.Spec.Ports {
			if p.Name == port && strings.EqualFold(string(p.Protocol), protocol) {
				add(base, uint16(p.Port), z.serviceAddresses(service))
			}
		}
	}
	// The weights of a set share one hundred, as the specification's examples do.
	for _, record := range found.records {
		record.(*miekg.SRV).Weight = uint16(100 / len(found.records))
	}
	return found
}

// pod answers a-b-c-d.namespace.pod with a.b.c.d, without asking whether such
// a pod runs, as kube-dns and CoreDNS do.
func (z *zone) pod(name string, qtype uint16, parts []string) answer {
	switch {
	case len(parts) == 0:
		return answer{exists: true}
	case len(parts) == 1:
		return answer{exists: z.source.Namespace(parts[0])}
	case len(parts) > 2:
		return answer{}
	}
	text := strings.ReplaceAll(parts[0], "-", ".")
	if strings.Count(parts[0], "-") != 3 {
		text = strings.ReplaceAll(parts[0], "-", ":")
	}
	address, err := netip.ParseAddr(text)
	if err != nil || !z.source.Namespace(parts[1]) {
		return answer{}
	}
	return addresses(name, qtype, []netip.Addr{address})
}

func parse(texts []string) []netip.Addr {
	var out []netip.Addr
	for _, text := range texts {
		if address, err := netip.ParseAddr(text); err == nil {
			out = append(out, address)
		}
	}
	return out
}

// endpoint is one pod of a headless service under its DNS name.
type endpoint struct {
	name      string
	addresses []netip.Addr
	ports     []port
}

type port struct {
	name, protocol string
	number         uint16
}

// endpoints lists what a headless service's name means: ready endpoints, or
// all when the service publishes unready ones.
func (z *zone) endpoints(service *corev1.Service) []endpoint {
	var found []endpoint
	for _, slice := range z.source.Slices(service.Namespace, service.Name) {
		found = append(found, z.endpointsIn(service, slice)...)
	}
	return found
}

func (z *zone) endpointsIn(service *corev1.Service, slice *discoveryv1.EndpointSlice) []endpoint {
	if slice.AddressType == discoveryv1.AddressTypeFQDN {
		return nil
	}
	ports := slicePorts(slice)
	found := make([]endpoint, 0, len(slice.Endpoints))
	for i := range slice.Endpoints {
		e := &slice.Endpoints[i]
		ready := e.Conditions.Ready == nil || *e.Conditions.Ready
		at := parse(e.Addresses)
		if !ready && !service.Spec.PublishNotReadyAddresses || len(at) == 0 {
			continue
		}
		found = append(found, endpoint{name: endpointName(e, at[0]), addresses: at, ports: ports})
	}
	return found
}

func slicePorts(slice *discoveryv1.EndpointSlice) []port {
	var out []port
	for _, p := range slice.Ports {
		if p.Port == nil {
			continue
		}
		one := port{number: uint16(*p.Port), protocol: "tcp"}
		if p.Name != nil {
			one.name = *p.Name
		}
		if p.Protocol != nil {
			one.protocol = strings.ToLower(string(*p.Protocol))
		}
		out = append(out, one)
	}
	return out
}

// endpointName is the pod's hostname, or its address with dashes.
func endpointName(e *discoveryv1.Endpoint, address netip.Addr) string {
	if e.Hostname != nil && *e.Hostname != "" {
		return strings.ToLower(*e.Hostname)
	}
	return strings.NewReplacer(".", "-", ":", "-").Replace(address.String())
}
