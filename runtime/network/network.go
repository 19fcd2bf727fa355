// Package network connects the pods of one machine.
//
// Each pod gets a veth pair: one end is eth0 in the pod's network namespace, the
// other hangs on a bridge. Addresses come from the node's pod ranges. A pod's
// address is a host route (/32 or /128) with the bridge's address as its gateway,
// so that all of its traffic, also to its neighbour, is routed by the machine:
// service addresses and policies then work without br_netfilter. Traffic to the
// world is masqueraded and host ports are forwarded by an nftables table of our
// own; the ranges of other machines are reached by routes.
//
// In flow: a pod's identity and namespace, the ranges, the peers. Out flow: links,
// addresses, routes, one table and one folder of leases. It must not know
// containers, services, or where the ranges come from.
package network

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"slices"
	"sync"

	"github.com/vishvananda/netlink"

	"github.com/skiff-run/skiff/internal/dump"
)

// Options configures the pod network of one machine.
type Options struct {
	// Bridge is the name of the bridge, "skiff0" when empty.
	Bridge string
	// MTU of bridge and pods' links; that of the default route's link when zero.
	MTU int
	// ClusterCIDRs are the ranges of all pods: traffic to them is not masqueraded.
	ClusterCIDRs []netip.Prefix
	// StateDir holds the address leases.
	StateDir string
	// Table is the name of the nftables table, "skiff-pods" when empty.
	Table string
	// Logger receives the decisions.
	Logger *slog.Logger
}

func (o *Options) complete() error {
	if o.Bridge == "" {
		o.Bridge = "skiff0"
	}
	if len(o.Bridge) > 15 {
		return fmt.Errorf("bridge %q: a link's name has at most 15 characters", o.Bridge)
	}
	if o.Table == "" {
		o.Table = "skiff-pods"
	}
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
	if o.StateDir == "" {
		return errors.New("pod network: state folder is not set")
	}
	return nil
}

// ErrNotReady says that the machine has no pod range yet.
var ErrNotReady = errors.New("pod network is not ready: this node has no pod CIDR yet")

// Network is the pod network of one machine. Its methods may be called from many goroutines.
type Network struct {
	options Options
	host    *netlink.Handle // bound to the namespace New was called in
	leases  *leases
	nft     *firewall

	mu       sync.RWMutex // guards what follows; held for reading while a pod is attached
	ready    bool
	bridge   int // link index
	mtu      int
	gateways []netip.Prefix // one per range: the bridge's address and the range's length
}

// New reads the leases of an earlier process. It changes nothing on the machine.
func New(o Options) (*Network, error) {
	if err := o.complete(); err != nil {
		return nil, err
	}
	host, err := netlink.NewHandle(netlinkRoute)
	if err != nil {
		return nil, fmt.Errorf("open netlink: %w", err)
	}
	leases, err := openLeases(o.StateDir)
	if err != nil {
		host.Close()
		return nil, err
	}
	return &Network{options: o, host: host, leases: leases, nft: newFirewall(o.Table, o.Bridge)}, nil
}

// Close releases the connection to the kernel. Everything stays as it is.
func (n *Network) Close() { n.host.Close() }

// Ready says whether pods can be attached.
func (n *Network) Ready() bool {
	n.mu.RLock()
	defer n.mu.RUnlock()
	return n.ready
}

