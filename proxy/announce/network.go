package announce

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/mdlayher/arp"
	"github.com/mdlayher/ndp"
	"github.com/vishvananda/netlink"
	"golang.org/x/net/ipv6"
)

// bursts is when an address that has moved is announced to everybody: more than
// once, because such packets get lost and nobody confirms them.
var bursts = []time.Duration{0, 100 * time.Millisecond, 500 * time.Millisecond, 2 * time.Second}

// Network answers for addresses on the links of the calling thread's network
// namespace. The kernel does not have the addresses: what is answered ends with
// the process.
type Network struct {
	logger   *slog.Logger
	conflict func(netip.Addr)

	mu        sync.Mutex // guards what follows
	addresses map[netip.Addr]*link
	links     map[key]*link
	running   sync.WaitGroup
	closed    chan struct{}
}

// key names a link and a protocol of its.
type key struct {
	index int
	six   bool
}

// link answers on one link, by ARP or by neighbor discovery.
type link struct {
	socket
	key
	name string
	own  net.HardwareAddr
}

// socket speaks one of the protocols.
type socket interface {
	// serve answers until the socket is closed. mine says whether an address is
	// to be answered for, other is told of machines that announce one.
	serve(mine func(netip.Addr) bool, other func(netip.Addr, net.HardwareAddr)) error
	// announce tells everybody that an address is here.
	announce(netip.Addr) error
	// join makes questions about the address reach us.
	join(netip.Addr) error
	leave(netip.Addr) error
	Close() error
}

// NewNetwork returns an Announcer. conflict is called when another machine
// announces an address of ours.
func NewNetwork(logger *slog.Logger, conflict func(netip.Addr)) *Network {
	return &Network{logger: logger, conflict: conflict, addresses: map[netip.Addr]*link{}, links: map[key]*link{}, closed: make(chan struct{})}
}

// Set makes us answer for exactly these addresses.
func (n *Network) Set(addresses []netip.Addr) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	wanted := map[netip.Addr]bool{}
	var errs []error
	for _, address := range addresses {
		wanted[address] = true
		if n.addresses[address] != nil {
			continue
		}
		l, err := n.linkFor(address)
		if err == nil {
			err = l.join(address)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("announce %s: %w", address, err))
			continue
		}
		n.addresses[address] = l
		n.running.Go(func() { n.burst(l, address) })
	}
	for address, l := range n.addresses {
		if !wanted[address] {
			delete(n.addresses, address)
			// A link that is gone has left by itself.
			_ = l.leave(address)
		}
	}
	for k, l := range n.links {
		if !n.used(l) {
			delete(n.links, k)
			_ = l.Close()
		}
	}
	return errors.Join(errs...)
}

func (n *Network) used(l *link) bool {
	for _, other := range n.addresses {
		if other == l {
			return true
		}
	}
	return false
}

// Close ends all answers.
func (n *Network) Close() {
	_ = n.Set(nil)
	close(n.closed)
	n.running.Wait()
}

// burst announces an address while it is ours.
func (n *Network) burst(l *link, address netip.Addr) {
	var passed time.Duration
	for _, at := range bursts {
		select {
		case <-n.closed:
			return
		case <-time.After(at - passed):
		}
		passed = at
		if !n.has(l, address) {
			return
		}
		if err := l.announce(address); err != nil {
			n.logger.Warn("announcing an address failed", "address", address, "link", l.name, "error", err)
		}
	}
}

func (n *Network) has(l *link, address netip.Addr) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.addresses[address] == l
}

// linkFor finds the link over which an address is reached, and opens it. The
// caller holds mu.
func (n *Network) linkFor(address netip.Addr) (*link, error) {
	routes, err := netlink.RouteGet(address.AsSlice())
	if err != nil {
		return nil, fmt.Errorf("find the link that leads to it: %w", err)
	}
	if len(routes) == 0 {
		return nil, errors.New("find the link that leads to it: there is no route")
	}
	k := key{routes[0].LinkIndex, address.Is6()}
	if l := n.links[k]; l != nil {
		return l, nil
	}
	device, err := net.InterfaceByIndex(k.index)
	if err != nil {
		return nil, fmt.Errorf("find the link that leads to it: %w", err)
	}
	if len(device.HardwareAddr) != 6 {
		return nil, fmt.Errorf("link %s that leads to it is no Ethernet", device.Name)
	}
	l := &link{key: k, name: device.Name, own: device.HardwareAddr}
	if k.six {
		l.socket, err = openNeighbors(device)
	} else {
		l.socket, err = openARP(device)
	}
	if err != nil {
		return nil, fmt.Errorf("open link %s: %w", device.Name, err)
	}
	n.links[k] = l
	n.running.Go(func() { n.serve(l) })
	return l, nil
}

// serve answers on a link until it is closed or goes away; then the next Set
// opens what there is instead.
func (n *Network) serve(l *link) {
	err := l.serve(func(address netip.Addr) bool { return n.has(l, address) }, func(address netip.Addr, who net.HardwareAddr) {
		if who.String() != l.own.String() && n.has(l, address) {
			n.logger.Debug("another machine announces an address of ours", "address", address, "machine", who)
			n.conflict(address)
		}
	})
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.links[l.key] != l {
		return // closed by us
	}
	n.logger.Warn("a link on which addresses are announced is gone", "link", l.name, "error", err)
	delete(n.links, l.key)
	for address, on := range n.addresses {
		if on == l {
			delete(n.addresses, address)
		}
	}
	_ = l.Close()
}

