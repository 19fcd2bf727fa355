package network

import (
	"context"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"sync"

	"sigs.k8s.io/knftables"
)

// firewall is our nftables table: masquerading for traffic that leaves the cluster, and host ports.
type firewall struct {
	table, bridge string

	mu     sync.Mutex // guards what follows, made at the first use: Cleanup must work without the nft program
	nft    knftables.Interface
	policy knftables.Interface
}

func newFirewall(table, bridge string) *firewall { return &firewall{table: table, bridge: bridge} }

func (f *firewall) connect() (knftables.Interface, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.nft == nil {
		nft, err := knftables.New(knftables.InetFamily, f.table)
		if err != nil {
			return nil, fmt.Errorf("nftables: %w; install the package nftables", err)
		}
		f.nft = nft
	}
	return f.nft, nil
}

// family is what differs between IPv4 and IPv6 in the rules.
type family struct {
	ip, addrType, suffix, loopback, multicast string
}

var (
	familyV4 = family{"ip", "ipv4_addr", "4", "127.0.0.0/8", "224.0.0.0/4"}
	familyV6 = family{"ip6", "ipv6_addr", "6", "::1/128", "ff00::/8"}
)

func familyOf(a netip.Addr) family {
	if a.Is4() {
		return familyV4
	}
	return familyV6
}

const (
	anyAddressPorts = "hostports"
	oneAddressPorts = "hostports-address"
	hairpin         = "hairpin"
)

// setup writes the table anew, in one transaction; host ports already there stay.
func (f *firewall) setup(ctx context.Context, gateways, cluster []netip.Prefix) error {
	nft, err := f.connect()
	if err != nil {
		return err
	}
	tx := nft.NewTransaction()
	renderTable(tx, f.bridge, gateways, cluster)
	if err := nft.Run(ctx, tx); err != nil {
		return fmt.Errorf("write nftables table %s: %w", f.table, err)
	}
	return nil
}

func renderTable(tx *knftables.Transaction, bridge string, gateways, cluster []netip.Prefix) {
	tx.Add(&knftables.Table{Comment: knftables.PtrTo("pod network of skiff-agent")})
	nat := knftables.PtrTo(knftables.NATType)
	chains := []*knftables.Chain{
		{Name: "postrouting", Type: nat, Hook: knftables.PtrTo(knftables.PostroutingHook), Priority: knftables.PtrTo(knftables.SNATPriority)},
		{Name: "prerouting", Type: nat, Hook: knftables.PtrTo(knftables.PreroutingHook), Priority: knftables.PtrTo(knftables.DNATPriority)},
		{Name: "output", Type: nat, Hook: knftables.PtrTo(knftables.OutputHook), Priority: knftables.PtrTo(knftables.DNATPriority)},
		{Name: "host-ports"},
	}
	for _, chain := range chains {
		tx.Add(chain)
		tx.Flush(chain)
	}
	rule := func(chain string, parts ...string) {
		tx.Add(&knftables.Rule{Chain: chain, Rule: strings.Join(parts, " ")})
	}
	for _, gateway := range gateways {
		v := familyOf(gateway.Addr())
		tx.Add(&knftables.Map{Name: anyAddressPorts + v.suffix, Type: "inet_proto . inet_service : " + v.addrType + " . inet_service"})
		tx.Add(&knftables.Map{Name: oneAddressPorts + v.suffix, Type: v.addrType + " . inet_proto . inet_service : " + v.addrType + " . inet_service"})
		tx.Add(&knftables.Set{Name: hairpin + v.suffix, Type: v.addrType + " . " + v.addrType})

		nfproto := "meta nfproto ipv" + v.suffix
		transport := "meta l4proto { tcp, udp, sctp }"
		rule("host-ports", nfproto, transport, "dnat", v.ip, "to", v.ip, "daddr . meta l4proto . th dport map", "@"+oneAddressPorts+v.suffix)
		rule("host-ports", nfproto, transport, "dnat", v.ip, "to meta l4proto . th dport map", "@"+anyAddressPorts+v.suffix)

		// A pod that reached itself by a host port, or a local client by loopback, would be answered past us.
		rule("postrouting", v.ip, "saddr .", v.ip, "daddr", "@"+hairpin+v.suffix, "masquerade")
		rule("postrouting", "oifname", strconv.Quote(bridge), v.ip, "saddr", v.loopback, "masquerade")
		inside := []string{gateway.Masked().String(), v.multicast}
		for _, c := range cluster {
			if c.Addr().Is4() == gateway.Addr().Is4() && !c.Overlaps(gateway) {
				inside = append(inside, c.Masked().String())
			} else if c.Addr().Is4() == gateway.Addr().Is4() {
				inside[0] = wider(c, gateway).Masked().String()
			}
		}
		rule("postrouting", v.ip, "saddr", gateway.Masked().String(), v.ip, "daddr != {", strings.Join(inside, ", "), "}", "masquerade")
	}
	rule("prerouting", "fib daddr type local", "jump", "host-ports")
	rule("output", "fib daddr type local", "jump", "host-ports")
}

