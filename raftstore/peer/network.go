package peer

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"slices"
	"sync"
	"time"

	"github.com/hashicorp/raft"

	"github.com/skiff-run/skiff/raftstore"
)

// Config says how a member reaches others and how they know each other.
type Config struct {
	// Listener is the member's peer port, plain TCP. The Network closes it.
	Listener net.Listener
	// Certificate is this member's, for both directions, with the URI
	// skiff://member/<member id>. It is asked for at each handshake, so a
	// renewed one is used without a restart.
	Certificate func() (*tls.Certificate, error)
	// Roots verify the certificates of others; asked at each handshake.
	Roots func() *x509.CertPool
	// Logger, slog.Default() if nil.
	Logger *slog.Logger
}

// Network implements raftstore.Network over mutual TLS 1.3.
type Network struct {
	config    Config
	log       *slog.Logger
	local     raftstore.Local
	handler   raftstore.Handler
	raft      *stream
	transport *raft.NetworkTransport
	calls     *callers

	ctx     context.Context // ends with Close
	cancel  context.CancelFunc
	running sync.WaitGroup
	close   func() error // once

	mu    sync.Mutex // guards conns
	conns map[net.Conn]struct{}
}

var _ raftstore.Network = (*Network)(nil)

// Listen makes a Network of a listening port. It accepts connections once a
// store has started it.
func Listen(c Config) (*Network, error) {
	if c.Listener == nil || c.Certificate == nil || c.Roots == nil {
		return nil, errors.New("peer.Config needs Listener, Certificate and Roots")
	}
	n := &Network{config: c, log: c.Logger, conns: map[net.Conn]struct{}{}}
	if n.log == nil {
		n.log = slog.Default()
	}
	n.ctx, n.cancel = context.WithCancel(context.Background())
	n.close = sync.OnceValue(n.shut)
	return n, nil
}

// Start implements raftstore.Network.
func (n *Network) Start(local raftstore.Local, handler raftstore.Handler) (raftstore.Transport, error) {
	if err := n.checkCertificate(local.ID); err != nil {
		return nil, err
	}
	n.local, n.handler = local, handler
	n.calls = newCallers(n)
	n.raft = newStream(n)
	n.transport = newRaftTransport(n.raft, local.Log)
	n.running.Go(n.accept)
	return raftTransport{n.transport, raft.ServerAddress(local.Address)}, nil
}

// checkCertificate refuses to start with what every other member would refuse.
func (n *Network) checkCertificate(id string) error {
	own, err := n.config.Certificate()
	if err != nil {
		return fmt.Errorf("load the member's certificate: %w", err)
	}
	leaf := own.Leaf
	if leaf == nil {
		if leaf, err = x509.ParseCertificate(own.Certificate[0]); err != nil {
			return fmt.Errorf("parse the member's certificate: %w", err)
		}
	}
	named, err := memberOf(leaf)
	if err != nil {
		return fmt.Errorf("the member's own %w", err)
	}
	if named != id {
		return fmt.Errorf("the member's certificate is that of member %q, but this is member %q: issue one with the URI %s", named, id, Identity(id))
	}
	return nil
}

// accept takes connections until the port is closed.
func (n *Network) accept() {
	config := n.serverTLS()
	for {
		conn, err := n.config.Listener.Accept()
		if err != nil {
			if n.ctx.Err() != nil || errors.Is(err, net.ErrClosed) {
				return
			}
			n.log.Warn("could not accept a member's connection", "error", err)
			select {
			case <-time.After(100 * time.Millisecond): // out of file descriptors, most likely
			case <-n.ctx.Done():
				return
			}
			continue
		}
		n.running.Go(func() { n.receive(conn, config) })
	}
}

// receive finds out who speaks and what, and hands the connection on.
func (n *Network) receive(plain net.Conn, config *tls.Config) {
	if !n.track(plain) {
		return
	}
	if tcp, ok := plain.(*net.TCPConn); ok {
		_ = tcp.SetKeepAliveConfig(keepAlive) // without it a dead connection is noticed later
		if raw, err := tcp.SyscallConn(); err == nil {
			_ = limitUnacknowledged("", "", raw)
		}
	}
	secured := tls.Server(plain, config)
	ctx, cancel := context.WithTimeout(n.ctx, handshakeTimeout)
	err := secured.HandshakeContext(ctx)
	cancel()
	if err != nil {
		n.forget(plain)
		_ = plain.Close()
		if n.ctx.Err() == nil {
			n.log.Debug("refused a connection to the peer port", "remote", plain.RemoteAddr().String(), "error", err)
		}
		return
	}
	state := secured.ConnectionState()
	// The certificate was verified during the handshake.
	id, err := memberOf(state.PeerCertificates[0])
	if err != nil {
		n.forget(plain)
		_ = secured.Close()
		return
	}
	conn := &admittedConn{Conn: secured, plain: plain, network: n, member: id}
	if state.NegotiatedProtocol == protocolRaft {
		n.raft.deliver(conn)
		return
	}
	conn.calls = true
	n.serve(conn, id)
}

// track remembers a connection, so that Close can end it. After Close it
// closes the connection and says false.
func (n *Network) track(c net.Conn) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.ctx.Err() != nil {
		_ = c.Close()
		return false
	}
	n.conns[c] = struct{}{}
	return true
}

func (n *Network) forget(c net.Conn) {
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(n.conns, c)
}

// Close implements raftstore.Network.
func (n *Network) Close() error { return n.close() }

func (n *Network) shut() error {
	n.cancel()
	err := n.config.Listener.Close()
	if errors.Is(err, net.ErrClosed) {
		err = nil
	}
	if n.transport != nil {
		n.calls.stop()
		err = errors.Join(err, n.transport.Close())
	}
	n.mu.Lock()
	open := slices.Collect(maps.Keys(n.conns))
	n.mu.Unlock()
	for _, c := range open {
		_ = c.Close() // so that whoever reads it ends
	}
	n.running.Wait()
	return err
}

// admittedConn is a connection another member opened. One of raft ends when that
// member is not admitted any more.
type admittedConn struct {
	*tls.Conn
	plain   net.Conn
	network *Network
	member  string
	calls   bool
}

// Read implements net.Conn.
func (c *admittedConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	if err != nil && c.network.local.Lost != nil && c.network.ctx.Err() == nil {
		c.network.local.Lost(c.member)
	}
	if err == nil && !c.calls && !c.network.local.Admits(c.member) {
		return 0, fmt.Errorf("%q is not a member of this store any more", c.member)
	}
	return n, err
}

// Close implements net.Conn.
func (c *admittedConn) Close() error {
	c.network.forget(c.plain)
	return c.Conn.Close()
}
