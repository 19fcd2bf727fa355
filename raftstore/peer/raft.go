package peer

import (
	"errors"
	"io"
	"net"
	"strings"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
)

const (
	// raftTimeout bounds one message and its answer; one of the log waits for the
	// other member's disk.
	raftTimeout = 3 * time.Second
	// raftPool is how many idle connections to a member are kept.
	raftPool = 3
	// raftInFlight is how many messages of a pipeline may be unanswered: the
	// library's two, and one for news of a commit.
	raftInFlight = 3
)

// stream gives raft's transport our connections.
type stream struct {
	network  *Network
	accepted chan net.Conn
}

func newStream(n *Network) *stream { return &stream{network: n, accepted: make(chan net.Conn)} }

func newRaftTransport(s *stream, log hclog.Logger) *raft.NetworkTransport {
	return raft.NewNetworkTransportWithConfig(&raft.NetworkTransportConfig{
		Stream: s, MaxPool: raftPool, MaxRPCsInFlight: raftInFlight, Timeout: raftTimeout, Logger: log,
	})
}

// deliver hands a connection to the transport.
func (s *stream) deliver(c net.Conn) {
	select {
	case s.accepted <- c:
	case <-s.network.ctx.Done():
		_ = c.Close()
	}
}

// Accept implements net.Listener.
func (s *stream) Accept() (net.Conn, error) {
	select {
	case c := <-s.accepted:
		return c, nil
	case <-s.network.ctx.Done():
		return nil, net.ErrClosed
	}
}

// Close implements net.Listener; the Network ends the connections.
func (s *stream) Close() error { return nil }

// Addr implements net.Listener.
func (s *stream) Addr() net.Addr { return s.network.config.Listener.Addr() }

// Dial implements raft.StreamLayer. The target names member and address.
func (s *stream) Dial(target raft.ServerAddress, _ time.Duration) (net.Conn, error) {
	id, address, ok := strings.Cut(string(target), separator)
	if !ok {
		return nil, errors.New("raft's transport was given an address without a member")
	}
	conn, err := s.network.dial(s.network.ctx, id, address, protocolRaft)
	if err != nil {
		return nil, err
	}
	tracked := &trackedConn{Conn: conn, network: s.network}
	if !s.network.track(tracked) {
		return nil, net.ErrClosed
	}
	return tracked, nil
}

// trackedConn is a connection this member opened.
type trackedConn struct {
	net.Conn
	network *Network
}

// Close implements net.Conn.
func (c *trackedConn) Close() error {
	c.network.forget(c)
	return c.Conn.Close()
}

// separator stands between member and address where the library knows only an
// address.
const separator = "@"

// raftTransport is the library's transport, which finds a member by address;
// here it is found by id, and the address only says where.
type raftTransport struct {
	inner   *raft.NetworkTransport
	address raft.ServerAddress
}

func target(id raft.ServerID, address raft.ServerAddress) raft.ServerAddress {
	return raft.ServerAddress(id) + separator + address
}

// Consumer implements raft.Transport.
func (t raftTransport) Consumer() <-chan raft.RPC { return t.inner.Consumer() }

// LocalAddr implements raft.Transport.
func (t raftTransport) LocalAddr() raft.ServerAddress { return t.address }

// EncodePeer implements raft.Transport.
func (t raftTransport) EncodePeer(_ raft.ServerID, address raft.ServerAddress) []byte {
	return []byte(address)
}

// DecodePeer implements raft.Transport.
func (t raftTransport) DecodePeer(b []byte) raft.ServerAddress { return raft.ServerAddress(b) }

// SetHeartbeatHandler implements raft.Transport.
func (t raftTransport) SetHeartbeatHandler(handler func(raft.RPC)) {
	t.inner.SetHeartbeatHandler(handler)
}

// AppendEntriesPipeline implements raft.Transport.
func (t raftTransport) AppendEntriesPipeline(id raft.ServerID, address raft.ServerAddress) (raft.AppendPipeline, error) {
	return t.inner.AppendEntriesPipeline(id, target(id, address))
}

// AppendEntries implements raft.Transport.
func (t raftTransport) AppendEntries(id raft.ServerID, address raft.ServerAddress, args *raft.AppendEntriesRequest, resp *raft.AppendEntriesResponse) error {
	return t.inner.AppendEntries(id, target(id, address), args, resp)
}

// RequestVote implements raft.Transport.
func (t raftTransport) RequestVote(id raft.ServerID, address raft.ServerAddress, args *raft.RequestVoteRequest, resp *raft.RequestVoteResponse) error {
	return t.inner.RequestVote(id, target(id, address), args, resp)
}

// RequestPreVote implements raft.WithPreVote.
func (t raftTransport) RequestPreVote(id raft.ServerID, address raft.ServerAddress, args *raft.RequestPreVoteRequest, resp *raft.RequestPreVoteResponse) error {
	return t.inner.RequestPreVote(id, target(id, address), args, resp)
}

// InstallSnapshot implements raft.Transport.
func (t raftTransport) InstallSnapshot(id raft.ServerID, address raft.ServerAddress, args *raft.InstallSnapshotRequest, resp *raft.InstallSnapshotResponse, data io.Reader) error {
	return t.inner.InstallSnapshot(id, target(id, address), args, resp, data)
}

// TimeoutNow implements raft.Transport.
func (t raftTransport) TimeoutNow(id raft.ServerID, address raft.ServerAddress, args *raft.TimeoutNowRequest, resp *raft.TimeoutNowResponse) error {
	return t.inner.TimeoutNow(id, target(id, address), args, resp)
}

// Close implements raft.WithClose.
func (t raftTransport) Close() error { return t.inner.Close() }
