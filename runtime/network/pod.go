package network

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"syscall"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/skiff-run/skiff/internal/dump"
)

// HostPort forwards a port of the machine to a pod.
type HostPort struct {
	// Protocol is tcp, udp or sctp.
	Protocol string
	// HostIP limits the forwarding to one address of the machine; all of them when it is not valid.
	HostIP netip.Addr
	// HostPort is the machine's port.
	HostPort uint16
	// PodPort is the pod's port.
	PodPort uint16
}

// Pod is what the network needs to know of a pod.
type Pod struct {
	// ID of the sandbox: hexadecimal, the first eleven digits name the pod's link.
	ID string
	// Addresses the pod has, one per range; filled by Attach.
	Addresses []netip.Addr
	// HostPorts of the pod.
	HostPorts []HostPort
}

// podLink is the name of a pod's link inside its namespace.
const podLink = "eth0"

// portPrefix marks our links on the bridge.
const portPrefix = "sk"

func portName(id string) string { return portPrefix + id[:min(len(id), 11)] }

// Attach connects the network namespace pinned at path and returns the pod's
// addresses, one per range. When it fails nothing is left behind.
func (n *Network) Attach(ctx context.Context, pod Pod, path string) ([]netip.Addr, error) {
	n.mu.RLock()
	defer n.mu.RUnlock()
	if !n.ready {
		return nil, ErrNotReady
	}
	addresses, err := n.attach(ctx, pod, path)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("network of pod sandbox %s: %w", pod.ID, err), n.detach(ctx, pod))
	}
	return addresses, nil
}

func (n *Network) attach(ctx context.Context, pod Pod, path string) ([]netip.Addr, error) {
	for _, gateway := range n.gateways {
		addr, err := n.leases.acquire(pod.ID, gateway)
		if err != nil {
			return nil, err
		}
		pod.Addresses = append(pod.Addresses, addr)
	}
	if err := n.nft.disown(ctx, pod.Addresses); err != nil {
		return nil, err
	}
	ns, err := netns.GetFromPath(path)
	if err != nil {
		return nil, fmt.Errorf("open namespace %s: %w", path, err)
	}
	defer ns.Close()
	if err := n.addPair(pod, ns); err != nil {
		return nil, err
	}
	inside, err := netlink.NewHandleAt(ns, netlinkRoute)
	if err != nil {
		return nil, fmt.Errorf("enter namespace %s: %w", path, err)
	}
	defer inside.Close()
	if err := n.configure(inside, pod); err != nil {
		return nil, err
	}
	if len(pod.HostPorts) > 0 {
		if err := n.nft.addPorts(ctx, pod); err != nil {
			return nil, err
		}
	}
	return pod.Addresses, nil
}

// addPair makes both ends, already up, named, addressed and on the bridge, by one request.
func (n *Network) addPair(pod Pod, ns netns.NsHandle) error {
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.MTU, attrs.MasterIndex, attrs.Flags = portName(pod.ID), n.mtu, n.bridge, net.FlagUp
	veth := &netlink.Veth{
		LinkAttrs: attrs, PeerName: podLink, PeerNamespace: netlink.NsFd(int(ns)),
		PeerMTU: uint32(n.mtu), PeerHardwareAddr: hardwareAddr(pod.Addresses[0]),
	}
	err := n.host.LinkAdd(veth)
	if errors.Is(err, syscall.EEXIST) {
		// Left by a process that was killed between here and its record.
		if err := n.host.LinkDel(veth); err != nil {
			return fmt.Errorf("remove old link %s: %w", attrs.Name, err)
		}
		err = n.host.LinkAdd(veth)
	}
	if err != nil {
		return fmt.Errorf("add link %s: %w", attrs.Name, err)
	}
	// A service may send a pod back to itself.
	if err := n.host.LinkSetHairpin(veth, true); err != nil {
		return fmt.Errorf("hairpin on link %s: %w", attrs.Name, err)
	}
	return nil
}

// configure brings up loopback and eth0 inside the pod and routes everything to the bridge.
func (n *Network) configure(inside *netlink.Handle, pod Pod) error {
	eth0, err := inside.LinkByName(podLink)
	if err != nil {
		return fmt.Errorf("find %s: %w", podLink, err)
	}
	for _, addr := range pod.Addresses {
		if err := inside.AddrAdd(eth0, address(netip.PrefixFrom(addr, addr.BitLen()))); err != nil {
			return fmt.Errorf("address %s: %w", addr, err)
		}
	}
	if err := inside.LinkSetUp(eth0); err != nil {
		return fmt.Errorf("bring up %s: %w", podLink, err)
	}
	for _, gateway := range n.gateways {
		gw := gateway.Addr()
		// The gateway is on this link although no prefix says so; then everything goes to it.
		for _, route := range []*netlink.Route{
			{LinkIndex: eth0.Attrs().Index, Dst: ipNet(netip.PrefixFrom(gw, gw.BitLen())), Scope: unix.RT_SCOPE_LINK},
			{LinkIndex: eth0.Attrs().Index, Gw: gw.AsSlice()},
		} {
			if err := inside.RouteAdd(route); err != nil {
				return fmt.Errorf("route by gateway %s: %w", gw, err)
			}
		}
	}
	return nil
}