// arpSocket answers for IPv4 addresses.
type arpSocket struct {
	*arp.Client
	own net.HardwareAddr
}

func openARP(device *net.Interface) (socket, error) {
	client, err := arp.Dial(device)
	if err != nil {
		return nil, fmt.Errorf("open ARP: %w", err)
	}
	return &arpSocket{client, device.HardwareAddr}, nil
}

func (s *arpSocket) serve(mine func(netip.Addr) bool, other func(netip.Addr, net.HardwareAddr)) error {
	for {
		packet, _, err := s.Read()
		if errors.Is(err, io.ErrUnexpectedEOF) {
			continue // cut off
		}
		if err != nil {
			return err
		}
		if packet.SenderIP.IsValid() {
			other(packet.SenderIP, packet.SenderHardwareAddr)
		}
		if packet.Operation == arp.OperationRequest && packet.SenderIP != packet.TargetIP && mine(packet.TargetIP) {
			// Who asked asks again when this fails.
			_ = s.Reply(packet, s.own, packet.TargetIP)
		}
	}
}

func (s *arpSocket) join(netip.Addr) error  { return nil }
func (s *arpSocket) leave(netip.Addr) error { return nil }

// announce sends a gratuitous request and a reply: some machines heed only one.
func (s *arpSocket) announce(address netip.Addr) error {
	everybody := net.HardwareAddr{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}
	var errs []error
	for _, operation := range []arp.Operation{arp.OperationRequest, arp.OperationReply} {
		packet, err := arp.NewPacket(operation, s.own, address, everybody, address)
		if err == nil {
			err = s.WriteTo(packet, everybody)
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// neighborSocket answers for IPv6 addresses.
type neighborSocket struct {
	*ndp.Conn
	own net.HardwareAddr
}

func openNeighbors(device *net.Interface) (socket, error) {
	conn, _, err := ndp.Listen(device, ndp.LinkLocal)
	if err != nil {
		return nil, fmt.Errorf("open neighbor discovery: %w", err)
	}
	var only ipv6.ICMPFilter
	only.SetAll(true)
	only.Accept(ipv6.ICMPTypeNeighborSolicitation)
	only.Accept(ipv6.ICMPTypeNeighborAdvertisement)
	if err := errors.Join(conn.SetICMPFilter(&only), conn.JoinGroup(allNodes)); err != nil {
		return nil, errors.Join(fmt.Errorf("open neighbor discovery: %w", err), conn.Close())
	}
	return &neighborSocket{conn, device.HardwareAddr}, nil
}

// allNodes is everybody on the link.
var allNodes = netip.MustParseAddr("ff02::1")

func (s *neighborSocket) serve(mine func(netip.Addr) bool, other func(netip.Addr, net.HardwareAddr)) error {
	for {
		message, _, from, err := s.ReadFrom()
		if errors.Is(err, net.ErrClosed) {
			return err
		}
		var network net.Error
		if err != nil {
			if errors.As(err, &network) {
				return err
			}
			continue // no message of neighbor discovery, or a malformed one
		}
		switch m := message.(type) {
		case *ndp.NeighborSolicitation:
			if mine(m.TargetAddress) {
				s.answer(m.TargetAddress, from)
			}
		case *ndp.NeighborAdvertisement:
			for _, option := range m.Options {
				if l, is := option.(*ndp.LinkLayerAddress); is && l.Direction == ndp.Target {
					other(m.TargetAddress, l.Addr)
				}
			}
		}
	}
}

// answer tells one machine, or all if that one has no address yet.
func (s *neighborSocket) answer(address, to netip.Addr) {
	solicited := !to.IsUnspecified()
	if !solicited {
		to = allNodes
	}
	// Who asked asks again when this fails.
	_ = s.WriteTo(s.advertisement(address, solicited), nil, to)
}

func (s *neighborSocket) advertisement(address netip.Addr, solicited bool) *ndp.NeighborAdvertisement {
	return &ndp.NeighborAdvertisement{
		Solicited: solicited, Override: true, TargetAddress: address,
		Options: []ndp.Option{&ndp.LinkLayerAddress{Direction: ndp.Target, Addr: s.own}},
	}
}

func (s *neighborSocket) announce(address netip.Addr) error {
	return s.WriteTo(s.advertisement(address, false), nil, allNodes)
}

func (s *neighborSocket) join(address netip.Addr) error {
	group, err := ndp.SolicitedNodeMulticast(address)
	if err == nil {
		err = s.JoinGroup(group)
	}
	if err != nil {
		return fmt.Errorf("join the group of those that ask: %w", err)
	}
	return nil
}

func (s *neighborSocket) leave(address netip.Addr) error {
	group, err := ndp.SolicitedNodeMulticast(address)
	if err != nil {
		return err
	}
	return s.LeaveGroup(group)
}
