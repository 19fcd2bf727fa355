package fleet

import (
	"context"
	"net"

	"github.com/skiff-run/skiff/test/host"
)

// Dial connects to an IP address and port as a program at the host's end of the
// network would.
func (f *Fleet) Dial(ctx context.Context, network, address string) (net.Conn, error) {
	return host.InNetwork(f.Namespace, func() (net.Conn, error) {
		var dialer net.Dialer
		return dialer.DialContext(ctx, network, address)
	})
}
