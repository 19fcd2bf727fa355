package raftstore

import (
	"io"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"
)

// retryPause is how long the leader waits before it speaks again to a member
// that did not answer.
const retryPause = 50 * time.Millisecond

// transport is what raft is given: a Network's transport, with what the
// library lacks around it.
//
//   - Heartbeats stay on raft's main loop. The library offers the transport a
//     shortcut which handles them on the transport's goroutine, beside the main
//     loop: term and state then change under the leader's hands, and logs can
//     diverge (hashicorp/raft issue 695).
//   - A member that is back is spoken to at once. The library doubles its pause
//     after each failure up to ten seconds; here a message to a silent member
//     is repeated until it is answered or the leader's term is over.
//   - Followers learn of a commit when it happens, see promptPipeline.
//   - A snapshot this member has already is not installed, see Store.installing.
//   - Members of another cluster are turned away, see clusterGate.
//   - The store itself can hand raft a message, see callElection.
type transport struct {
	Transport
	gate     *clusterGate
	received func(raft.RPC) bool // sees each message first, may answer it; nil for none
	consumer chan raft.RPC
	closed   chan struct{}
	close    func() error // once
	running  sync.WaitGroup
	// raft is nil until it was made; it is made with this transport.
	raft atomic.Pointer[raft.Raft]
	// progress is what each member last acknowledged outside of a pipeline, by
	// raft.ServerID. A pipeline begins from there.
	progress sync.Map
	notices  notices
}

// newTransport wraps the transport of a Network.
func newTransport(inner Transport, gate *clusterGate, received func(raft.RPC) bool) *transport {
	t := &transport{Transport: inner, gate: gate, received: received, consumer: make(chan raft.RPC), closed: make(chan struct{})}
	t.close = sync.OnceValue(func() error {
		close(t.closed)
		err := inner.Close()
		t.running.Wait()
		return err
	})
	t.running.Go(t.forward)
	return t
}

// loneTransport is the transport of a member without a Network: it has nobody
// to talk to.
func loneTransport(id string) Transport {
	_, alone := raft.NewInmemTransport(raft.ServerAddress("member:" + id))
	return alone
}

// attach tells the transport which raft it serves.
func (t *transport) attach(r *raft.Raft) { t.raft.Store(r) }

// SetHeartbeatHandler ignores the shortcut.
func (t *transport) SetHeartbeatHandler(func(raft.RPC)) {}

// Consumer implements raft.Transport.
func (t *transport) Consumer() <-chan raft.RPC { return t.consumer }

// Close implements raft.WithClose.
func (t *transport) Close() error { return t.close() }

// forward hands what arrives to raft, until Close.
func (t *transport) forward() {
	for {
		select {
		case rpc := <-t.Transport.Consumer():
			if err := t.gate.refuse(rpc); err != nil {
				t.running.Go(func() { turnAway(rpc, err) })
				continue
			}
			if t.received != nil && t.received(rpc) {
				continue
			}
			select {
			case t.consumer <- rpc:
			case <-t.closed:
				return
			}
		case <-t.closed:
			return
		}
	}
}

// callElection makes this member a candidate at once, by the message with which
// a leader hands over. Votes for it are given even by members that believe in a
// leader, so the caller must know that there is none. It reports false when raft
// does not take messages any more.
func (t *transport) callElection() bool {
	answered := make(chan raft.RPCResponse, 1)
	request := &raft.TimeoutNowRequest{RPCHeader: raft.RPCHeader{ProtocolVersion: raft.ProtocolVersionMax}}
	select {
	case t.consumer <- raft.RPC{Command: request, RespChan: answered}:
		return true
	case <-t.closed:
		return false
	}
}

// EncodePeer implements raft.Transport.
func (t *transport) EncodePeer(_ raft.ServerID, address raft.ServerAddress) []byte {
	return t.gate.mark(address)
}

// DecodePeer implements raft.Transport.
func (t *transport) DecodePeer(b []byte) raft.ServerAddress {
	_, address := unmark(b)
	return address
}

// AppendEntries implements raft.Transport. Unless it is a heartbeat, the message
// is repeated until it is answered or is no longer the leader's word.
func (t *transport) AppendEntries(id raft.ServerID, target raft.ServerAddress, args *raft.AppendEntriesRequest, resp *raft.AppendEntriesResponse) error {
	if isHeartbeat(args) {
		// Raft repeats these itself, at least twice a timeout.
		return t.Transport.AppendEntries(id, target, args, resp)
	}
	_, err := t.insist(id, target, args, resp)
	if err == nil && resp.Success {
		t.progress.Store(id, positionAfter(args))
	}
	return err
}

// InstallSnapshot implements raft.Transport. A snapshot can be sent only once,
// so it waits until the member answers.
func (t *transport) InstallSnapshot(id raft.ServerID, target raft.ServerAddress, args *raft.InstallSnapshotRequest, resp *raft.InstallSnapshotResponse, data io.Reader) error {
	greeting := &raft.AppendEntriesRequest{RPCHeader: args.RPCHeader, Term: args.Term, Leader: args.Leader}
	target, err := t.insist(id, target, greeting, &raft.AppendEntriesResponse{})
	if err != nil {
		return err
	}
	return t.Transport.InstallSnapshot(id, target, args, resp, data)
}

// insist repeats a message until it is answered or is no longer the leader's
// word. It returns the address that answered.
func (t *transport) insist(id raft.ServerID, target raft.ServerAddress, args *raft.AppendEntriesRequest, resp *raft.AppendEntriesResponse) (raft.ServerAddress, error) {
	for {
		err := t.Transport.AppendEntries(id, target, args, resp)
		if err == nil {
			return target, nil
		}
		select {
		case <-time.After(retryPause):
		case <-t.closed:
			return target, err
		}
		var current bool
		if target, current = t.current(args.Term, id); !current {
			return target, err
		}
		*resp = raft.AppendEntriesResponse{}
	}
}

// current reports whether this member still leads the term and replicates to
// id, and where to.
func (t *transport) current(term uint64, id raft.ServerID) (raft.ServerAddress, bool) {
	r := t.raft.Load()
	if r == nil || r.State() != raft.Leader || r.CurrentTerm() != term {
		return "", false
	}
	for _, server := range r.GetConfiguration().Configuration().Servers {
		if server.ID == id {
			return server.Address, true
		}
	}
	return "", false
}

// isHeartbeat knows raft's heartbeats, which carry nothing but the term.
func isHeartbeat(args *raft.AppendEntriesRequest) bool {
	return args.PrevLogEntry == 0 && args.PrevLogTerm == 0 && args.LeaderCommitIndex == 0 && len(args.Entries) == 0
}
