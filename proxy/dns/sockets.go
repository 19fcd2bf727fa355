package dns

import (
	"errors"
	"io"
	"net"
	"net/netip"
	"os"

	"github.com/skiff-run/skiff/internal/daemon"
)

// Names of the sockets where systemd keeps them.
const (
	packetsName  = "dns-udp"
	listenerName = "dns-tcp"
)

// sockets are where queries come in.
type sockets struct {
	packets  net.PacketConn
	listener net.Listener
	// inherited says that queries may have come in before this process began.
	inherited bool
	// unkept is why systemd does not keep new ones, nil when it does or is not there:
	// queries are refused while the daemon is restarted, and nothing else is different.
	unkept error
}

// listen returns the sockets at an address: those that a former process left
// with systemd, when it did, and new ones otherwise, which are left there.
func listen(address netip.AddrPort) (s sockets, err error) {
	if s.packets, s.inherited = inherited(packetsName, address, net.FilePacketConn, net.PacketConn.LocalAddr); !s.inherited {
		fresh, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(address))
		if err != nil {
			return sockets{}, err
		}
		s.packets, s.unkept = fresh, keep(packetsName, fresh)
	}
	var old bool
	if s.listener, old = inherited(listenerName, address, net.FileListener, net.Listener.Addr); !old {
		fresh, err := net.ListenTCP("tcp", net.TCPAddrFromAddrPort(address))
		if err != nil {
			return sockets{}, errors.Join(err, s.packets.Close())
		}
		s.listener, s.unkept = fresh, errors.Join(s.unkept, keep(listenerName, fresh))
	}
	return s, nil
}

func (s sockets) Close() error { return errors.Join(s.packets.Close(), s.listener.Close()) }

// inherited returns a socket that a former process left. One at an address that
// was configured before is of no use, and nobody keeps it any longer.
func inherited[T io.Closer](name string, address netip.AddrPort, open func(*os.File) (T, error), where func(T) net.Addr) (T, bool) {
	var none T
	file := daemon.Kept(name)
	if file == nil {
		return none, false
	}
	defer file.Close()
	socket, err := open(file)
	if err == nil {
		if where(socket).String() == address.String() {
			return socket, true
		}
		socket.Close()
	}
	daemon.Drop(name)
	return none, false
}

func keep(name string, socket interface{ File() (*os.File, error) }) error {
	file, err := socket.File()
	if err != nil {
		return err
	}
	defer file.Close()
	return daemon.Keep(name, file)
}