// SetPodCIDRs makes the bridge, the table and the settings of the machine for
// these ranges. It may be repeated; attached pods keep their addresses.
func (n *Network) SetPodCIDRs(ctx context.Context, cidrs []netip.Prefix) error {
	if len(cidrs) == 0 {
		return errors.New("pod network: no pod CIDR given")
	}
	var gateways []netip.Prefix
	for _, cidr := range cidrs {
		if cidr.Addr().BitLen()-cidr.Bits() < 2 {
			return fmt.Errorf("pod CIDR %s: too small, at least 4 addresses are needed", cidr)
		}
		cidr = cidr.Masked()
		gateways = append(gateways, netip.PrefixFrom(cidr.Addr().Next(), cidr.Bits()))
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.ready && slices.Equal(n.gateways, gateways) {
		return nil
	}
	mtu := n.options.MTU
	if mtu == 0 {
		mtu = n.defaultMTU()
	}
	bridge, err := n.ensureBridge(gateways, mtu)
	if err != nil {
		return err
	}
	if err := hostSettings(n.options.Bridge, gateways); err != nil {
		return err
	}
	if err := n.nft.setup(ctx, gateways, n.options.ClusterCIDRs); err != nil {
		return err
	}
	n.bridge, n.mtu, n.gateways, n.ready = bridge, mtu, gateways, true
	n.options.Logger.Info("pod network is ready", "bridge", n.options.Bridge, "podCIDRs", cidrs, "mtu", mtu)
	return nil
}

// ensureBridge makes the bridge or takes the one that is there, and gives it the gateways' addresses.
func (n *Network) ensureBridge(gateways []netip.Prefix, mtu int) (int, error) {
	name := n.options.Bridge
	link, err := n.host.LinkByName(name)
	if errors.As(err, &netlink.LinkNotFoundError{}) {
		attrs := netlink.NewLinkAttrs()
		attrs.Name, attrs.MTU = name, mtu
		// A fixed address: otherwise the bridge takes the lowest of its ports' and changes it as pods come and go.
		attrs.HardwareAddr = hardwareAddr(gateways[0].Addr())
		attrs.Flags = net.FlagUp
		if err = n.host.LinkAdd(&netlink.Bridge{LinkAttrs: attrs}); err == nil || errors.Is(err, os.ErrExist) {
			link, err = n.host.LinkByName(name)
		}
	}
	if err != nil {
		return 0, fmt.Errorf("bridge %s: %w", name, err)
	}
	if link.Type() != "bridge" {
		return 0, fmt.Errorf("link %s is a %s and no bridge: remove it or configure another bridge name", name, link.Type())
	}
	have, err := dump.Whole(func() ([]netlink.Addr, error) { return n.host.AddrList(link, netlink.FAMILY_ALL) })
	if err != nil {
		return 0, fmt.Errorf("addresses of bridge %s: %w", name, err)
	}
	var present []netip.Prefix
	for _, a := range have {
		prefix := prefixOf(a.IPNet)
		if prefix.Addr().IsLinkLocalUnicast() {
			continue
		}
		if slices.Contains(gateways, prefix) {
			present = append(present, prefix)
			continue
		}
		if err := n.host.AddrDel(link, &a); err != nil {
			return 0, fmt.Errorf("remove old address %s of bridge %s: %w", prefix, name, err)
		}
	}
	for _, gateway := range gateways {
		if slices.Contains(present, gateway) {
			continue
		}
		if err := n.host.AddrAdd(link, address(gateway)); err != nil {
			return 0, fmt.Errorf("address %s of bridge %s: %w", gateway, name, err)
		}
	}
	if link.Attrs().MTU != mtu {
		if err := n.host.LinkSetMTU(link, mtu); err != nil {
			return 0, fmt.Errorf("mtu %d of bridge %s: %w", mtu, name, err)
		}
	}
	if err := n.host.LinkSetUp(link); err != nil {
		return 0, fmt.Errorf("bridge %s: %w", name, err)
	}
	return link.Attrs().Index, nil
}

// defaultMTU is that of the link over which the machine reaches the world.
func (n *Network) defaultMTU() int {
	for _, family := range []int{netlink.FAMILY_V4, netlink.FAMILY_V6} {
		routes, err := dump.Whole(func() ([]netlink.Route, error) { return n.host.RouteList(nil, family) })
		if err != nil {
			continue
		}
		for _, r := range routes {
			if r.Dst != nil && !r.Dst.IP.IsUnspecified() {
				continue
			}
			if link, err := n.host.LinkByIndex(r.LinkIndex); err == nil && link.Attrs().MTU > 0 {
				return link.Attrs().MTU
			}
		}
	}
	return 1500
}

// Cleanup removes links, leases and the table of the network that o describes. It may be repeated.
func Cleanup(ctx context.Context, o Options) error {
	if err := o.complete(); err != nil {
		return err
	}
	host, err := netlink.NewHandle(netlinkRoute)
	if err != nil {
		return fmt.Errorf("open netlink: %w", err)
	}
	n := &Network{options: o, host: host, nft: newFirewall(o.Table, o.Bridge)}
	defer n.Close()
	errs := []error{n.nft.remove(ctx), n.SetPeers(ctx, nil)}
	if link, err := host.LinkByName(o.Bridge); err == nil && link.Type() == "bridge" {
		errs = append(errs, n.removePorts(link.Attrs().Index, nil), host.LinkDel(link))
	}
	return errors.Join(append(errs, os.RemoveAll(o.StateDir))...)
}
