package dns

import (
	"errors"
	"fmt"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/skiff-run/skiff/internal/dump"
)

// LinkName is the link that holds the DNS address: a bridge without ports,
// because every kernel has bridges and not every one has dummy devices.
const LinkName = "skiff-dns0"

// ensureLink makes the link hold exactly the address. It is idempotent.
func ensureLink(address netip.Addr) error {
	link, err := netlink.LinkByName(LinkName)
	var missing netlink.LinkNotFoundError
	if errors.As(err, &missing) {
		attributes := netlink.NewLinkAttrs()
		attributes.Name = LinkName
		if err := netlink.LinkAdd(&netlink.Bridge{LinkAttrs: attributes}); err != nil && !errors.Is(err, unix.EEXIST) {
			return fmt.Errorf("make link %s for cluster DNS: %w", LinkName, err)
		}
		link, err = netlink.LinkByName(LinkName)
	}
	if err != nil {
		return fmt.Errorf("find link %s for cluster DNS: %w", LinkName, err)
	}
	wanted := &netlink.Addr{IPNet: &net.IPNet{IP: address.AsSlice(), Mask: net.CIDRMask(address.BitLen(), address.BitLen())}}
	present, err := dump.Whole(func() ([]netlink.Addr, error) { return netlink.AddrList(link, netlink.FAMILY_ALL) })
	if err != nil {
		return fmt.Errorf("list addresses of %s: %w", LinkName, err)
	}
	for _, other := range present {
		if !other.IP.IsLinkLocalUnicast() && !other.IP.Equal(wanted.IP) {
			if err := netlink.AddrDel(link, &other); err != nil {
				return fmt.Errorf("remove address %s from %s: %w", other.IP, LinkName, err)
			}
		}
	}
	if err := netlink.AddrReplace(link, wanted); err != nil {
		return fmt.Errorf("give address %s to %s: %w", address, LinkName, err)
	}
	if err := netlink.LinkSetUp(link); err != nil {
		return fmt.Errorf("bring up %s: %w", LinkName, err)
	}
	return nil
}

// Cleanup removes the link; that it is not there is fine.
func Cleanup() error {
	link, err := netlink.LinkByName(LinkName)
	var missing netlink.LinkNotFoundError
	if errors.As(err, &missing) {
		return nil
	}
	if err == nil {
		err = netlink.LinkDel(link)
	}
	if err != nil {
		return fmt.Errorf("remove link %s: %w", LinkName, err)
	}
	return nil
}