// BringUpLoopback brings up the loopback link of the calling thread's namespace.
func BringUpLoopback() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	request, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	if err := unix.IoctlIfreq(fd, unix.SIOCGIFFLAGS, request); err != nil {
		return fmt.Errorf("flags of lo: %w", err)
	}
	request.SetUint16(request.Uint16() | unix.IFF_UP)
	if err := unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, request); err != nil {
		return fmt.Errorf("bring up lo: %w", err)
	}
	return nil
}

// Detach removes the pod's link, its host ports and its leases. It may be repeated.
func (n *Network) Detach(ctx context.Context, pod Pod) error {
	n.mu.RLock()
	defer n.mu.RUnlock()
	return n.detach(ctx, pod)
}

func (n *Network) detach(ctx context.Context, pod Pod) error {
	var errs []error
	if len(pod.HostPorts) > 0 && len(pod.Addresses) > 0 {
		errs = append(errs, n.nft.removePorts(ctx, pod))
	}
	link, err := n.host.LinkByName(portName(pod.ID))
	if err == nil {
		err = n.host.LinkDel(link)
	}
	// It goes by itself when its namespace does.
	if err != nil && !errors.Is(err, syscall.ENODEV) && !errors.As(err, &netlink.LinkNotFoundError{}) {
		errs = append(errs, fmt.Errorf("remove link %s: %w", portName(pod.ID), err))
	}
	// The address is free only when nothing answers under it any more.
	if errors.Join(errs...) == nil {
		errs = append(errs, n.leases.release(pod.ID))
	}
	return errors.Join(errs...)
}

// Reconcile makes the machine match the pods that live: links and addresses of
// others are reclaimed, host ports are written anew.
func (n *Network) Reconcile(ctx context.Context, alive []Pod) error {
	n.mu.RLock()
	defer n.mu.RUnlock()
	ids, names := map[string]bool{}, map[string]bool{}
	for _, pod := range alive {
		ids[pod.ID], names[portName(pod.ID)] = true, true
	}
	var errs []error
	if link, err := n.host.LinkByName(n.options.Bridge); err == nil {
		errs = append(errs, n.removePorts(link.Attrs().Index, names))
	}
	count, err := n.leases.reclaim(ids)
	if count > 0 {
		n.options.Logger.Info("reclaimed addresses of pods that are gone", "count", count)
	}
	return errors.Join(append(errs, err, n.nft.setPorts(ctx, alive))...)
}

func (n *Network) removePorts(bridge int, keep map[string]bool) error {
	links, err := dump.Whole(n.host.LinkList)
	if err != nil {
		return fmt.Errorf("list links: %w", err)
	}
	var errs []error
	for _, link := range links {
		a := link.Attrs()
		if a.MasterIndex == bridge && strings.HasPrefix(a.Name, portPrefix) && !keep[a.Name] {
			if err := n.host.LinkDel(link); err != nil {
				errs = append(errs, fmt.Errorf("remove link %s: %w", a.Name, err))
			}
		}
	}
	return errors.Join(errs...)
}

// Traffic is what a pod has received and sent.
type Traffic struct {
	RxBytes, RxPackets, RxErrors, RxDropped uint64
	TxBytes, TxPackets, TxErrors, TxDropped uint64
}

// PodTraffic reads the counters of a pod's link, as the pod sees them.
func (n *Network) PodTraffic(id string) (Traffic, error) {
	link, err := n.host.LinkByName(portName(id))
	if err != nil {
		return Traffic{}, fmt.Errorf("link of pod sandbox %s: %w", id, err)
	}
	s := link.Attrs().Statistics
	if s == nil {
		return Traffic{}, nil
	}
	// What our end sent, the pod received.
	return Traffic{
		RxBytes: s.TxBytes, RxPackets: s.TxPackets, RxErrors: s.TxErrors, RxDropped: s.TxDropped,
		TxBytes: s.RxBytes, TxPackets: s.RxPackets, TxErrors: s.RxErrors, TxDropped: s.RxDropped,
	}, nil
}
