package simulation

import (
	"bytes"
	"errors"
	"io"
	"sync"
	"time"

	"github.com/hashicorp/raft"

	"github.com/skiff-run/skiff/raftstore"
)

// transport carries raft's messages of one process.
type transport struct {
	endpoint *endpoint
	consumer chan raft.RPC
}

var _ raftstore.Transport = (*transport)(nil)

func newTransport(e *endpoint) *transport {
	return &transport{endpoint: e, consumer: make(chan raft.RPC)}
}

// send delivers one message to raft of another member and brings its answer.
func send[R any](t *transport, to raft.ServerID, timeout time.Duration, command func() any, body []byte) (*R, error) {
	return exchange(t.endpoint, string(to), timeout, func(target *endpoint) (*R, error) {
		answered := make(chan raft.RPCResponse, 1)
		rpc := raft.RPC{Command: command(), RespChan: answered}
		if body != nil {
			rpc.Reader = bytes.NewReader(body)
		}
		select {
		case target.transport.consumer <- rpc:
		case <-target.closed:
			return nil, errReset
		}
		select {
		case r := <-answered:
			if r.Error != nil {
				return nil, r.Error
			}
			return r.Response.(*R), nil
		case <-target.closed:
			return nil, errReset
		}
	})
}

// into stores an answer where the caller wants it.
func into[R any](resp *R, answer *R, err error) error {
	if err == nil {
		*resp = *answer
	}
	return err
}

// message copies a request, as its way over a wire would: the library uses the
// same one again, and a late copy must not change.
func message(args *raft.AppendEntriesRequest) func() any {
	fixed := copied(args)
	return func() any { return copied(fixed) }
}

func copied(args *raft.AppendEntriesRequest) *raft.AppendEntriesRequest {
	c := *args
	c.Entries = make([]*raft.Log, len(args.Entries))
	for i, e := range args.Entries {
		entry := *e
		c.Entries[i] = &entry
	}
	return &c
}

// Consumer implements raft.Transport.
func (t *transport) Consumer() <-chan raft.RPC { return t.consumer }

// LocalAddr implements raft.Transport.
func (t *transport) LocalAddr() raft.ServerAddress {
	return raft.ServerAddress(t.endpoint.local.Address)
}

// AppendEntries implements raft.Transport.
func (t *transport) AppendEntries(id raft.ServerID, _ raft.ServerAddress, args *raft.AppendEntriesRequest, resp *raft.AppendEntriesResponse) error {
	t.endpoint.network.leads(args.Term, t.endpoint.local.ID)
	answer, err := send[raft.AppendEntriesResponse](t, id, messageTimeout, message(args), nil)
	return into(resp, answer, err)
}

// RequestVote implements raft.Transport.
func (t *transport) RequestVote(id raft.ServerID, _ raft.ServerAddress, args *raft.RequestVoteRequest, resp *raft.RequestVoteResponse) error {
	answer, err := send[raft.RequestVoteResponse](t, id, messageTimeout, func() any { c := *args; return &c }, nil)
	return into(resp, answer, err)
}

// RequestPreVote implements raft.WithPreVote.
func (t *transport) RequestPreVote(id raft.ServerID, _ raft.ServerAddress, args *raft.RequestPreVoteRequest, resp *raft.RequestPreVoteResponse) error {
	answer, err := send[raft.RequestPreVoteResponse](t, id, messageTimeout, func() any { c := *args; return &c }, nil)
	return into(resp, answer, err)
}

// TimeoutNow implements raft.Transport.
func (t *transport) TimeoutNow(id raft.ServerID, _ raft.ServerAddress, args *raft.TimeoutNowRequest, resp *raft.TimeoutNowResponse) error {
	answer, err := send[raft.TimeoutNowResponse](t, id, messageTimeout, func() any { c := *args; return &c }, nil)
	return into(resp, answer, err)
}

