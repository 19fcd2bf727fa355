package raftstore

import (
	"errors"
	"net"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
)

// oneCluster is the gate of members of cluster "c".
var oneCluster = &clusterGate{own: func() string { return "c" }}

// pipeStream is a raft.StreamLayer within the process: whoever dials is accepted by
// the same stream.
type pipeStream struct {
	accepted chan net.Conn
	closed   chan struct{}
}

func newPipeStream() *pipeStream {
	return &pipeStream{accepted: make(chan net.Conn), closed: make(chan struct{})}
}

func (p *pipeStream) Accept() (net.Conn, error) {
	select {
	case c := <-p.accepted:
		return c, nil
	case <-p.closed:
		return nil, net.ErrClosed
	}
}

func (p *pipeStream) Dial(raft.ServerAddress, time.Duration) (net.Conn, error) {
	near, far := net.Pipe()
	select {
	case p.accepted <- far:
		return near, nil
	case <-p.closed:
		return nil, errors.New("closed")
	}
}

func (p *pipeStream) Close() error { close(p.closed); return nil }

func (p *pipeStream) Addr() net.Addr { return &net.UnixAddr{Name: "pipe", Net: "unix"} }

// TestH1HeartbeatsUseTheMainLoop: the library's transport handles heartbeats
// on its own goroutine once raft gave it a handler; through ours they arrive
// where all messages do.
func TestH1HeartbeatsUseTheMainLoop(t *testing.T) {
	t.Parallel()
	shortcut := func(give func(inner *raft.NetworkTransport) Transport) bool {
		inner := raft.NewNetworkTransportWithConfig(&raft.NetworkTransportConfig{
			Stream: newPipeStream(), MaxPool: 1, Timeout: time.Minute, Logger: hclog.NewNullLogger(),
		})
		tr := give(inner)
		defer func() { _ = tr.Close() }()
		beside := make(chan struct{}, 1)
		tr.SetHeartbeatHandler(func(rpc raft.RPC) {
			beside <- struct{}{}
			rpc.Respond(&raft.AppendEntriesResponse{Success: true}, nil)
		})
		sent := make(chan error, 1)
		go func() {
			heartbeat := &raft.AppendEntriesRequest{RPCHeader: raft.RPCHeader{ProtocolVersion: raft.ProtocolVersionMax, Addr: oneCluster.mark("pipe")}, Term: 3, Leader: []byte("pipe")}
			sent <- tr.AppendEntries("a", "pipe", heartbeat, &raft.AppendEntriesResponse{})
		}()
		used := false
		select {
		case <-beside:
			used = true
		case rpc := <-tr.Consumer():
			rpc.Respond(&raft.AppendEntriesResponse{Success: true}, nil)
		}
		if err := <-sent; err != nil {
			t.Fatal(err)
		}
		return used
	}
	if !shortcut(func(inner *raft.NetworkTransport) Transport { return inner }) {
		t.Error("the bare transport does not use the shortcut: this test proves nothing")
	}
	if shortcut(func(inner *raft.NetworkTransport) Transport { return newTransport(inner, oneCluster, nil) }) {
		t.Error("a heartbeat was handled beside the main loop")
	}
}

func TestTransportKeepsPreVote(t *testing.T) {
	t.Parallel()
	var tr raft.Transport = newTransport(loneTransport("a"), oneCluster, nil)
	if _, ok := tr.(raft.WithPreVote); !ok {
		t.Error("raft would disable pre-vote")
	}
	if err := tr.(raft.WithClose).Close(); err != nil {
		t.Error(err)
	}
}