func wider(a, b netip.Prefix) netip.Prefix {
	if a.Bits() < b.Bits() {
		return a
	}
	return b
}

// elements of a pod's host ports.
func elements(pod Pod) []*knftables.Element {
	var list []*knftables.Element
	for _, addr := range pod.Addresses {
		v := familyOf(addr)
		used := false
		for _, port := range pod.HostPorts {
			protocol, host := strings.ToLower(port.Protocol), strconv.Itoa(int(port.HostPort))
			to := []string{addr.String(), strconv.Itoa(int(port.PodPort))}
			if !port.HostIP.IsValid() || port.HostIP.IsUnspecified() {
				list = append(list, &knftables.Element{Map: anyAddressPorts + v.suffix, Key: []string{protocol, host}, Value: to})
				used = true
			} else if port.HostIP.Is4() == addr.Is4() {
				list = append(list, &knftables.Element{Map: oneAddressPorts + v.suffix, Key: []string{port.HostIP.String(), protocol, host}, Value: to})
				used = true
			}
		}
		if used {
			list = append(list, &knftables.Element{Set: hairpin + v.suffix, Key: []string{addr.String(), addr.String()}})
		}
	}
	return list
}

func (f *firewall) addPorts(ctx context.Context, pod Pod) error {
	nft, err := f.connect()
	if err != nil {
		return err
	}
	tx := nft.NewTransaction()
	for _, e := range elements(pod) {
		tx.Add(e)
	}
	if err := nft.Run(ctx, tx); err != nil {
		return fmt.Errorf("host ports: %w", err)
	}
	return nil
}

// removePorts takes each element away on its own: one that is missing must not keep the others.
func (f *firewall) removePorts(ctx context.Context, pod Pod) error {
	nft, err := f.connect()
	if err != nil {
		return err
	}
	for _, e := range elements(pod) {
		tx := nft.NewTransaction()
		tx.Delete(e)
		if err := nft.Run(ctx, tx); err != nil && !knftables.IsNotFound(err) {
			return fmt.Errorf("remove host ports: %w", err)
		}
	}
	return nil
}

// setPorts makes the table hold the host ports of these pods and no others.
func (f *firewall) setPorts(ctx context.Context, pods []Pod) error {
	nft, err := f.connect()
	if err != nil {
		return err
	}
	maps, err := nft.List(ctx, "maps")
	if err != nil {
		if knftables.IsNotFound(err) {
			return nil // no table yet: nothing to forget
		}
		return fmt.Errorf("list host ports: %w", err)
	}
	tx := nft.NewTransaction()
	count := 0
	for _, v := range []family{familyV4, familyV6} {
		for _, name := range maps {
			if name == anyAddressPorts+v.suffix || name == oneAddressPorts+v.suffix {
				tx.Flush(&knftables.Map{Name: name})
				count++
			}
			if name == anyAddressPorts+v.suffix {
				tx.Flush(&knftables.Set{Name: hairpin + v.suffix})
			}
		}
	}
	if count == 0 {
		return nil
	}
	for _, pod := range pods {
		for _, e := range elements(pod) {
			tx.Add(e)
		}
	}
	if err := nft.Run(ctx, tx); err != nil {
		return fmt.Errorf("rewrite host ports: %w", err)
	}
	return nil
}

func (f *firewall) remove(ctx context.Context) error {
	nft, err := f.connect()
	if err != nil {
		return nil // without the nft program no table of ours was ever made
	}
	tx := nft.NewTransaction()
	tx.Add(&knftables.Table{})
	tx.Delete(&knftables.Table{})
	if err := nft.Run(ctx, tx); err != nil {
		return fmt.Errorf("remove nftables table %s: %w", f.table, err)
	}
	return nil
}
