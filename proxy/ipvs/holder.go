package ipvs

import (
	"errors"
	"fmt"
	"math"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

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
