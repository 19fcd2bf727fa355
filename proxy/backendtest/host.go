package backendtest

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// host is a network namespace.
type host struct {
	t      *testing.T
	handle netns.NsHandle
}

// newHost makes a namespace with loopback up; it goes with its last handle.
func newHost(t *testing.T) *host {
	t.Helper()
	h := &host{t: t}
	done := make(chan error, 1)
	go func() {
		// Never unlocked: the runtime throws the thread away with its namespace.
		runtime.LockOSThread()
		var err error
		if h.handle, err = netns.New(); err == nil {
			var lo netlink.Link
			if lo, err = netlink.LinkByName("lo"); err == nil {
				err = netlink.LinkSetUp(lo)
			}
		}
		done <- err
	}()
	if err := <-done; err != nil {
		t.Fatalf("make network namespace: %v", err)
	}
	t.Cleanup(func() { h.handle.Close() })
	return h
}

// in runs f in the host, on a thread of its own that ends with it.
func (h *host) in(f func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		err := netns.Set(h.handle)
		if err == nil {
			err = f()
		}
		done <- err
	}()
	return <-done
}

func (h *host) must(f func() error) {
	h.t.Helper()
	if err := h.in(f); err != nil {
		h.t.Fatal(err)
	}
}

// plug connects a host to the router with a cable; its default routes lead over it.
func (h *host) plug(router *host, name string, gateways, own []netip.Prefix) {
	h.t.Helper()
	router.must(func() error {
		attributes := netlink.NewLinkAttrs()
		attributes.Name = name
		return netlink.LinkAdd(&netlink.Veth{LinkAttrs: attributes, PeerName: "eth0", PeerNamespace: netlink.NsFd(int(h.handle))})
	})
	router.must(func() error { return up(name, gateways) })
	h.must(func() error { return up("eth0", own) })
	router.must(func() error { return routes(name, own, netip.Addr{}) })
	h.must(func() error {
		for _, gateway := range gateways {
			one := netip.PrefixFrom(gateway.Addr(), gateway.Addr().BitLen())
			every := netip.PrefixFrom(netip.IPv4Unspecified(), 0)
			if one.Addr().Is6() {
				every = netip.PrefixFrom(netip.IPv6Unspecified(), 0)
			}
			if err := errors.Join(routes("eth0", []netip.Prefix{one}, netip.Addr{}), routes("eth0", []netip.Prefix{every}, gateway.Addr())); err != nil {
				return err
			}
		}
		return nil
	})
}

// up gives a link addresses and switches it on.
func up(name string, addresses []netip.Prefix) error {
	link, err := netlink.LinkByName(name)
	if err != nil {
		return fmt.Errorf("find link %s: %w", name, err)
	}
	if err := netlink.LinkSetUp(link); err != nil {
		return fmt.Errorf("switch link %s on: %w", name, err)
	}
	for _, a := range addresses {
		address := &netlink.Addr{IPNet: ipNet(a)}
		if a.Addr().Is6() {
			address.Flags = unix.IFA_F_NODAD // nobody else has it, and waiting takes seconds
		}
		if err := netlink.AddrAdd(link, address); err != nil && !errors.Is(err, os.ErrExist) {
			return fmt.Errorf("add address %s: %w", a, err)
		}
	}
	return nil
}

// routes lead to the addresses over a link, or over a gateway on it.
func routes(name string, to []netip.Prefix, gateway netip.Addr) error {
	link, err := netlink.LinkByName(name)
	if err != nil {
		return fmt.Errorf("find link %s: %w", name, err)
	}
	for _, prefix := range to {
		if !gateway.IsValid() && !prefix.IsSingleIP() {
			continue // the address of the link brought the route
		}
		route := &netlink.Route{LinkIndex: link.Attrs().Index, Dst: ipNet(prefix), Scope: netlink.SCOPE_LINK}
		if gateway.IsValid() {
			route.Gw, route.Scope = net.IP(gateway.AsSlice()), netlink.SCOPE_UNIVERSE
		}
		if err := netlink.RouteReplace(route); err != nil {
			return fmt.Errorf("route to %s over %s: %w", prefix, name, err)
		}
	}
	return nil
}

func ipNet(prefix netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: net.IP(prefix.Addr().AsSlice()), Mask: net.CIDRMask(prefix.Bits(), prefix.Addr().BitLen())}
}

// serve answers on a TCP and UDP port of both families with the host's name and
// the client's address. A TCP connection gets one line for each that it sends.
func (h *host) serve(name string, port int) {
	h.t.Helper()
	var listener net.Listener
	var packets net.PacketConn
	h.must(func() (err error) {
		if listener, err = net.Listen("tcp", fmt.Sprintf(":%d", port)); err != nil {
			return err
		}
		packets, err = net.ListenPacket("udp", fmt.Sprintf(":%d", port))
		return err
	})
	ended := make(chan struct{}, 2)
	go func() {
		defer func() { ended <- struct{}{} }()
		for {
			connection, err := listener.Accept()
			if err != nil {
				return
			}
			go func() { // until the client ends, or the test's namespaces do
				defer connection.Close()
				for lines := bufio.NewScanner(connection); lines.Scan(); {
					fmt.Fprintf(connection, "%s %s\n", name, sourceOf(connection.RemoteAddr()))
				}
			}()
		}
	}()
	go func() {
		defer func() { ended <- struct{}{} }()
		buffer := make([]byte, 64)
		for {
			_, from, err := packets.ReadFrom(buffer)
			if err != nil {
				return
			}
			_, _ = packets.WriteTo([]byte(name+" "+sourceOf(from)+"\n"), from)
		}
	}()
	h.t.Cleanup(func() { listener.Close(); packets.Close(); <-ended; <-ended })
}

func sourceOf(address net.Addr) string {
	parsed, err := netip.ParseAddrPort(address.String())
	if err != nil {
		return address.String()
	}
	return parsed.Addr().Unmap().String()
}

// connect opens a connection from an address of the host; any if it is not valid.
func (h *host) connect(network string, from netip.Addr, to netip.AddrPort, limit time.Duration) (net.Conn, error) {
	var connection net.Conn
	err := h.in(func() (err error) {
		if network == "sctp" {
			connection, err = connectSCTP(from, to, limit)
			return err
		}
		dialer := net.Dialer{}
		if from.IsValid() {
			if network == "udp" {
				dialer.LocalAddr = net.UDPAddrFromAddrPort(netip.AddrPortFrom(from, 0))
			} else {
				dialer.LocalAddr = net.TCPAddrFromAddrPort(netip.AddrPortFrom(from, 0))
			}
		}
		ctx, cancel := context.WithTimeout(h.t.Context(), limit)
		defer cancel()
		connection, err = dialer.DialContext(ctx, network, to.String())
		return err
	})
	return connection, err
}

// ask sends a line over a connection and returns the answer.
func ask(connection net.Conn, limit time.Duration) (string, error) {
	if err := connection.SetDeadline(time.Now().Add(limit)); err != nil {
		return "", err
	}
	if _, err := io.WriteString(connection, "who?\n"); err != nil {
		return "", err
	}
	line, err := bufio.NewReader(connection).ReadString('\n')
	return strings.TrimSpace(line), err
}
