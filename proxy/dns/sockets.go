package dns

import (
	"net"
	"net/netip"

	"github.com/skiff-run/skiff/internal/daemon"
)

// Names of the sockets where systemd keeps them.
const (
	packetsName  = "dns-udp"
	listenerName = "dns-tcp"
)

// listen returns the sockets at an address: those that a former process left
// with systemd, when it did, and new ones otherwise, which are left there.
func listen(address netip.AddrPort) (packets net.PacketConn, listener net.Listener, inherited bool, err error) {
	if packets = inheritedPackets(address); packets == nil {
		if packets, err = net.ListenPacket("udp", address.String()); err != nil {
			return nil, nil, false, err
		}
		keep(packetsName, packets)
	} else {
		inherited = true
	}
	if listener = inheritedListener(address); listener == nil {
		if listener, err = net.Listen("tcp", address.String()); err != nil {
			packets.Close()
			return nil, nil, false, err
		}
		keep(listenerName, listener)
	}
	return packets, listener, inherited, nil
}

// inheritedPackets returns nil when there is no socket or one at an address that
// was configured before; nobody keeps that any longer.
func inheritedPackets(address netip.AddrPort) net.PacketConn {
	file := daemon.Kept(packetsName)
	if file == nil {
		return nil
	}
	defer file.Close()
	packets, err := net.FilePacketConn(file)
	if err == nil && packets.LocalAddr().String() == address.String() {
		return packets
	}
	if err == nil {
		packets.Close()
	}
	daemon.Drop(packetsName)
	return nil
}

func inheritedListener(address netip.AddrPort) net.Listener {
	file := daemon.Kept(listenerName)
	if file == nil {
		return nil
	}
	defer file.Close()
	listener, err := net.FileListener(file)
	if err == nil && listener.Addr().String() == address.String() {
		return listener
	}
	if err == nil {
		listener.Close()
	}
	daemon.Drop(listenerName)
	return nil
}

// keep leaves a socket with systemd, if that is there: without it, queries are
// refused while the daemon is restarted, and nothing else is different.
func keep(name string, socket any) {
	filer, is := socket.(daemon.Filer)
	if !is {
		return
	}
	if file, err := filer.File(); err == nil {
		daemon.Keep(name, file)
		file.Close()
	}
}
