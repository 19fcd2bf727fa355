package ipvs

import (
	"errors"
	"fmt"
	"math"
	"net"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"

	"github.com/skiff-run/skiff/internal/dump"
)

// HolderName is the device that holds the addresses of services. It is a dummy
// device, or where the kernel has none a bridge without ports.
const HolderName = "kube-ipvs0"

// holder is the device by the network namespace of the process or thread that
// opened it.
type holder struct {
	handle *netlink.Handle
	link   netlink.Link
}

func openHolder() (*holder, error) {
	handle, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("talk to the kernel about addresses: %w", err)
	}
	return &holder{handle: handle}, nil
}

func (h *holder) close() { h.handle.Close() }

// find looks the device up; it is nil if there is none.
func (h *holder) find() (netlink.Link, error) {
	link, err := h.handle.LinkByName(HolderName)
	var missing netlink.LinkNotFoundError
	if errors.As(err, &missing) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("find device %s: %w", HolderName, err)
	}
	return link, nil
}

// ensure makes the device. Kinds are tried in their order.
func (h *holder) ensure(kinds ...string) error {
	link, err := h.find()
	if err != nil {
		return err
	}
	if link == nil {
		if err := h.make(kinds); err != nil {
			return err
		}
		if link, err = h.find(); err != nil || link == nil {
			return errors.Join(err, fmt.Errorf("device %s went at once", HolderName))
		}
	}
	// No address of its own: it is on no network.
	if err := h.handle.LinkSetIP6AddrGenMode(link, nlAddrGenModeNone); err != nil && !errors.Is(err, unix.EOPNOTSUPP) && !errors.Is(err, unix.EAFNOSUPPORT) {
		return fmt.Errorf("prepare device %s: %w", HolderName, err)
	}
	if err := h.handle.LinkSetUp(link); err != nil {
		return fmt.Errorf("switch device %s on: %w", HolderName, err)
	}
	h.link = link
	return nil
}

// nlAddrGenModeNone is IN6_ADDR_GEN_MODE_NONE.
const nlAddrGenModeNone = 1

func (h *holder) make(kinds []string) error {
	var errs []error
	for _, kind := range kinds {
		attributes := netlink.NewLinkAttrs()
		attributes.Name = HolderName
		err := h.handle.LinkAdd(&netlink.GenericLink{LinkAttrs: attributes, LinkType: kind})
		if err == nil || errors.Is(err, unix.EEXIST) {
			return nil
		}
		errs = append(errs, fmt.Errorf("make %s device %s: %w", kind, HolderName, err))
	}
	return errors.Join(errs...)
}

// addresses returns those on the device and those of the rest of the machine.
func (h *holder) addresses() (held, own []netip.Addr, err error) {
	link, err := h.find()
	if err != nil {
		return nil, nil, err
	}
	all, err := dump.Whole(func() ([]netlink.Addr, error) { return h.handle.AddrList(nil, netlink.FAMILY_ALL) })
	if err != nil {
		return nil, nil, fmt.Errorf("list the machine's addresses: %w", err)
	}
	for _, a := range all {
		address, valid := netip.AddrFromSlice(a.IP)
		if !valid {
			continue
		}
		address = address.Unmap()
		if link != nil && a.LinkIndex == link.Attrs().Index {
			held = append(held, address)
		} else {
			own = append(own, address)
		}
	}
	return held, own, nil
}

// add makes an address one of the machine.
func (h *holder) add(address netip.Addr) error {
	if err := h.handle.AddrReplace(h.link, holderAddress(address)); err != nil {
		return fmt.Errorf("hold address %s on %s: %w", address, HolderName, err)
	}
	return nil
}

// remove ends that.
func (h *holder) remove(address netip.Addr) error {
	if err := h.handle.AddrDel(h.link, holderAddress(address)); err != nil && !errors.Is(err, unix.EADDRNOTAVAIL) {
		return fmt.Errorf("remove address %s from %s: %w", address, HolderName, err)
	}
	return nil
}

// holderAddress is an address that the kernel takes packets for, but never
// chooses as the source of what it sends elsewhere: IPv4 has a scope for that,
// with IPv6 it is deprecated.
func holderAddress(address netip.Addr) *netlink.Addr {
	a := &netlink.Addr{IPNet: &net.IPNet{IP: address.AsSlice(), Mask: net.CIDRMask(address.BitLen(), address.BitLen())}}
	if address.Is6() {
		a.Flags = unix.IFA_F_NODAD // nobody else has it, and waiting takes seconds
		a.ValidLft = math.MaxUint32
	} else {
		a.Scope = int(netlink.SCOPE_HOST)
	}
	return a
}

// setSource makes the machine use another of its addresses when it connects to
// one on the device: that one is about to go, and connections from it would break.
func (h *holder) setSource(address, source netip.Addr) error {
	route := h.localRoute(address)
	route.Src = source.AsSlice()
	if err := h.handle.RouteReplace(route); err != nil {
		return fmt.Errorf("route to %s from %s: %w", address, source, err)
	}
	if !address.Is6() {
		return nil
	}
	// The kernel's own route of IPv6 is better than any that can be made.
	all, err := h.handle.RouteListFiltered(netlink.FAMILY_V6, h.localRoute(address), netlink.RT_FILTER_TABLE|netlink.RT_FILTER_DST)
	if err != nil {
		return fmt.Errorf("find the routes to %s: %w", address, err)
	}
	for _, each := range all {
		if each.Src == nil {
			if err := h.handle.RouteDel(&each); err != nil && !errors.Is(err, unix.ESRCH) {
				return fmt.Errorf("remove the kernel's route to %s: %w", address, err)
			}
		}
	}
	return nil
}

// unsetSource removes the route that setSource made, after its address.
func (h *holder) unsetSource(address netip.Addr) error {
	if err := h.handle.RouteDel(h.localRoute(address)); err != nil && !errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("remove the route to %s: %w", address, err)
	}
	return nil
}

func (h *holder) localRoute(address netip.Addr) *netlink.Route {
	return &netlink.Route{
		LinkIndex: h.link.Attrs().Index, Table: unix.RT_TABLE_LOCAL, Type: unix.RTN_LOCAL, Scope: netlink.SCOPE_HOST, Protocol: unix.RTPROT_KERNEL,
		Dst: &net.IPNet{IP: address.AsSlice(), Mask: net.CIDRMask(address.BitLen(), address.BitLen())},
	}
}

// source is the address of the machine's own that it uses towards others; not
// valid if it has none.
func (h *holder) source(family corev1.IPFamily, own []netip.Addr) netip.Addr {
	// Reserved for documentation: nobody is asked, only the routes are.
	towards := map[corev1.IPFamily]string{corev1.IPv4Protocol: "198.51.100.1", corev1.IPv6Protocol: "2001:db8::1"}[family]
	if routes, err := h.handle.RouteGet(net.ParseIP(towards)); err == nil && len(routes) > 0 {
		if address, valid := netip.AddrFromSlice(routes[0].Src); valid && slices.Contains(own, address.Unmap()) {
			return address.Unmap()
		}
	}
	for _, address := range own {
		if familyOf(address) == family && !address.IsLoopback() && !address.IsLinkLocalUnicast() {
			return address
		}
	}
	return netip.Addr{}
}

// removeHolder removes the device with its addresses.
func (h *holder) removeHolder() error {
	link, err := h.find()
	if err != nil || link == nil {
		return err
	}
	if err := h.handle.LinkDel(link); err != nil {
		return fmt.Errorf("remove device %s: %w", HolderName, err)
	}
	return nil
}
