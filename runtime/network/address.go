package network

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

const netlinkRoute = unix.NETLINK_ROUTE

// hardwareAddr is derived from the address, so that a pod that takes over an
// address needs no neighbour entry to expire.
func hardwareAddr(a netip.Addr) net.HardwareAddr {
	b := a.AsSlice()
	b = b[len(b)-4:]
	return net.HardwareAddr{0x0a, 0x58, b[0], b[1], b[2], b[3]}
}

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}

func prefixOf(n *net.IPNet) netip.Prefix {
	addr, _ := netip.AddrFromSlice(n.IP)
	bits, _ := n.Mask.Size()
	return netip.PrefixFrom(addr.Unmap(), bits)
}

// address makes an address to assign. Duplicate detection of IPv6 is left out: addresses are leased, and it would take a second.
func address(p netip.Prefix) *netlink.Addr {
	a := &netlink.Addr{IPNet: ipNet(p)}
	if p.Addr().Is6() {
		a.Flags = unix.IFA_F_NODAD
	}
	return a
}

// hostSettings turns on what a machine that routes for its pods needs.
func hostSettings(bridge string, gateways []netip.Prefix) error {
	required := map[string]string{}
	optional := map[string]string{}
	for _, g := range gateways {
		if g.Addr().Is4() {
			required["net/ipv4/ip_forward"] = "1"
			// Neighbours talk through us on purpose; a redirect would tell them to stop.
			optional["net/ipv4/conf/all/send_redirects"] = "0"
			optional["net/ipv4/conf/"+bridge+"/send_redirects"] = "0"
			// Lets 127.0.0.1:hostPort be forwarded to a pod.
			optional["net/ipv4/conf/"+bridge+"/route_localnet"] = "1"
			// Strict reverse path filtering drops answers that come by another link than the route says.
			optional["net/ipv4/conf/"+bridge+"/rp_filter"] = "2"
		} else {
			required["net/ipv6/conf/all/forwarding"] = "1"
			optional["net/ipv6/conf/"+bridge+"/accept_dad"] = "0"
		}
	}
	for name, value := range required {
		if err := setSysctl(name, value); err != nil {
			return fmt.Errorf("sysctl %s=%s: %w", name, value, err)
		}
	}
	for name, value := range optional {
		// Absent in some kernels and read-only in some containers; the network works for most traffic without.
		_ = setSysctl(name, value)
	}
	return nil
}

func setSysctl(name, value string) error {
	file := filepath.Join("/proc/sys", name)
	if have, err := os.ReadFile(file); err == nil && string(have) == value+"\n" {
		return nil
	}
	return os.WriteFile(file, []byte(value), 0)
}
