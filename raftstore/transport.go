package raftstore

import (
	"io"
	"net"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
)

const (
	transportTimeout = 3 * time.Second
	transportPool    = 3
)

// transport is what raft sends and receives by: pre-votes and closing are
// optional for the library, not for us.
type transport interface {
	raft.Transport
	raft.WithPreVote
	raft.WithClose
}

// mainLoopTransport keeps heartbeats on raft's main loop.
//
// Raft offers the transport a shortcut which handles heartbeats on the
// transport's goroutine, beside the main loop: term and state then change under
// the leader's hands, and logs can diverge (hashicorp/raft issue 695). Without
// the shortcut a heartbeat is a message like any other.
type mainLoopTransport struct{ transport }

// SetHeartbeatHandler ignores the shortcut.
func (mainLoopTransport) SetHeartbeatHandler(func(raft.RPC)) {}

// newTransport makes the transport of a member: over peers' connections, or
// within the process for a member that is alone.
func newTransport(peers PeerStream, id string, logger hclog.Logger) mainLoopTransport {
	if peers == nil {
		address, alone := raft.NewInmemTransport(raft.ServerAddress("member:" + id))
		alone.Connect(address, alone) // so that it can call its own election
		return mainLoopTransport{alone}
	}
	return mainLoopTransport{raft.NewNetworkTransportWithConfig(&raft.NetworkTransportConfig{
		Stream:  streamLayer{peers},
		MaxPool: transportPool,
		Timeout: transportTimeout,
		Logger:  logger,
	})}
}

// streamLayer gives raft our connections.
type streamLayer struct{ peers PeerStream }

func (l streamLayer) Accept() (net.Conn, error) { return l.peers.Accept() }
func (l streamLayer) Close() error              { return l.peers.Close() }
func (l streamLayer) Addr() net.Addr            { return l.peers.Addr() }
func (l streamLayer) Dial(address raft.ServerAddress, timeout time.Duration) (net.Conn, error) {
	return l.peers.Dial(string(address), timeout)
}

var _ io.Closer = streamLayer{}