// InstallSnapshot implements raft.Transport.
func (t *transport) InstallSnapshot(id raft.ServerID, _ raft.ServerAddress, args *raft.InstallSnapshotRequest, resp *raft.InstallSnapshotResponse, data io.Reader) error {
	body, err := io.ReadAll(data)
	if err != nil {
		return err
	}
	t.endpoint.network.countSnapshot()
	answer, err := send[raft.InstallSnapshotResponse](t, id, snapshotTimeout, func() any { c := *args; return &c }, body)
	return into(resp, answer, err)
}

func (n *network) countSnapshot() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.counts.snapshots++
}

// EncodePeer implements raft.Transport.
func (t *transport) EncodePeer(_ raft.ServerID, address raft.ServerAddress) []byte {
	return []byte(address)
}

// DecodePeer implements raft.Transport.
func (t *transport) DecodePeer(b []byte) raft.ServerAddress { return raft.ServerAddress(b) }

// SetHeartbeatHandler implements raft.Transport.
func (t *transport) SetHeartbeatHandler(func(raft.RPC)) {}

// Close implements raft.WithClose.
func (t *transport) Close() error { return nil }

// AppendEntriesPipeline implements raft.Transport.
func (t *transport) AppendEntriesPipeline(id raft.ServerID, _ raft.ServerAddress) (raft.AppendPipeline, error) {
	if t.endpoint.network.find(string(id)) == nil {
		return nil, errRefused
	}
	p := &pipeline{
		transport: t, to: id,
		flying: make(chan *appended, 128), answers: make(chan raft.AppendFuture), closed: make(chan struct{}),
	}
	t.endpoint.spawn(p.order)
	return p, nil
}

// pipeline sends messages without waiting for the answers, which come back in
// order whatever the network does.
type pipeline struct {
	transport *transport
	to        raft.ServerID
	flying    chan *appended
	answers   chan raft.AppendFuture
	closed    chan struct{}
	once      sync.Once
}

// appended is one message and, when done is closed, its answer.
type appended struct {
	began    time.Time
	request  *raft.AppendEntriesRequest
	response *raft.AppendEntriesResponse
	err      error
	done     chan struct{}
}

func (a *appended) Error() error {
	<-a.done
	return a.err
}
func (a *appended) Start() time.Time                      { return a.began }
func (a *appended) Request() *raft.AppendEntriesRequest   { return a.request }
func (a *appended) Response() *raft.AppendEntriesResponse { return a.response }

var errPipelineFull = errors.New("too many messages without an answer")

// AppendEntries implements raft.AppendPipeline. It never waits: a goroutine that
// waits for a mutex of one that sleeps would stop virtual time.
func (p *pipeline) AppendEntries(args *raft.AppendEntriesRequest, resp *raft.AppendEntriesResponse) (raft.AppendFuture, error) {
	select {
	case <-p.closed:
		return nil, raft.ErrPipelineShutdown
	default:
	}
	t := p.transport
	a := &appended{began: time.Now(), request: args, response: resp, done: make(chan struct{})}
	select {
	case p.flying <- a:
	default:
		return nil, errPipelineFull
	}
	t.endpoint.network.leads(args.Term, t.endpoint.local.ID)
	command := message(args)
	t.endpoint.spawn(func() {
		answer, err := send[raft.AppendEntriesResponse](t, p.to, messageTimeout, command, nil)
		a.err = into(resp, answer, err)
		close(a.done)
	})
	return a, nil
}

func (p *pipeline) order() {
	for {
		select {
		case a := <-p.flying:
			select {
			case <-a.done:
			case <-p.transport.endpoint.closed:
				return
			}
			select {
			case p.answers <- a:
			case <-p.closed:
				return
			case <-p.transport.endpoint.closed:
				return
			}
		case <-p.closed:
			return
		case <-p.transport.endpoint.closed:
			return
		}
	}
}

// Consumer implements raft.AppendPipeline.
func (p *pipeline) Consumer() <-chan raft.AppendFuture { return p.answers }

// Close implements raft.AppendPipeline.
func (p *pipeline) Close() error {
	p.once.Do(func() { close(p.closed) })
	return nil
}
