package backendtest

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"testing"
	"time"
)

// Host is a network namespace, for tests that make networks of their own.
type Host struct{ *host }

// NewHost makes a namespace with loopback up; it goes with the test.
func NewHost(t *testing.T) Host {
	t.Helper()
	return Host{newHost(t)}
}

// Route makes the host forward between its links.
func (h Host) Route() {
	h.t.Helper()
	h.must(func() error {
		for _, file := range []string{"ipv4/ip_forward", "ipv6/conf/all/forwarding"} {
			if err := os.WriteFile("/proc/sys/net/"+file, []byte("1"), 0o600); err != nil {
				return fmt.Errorf("make a host a router: %w", err)
			}
		}
		return nil
	})
}

// Plug connects the host to the router by a cable of that name at the router's
// end; its default routes lead over it.
func (h Host) Plug(router Host, name string, gateways, own []netip.Prefix) {
	h.t.Helper()
	h.plug(router.host, name, gateways, own)
}

// In runs f in the host, on a thread of its own that ends with it.
func (h Host) In(f func() error) error { return h.in(f) }

// Must runs f in the host and fails the test if f does.
func (h Host) Must(f func() error) {
	h.t.Helper()
	h.must(f)
}

// Serve answers on a TCP and UDP port of both families with the name and the
// client's address, one line for each that it gets.
func (h Host) Serve(name string, port int) {
	h.t.Helper()
	h.serve(name, port)
}

// Connect opens a connection, by TCP or UDP.
func (h Host) Connect(network string, to netip.AddrPort, limit time.Duration) (net.Conn, error) {
	return h.connect(network, netip.Addr{}, to, limit)
}

// Ask sends a line over a connection and returns the answer.
func Ask(connection net.Conn, limit time.Duration) (string, error) { return ask(connection, limit) }

// Outcome is refused, silent, not permitted, or the error.
func Outcome(err error) string { return outcome(err) }

// FD is a handle of the namespace, for moving links into it.
func (h Host) FD() int { return int(h.handle) }
