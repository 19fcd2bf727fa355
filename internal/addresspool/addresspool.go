// Package addresspool reads the ranges from which services of type LoadBalancer
// get addresses.
package addresspool

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"

	"go4.org/netipx"
)

// The annotations of Services by which control and proxies understand one another.
const (
	// Mark is on services that have addresses of the pool; its value is "pool".
	Mark = "skiff.dev/load-balancer"
	// Requested asks for addresses: one of each family, with a comma between.
	Requested = "skiff.dev/load-balancer-ips"
	// Class is the loadBalancerClass of services for the pool; one without a class
	// is for it too.
	Class = "skiff.dev/pool"
	// LeaseNamespace has the Leases by which proxies agree on who announces an
	// address, and LeasePrefix begins their names.
	LeaseNamespace = "kube-public"
	LeasePrefix    = "load-balancer-"
)

// LeaseName is the name of an address's Lease.
func LeaseName(address netip.Addr) string {
	text := address.String()
	if address.Is6() {
		// Names neither have colons nor end with a dash.
		text = strings.ReplaceAll(address.StringExpanded(), ":", "-")
	}
	return LeasePrefix + text
}

// Pool is a list of ranges, in the order in which they are used up.
type Pool []netipx.IPRange

// Parse reads one range: first and last address with a dash between, or a
// prefix, whose network and broadcast addresses are left out for IPv4.
func Parse(text string) (netipx.IPRange, error) {
	if strings.Contains(text, "-") {
		r, err := netipx.ParseIPRange(text)
		if err != nil || !r.IsValid() {
			return r, errors.New("must be two addresses of one family, the first not behind the last, such as 192.0.2.10-192.0.2.99")
		}
		return r, nil
	}
	prefix, err := netip.ParsePrefix(text)
	if err != nil {
		return netipx.IPRange{}, errors.New("must be a range such as 192.0.2.10-192.0.2.99 or 198.51.100.0/28")
	}
	if prefix.Masked() != prefix {
		return netipx.IPRange{}, fmt.Errorf("has bits set beyond its prefix; write %s", prefix.Masked())
	}
	r := netipx.RangeOfPrefix(prefix)
	if prefix.Addr().Is4() && prefix.Bits() < 31 {
		r = netipx.IPRangeFrom(r.From().Next(), r.To().Prev())
	}
	return r, nil
}

// ParseAll reads what Parse accepts; the texts have been validated.
func ParseAll(texts []string) (Pool, error) {
	var p Pool
	for _, text := range texts {
		r, err := Parse(text)
		if err != nil {
			return nil, fmt.Errorf("address pool %q: %w", text, err)
		}
		p = append(p, r)
	}
	return p, nil
}

// Contains says whether the address is one of the pool.
func (p Pool) Contains(address netip.Addr) bool {
	for _, r := range p {
		if r.Contains(address) {
			return true
		}
	}
	return false
}

// Free returns the first address of the family that is not taken.
func (p Pool) Free(six bool, taken func(netip.Addr) bool) (netip.Addr, bool) {
	for _, r := range p {
		if r.From().Is6() != six {
			continue
		}
		for address := r.From(); r.Contains(address); address = address.Next() {
			if !taken(address) {
				return address, true
			}
		}
	}
	return netip.Addr{}, false
}

// Has says whether the pool has a range of the family.
func (p Pool) Has(six bool) bool {
	for _, r := range p {
		if r.From().Is6() == six {
			return true
		}
	}
	return false
}
