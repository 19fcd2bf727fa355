package raftstore

import (
	"context"
	"errors"
	"fmt"
	"io"
	"reflect"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"github.com/skiff-run/skiff/internal/testenv"
)

// hub joins members within the process. A member is found by its address and
// must then be the one that was meant, as over TLS.
type hub struct {
	mu    sync.Mutex // guards all below
	nodes map[string]*hubNode
	cut   map[string]bool // members nobody reaches and who reach nobody
}

func newHub() *hub { return &hub{nodes: map[string]*hubNode{}, cut: map[string]bool{}} }

// isolate cuts a member off, or joins it again.
func (h *hub) isolate(id string, cut bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.cut[id] = cut
}

// port is the Network for a member at an address.
func (h *hub) port(address string) *hubNode {
	return &hubNode{hub: h, address: address, consumer: make(chan raft.RPC), closed: make(chan struct{})}
}

// reach finds the other end of a connection.
func (h *hub) reach(from *hubNode, id, address string, raftTraffic bool) (*hubNode, error) {
	h.mu.Lock()
	to, cut := h.nodes[address], h.cut[from.local.ID] || h.cut[id]
	h.mu.Unlock()
	switch {
	case to == nil || cut:
		return nil, fmt.Errorf("%w: nobody answers at %s", ErrUnreachable, address)
	case to.local.ID != id:
		return nil, fmt.Errorf("%w: %s is member %q, not %q", ErrUnreachable, address, to.local.ID, id)
	case raftTraffic && !to.local.Admits(from.local.ID):
		return nil, fmt.Errorf("%w: %q refuses %q", ErrUnreachable, id, from.local.ID)
	}
	return to, nil
}

// hubNode is one member's Network and Transport.
type hubNode struct {
	hub      *hub
	address  string
	local    Local
	handler  Handler
	consumer chan raft.RPC
	closed   chan struct{}
	once     sync.Once
	handling sync.WaitGroup
}

func (n *hubNode) Start(local Local, handler Handler) (Transport, error) {
	n.local, n.handler = local, handler
	n.hub.mu.Lock()
	defer n.hub.mu.Unlock()
	n.hub.nodes[n.address] = n
	return n, nil
}

func (n *hubNode) Call(ctx context.Context, id, address string, request []byte) ([]byte, error) {
	to, err := n.hub.reach(n, id, address, false)
	if err != nil {
		return nil, err
	}
	answered := make(chan []byte, 1)
	to.handling.Go(func() { answered <- to.handler(ctx, n.local.ID, append([]byte(nil), request...)) })
	select {
	case answer := <-answered:
		return answer, nil
	case <-to.closed:
		return nil, errors.New("the other member has closed")
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (n *hubNode) Close() error {
	n.once.Do(func() {
		close(n.closed)
		n.hub.mu.Lock()
		if n.hub.nodes[n.address] == n {
			delete(n.hub.nodes, n.address)
		}
		n.hub.mu.Unlock()
	})
	n.handling.Wait()
	return nil
}

func (n *hubNode) send(id raft.ServerID, address raft.ServerAddress, command, response any, data io.Reader) error {
	to, err := n.hub.reach(n, string(id), string(address), true)
	if err != nil {
		return err
	}
	answered := make(chan raft.RPCResponse, 1)
	timeout := time.After(3 * time.Second)
	select {
	case to.consumer <- raft.RPC{Command: command, Reader: data, RespChan: answered}:
	case <-timeout:
		return errors.New("timed out")
	case <-to.closed:
		return errors.New("the other member has closed")
	case <-n.closed:
		return errors.New("closed")
	}
	select {
	case r := <-answered:
		if r.Error != nil {
			return r.Error
		}
		reflect.ValueOf(response).Elem().Set(reflect.ValueOf(r.Response).Elem())
		return nil
	case <-timeout:
		return errors.New("timed out")
	case <-to.closed:
		return errors.New("the other member has closed")
	case <-n.closed:
		return errors.New("closed")
	}
}

func (n *hubNode) Consumer() <-chan raft.RPC          { return n.consumer }
func (n *hubNode) LocalAddr() raft.ServerAddress      { return raft.ServerAddress(n.address) }
func (n *hubNode) SetHeartbeatHandler(func(raft.RPC)) {}
func (n *hubNode) EncodePeer(_ raft.ServerID, address raft.ServerAddress) []byte {
	return []byte(address)
}
func (n *hubNode) DecodePeer(b []byte) raft.ServerAddress { return raft.ServerAddress(b) }

func (n *hubNode) AppendEntriesPipeline(id raft.ServerID, address raft.ServerAddress) (raft.AppendPipeline, error) {
	p := &hubPipeline{
		node: n, id: id, address: address, sent: make(chan *hubAppend, 2), answered: make(chan raft.AppendFuture, 2),
		closed: make(chan struct{}),
	}
	n.handling.Go(p.run)
	return p, nil
}

// hubPipeline sends messages one after the other without holding the sender.
type hubPipeline struct {
	node     *hubNode
	id       raft.ServerID
	address  raft.ServerAddress
	sent     chan *hubAppend
	answered chan raft.AppendFuture
	closed   chan struct{}
	once     sync.Once
}

type hubAppend struct {
	start    time.Time
	request  *raft.AppendEntriesRequest
	response *raft.AppendEntriesResponse
	err      error
}

func (a *hubAppend) Error() error                          { return a.err }
func (a *hubAppend) Start() time.Time                      { return a.start }
func (a *hubAppend) Request() *raft.AppendEntriesRequest   { return a.request }
func (a *hubAppend) Response() *raft.AppendEntriesResponse { return a.response }

func (p *hubPipeline) AppendEntries(a *raft.AppendEntriesRequest, r *raft.AppendEntriesResponse) (raft.AppendFuture, error) {
	copied := *a // the library reuses it
	one := &hubAppend{start: time.Now(), request: &copied, response: r}
	select {
	case p.sent <- one:
		return one, nil
	case <-p.closed:
		return nil, raft.ErrPipelineShutdown
	case <-p.node.closed:
		return nil, raft.ErrPipelineShutdown
	}
}

func (p *hubPipeline) Consumer() <-chan raft.AppendFuture { return p.answered }

func (p *hubPipeline) Close() error {
	p.once.Do(func() { close(p.closed) })
	return nil
}

func (p *hubPipeline) run() {
	for {
		select {
		case one := <-p.sent:
			one.err = p.node.send(p.id, p.address, one.request, one.response, nil)
			select {
			case p.answered <- one:
			case <-p.closed:
				return
			case <-p.node.closed:
				return
			}
		case <-p.closed:
			return
		case <-p.node.closed:
			return
		}
	}
}

func (n *hubNode) AppendEntries(id raft.ServerID, address raft.ServerAddress, a *raft.AppendEntriesRequest, r *raft.AppendEntriesResponse) error {
	copied := *a // the library reuses it
	return n.send(id, address, &copied, r, nil)
}

func (n *hubNode) RequestVote(id raft.ServerID, address raft.ServerAddress, a *raft.RequestVoteRequest, r *raft.RequestVoteResponse) error {
	return n.send(id, address, a, r, nil)
}

func (n *hubNode) RequestPreVote(id raft.ServerID, address raft.ServerAddress, a *raft.RequestPreVoteRequest, r *raft.RequestPreVoteResponse) error {
	return n.send(id, address, a, r, nil)
}

func (n *hubNode) InstallSnapshot(id raft.ServerID, address raft.ServerAddress, a *raft.InstallSnapshotRequest, r *raft.InstallSnapshotResponse, data io.Reader) error {
	return n.send(id, address, a, r, data)
}

func (n *hubNode) TimeoutNow(id raft.ServerID, address raft.ServerAddress, a *raft.TimeoutNowRequest, r *raft.TimeoutNowResponse) error {
	return n.send(id, address, a, r, nil)
}

// cluster is several members on a hub.
type cluster struct {
	t       *testing.T
	hub     *hub
	options Options // of all members but for identity
	members map[string]*Store
	dirs    map[string]string
}

// newCluster founds a cluster with the first member and adds the others.
func newCluster(t *testing.T, o Options, ids ...string) *cluster {
	t.Helper()
	c := &cluster{t: t, hub: newHub(), options: o, members: map[string]*Store{}, dirs: map[string]string{}}
	for i, id := range ids {
		c.open(id, addressOf(id), i > 0)
		if i > 0 {
			c.add(id)
		}
	}
	return c
}

func addressOf(id string) string { return id + ".test:6444" }

// open starts a member in the directory it had, if any.
func (c *cluster) open(id, address string, join bool, change ...func(*Options)) *Store {
	c.t.Helper()
	if c.dirs[id] == "" {
		c.dirs[id] = c.t.TempDir()
	}
	o := c.options
	o.Dir, o.MemberID, o.Address, o.Join, o.Network = c.dirs[id], id, address, join, c.hub.port(address)
	for _, f := range change {
		f(&o)
	}
	c.members[id] = openStore(c.t, o)
	return c.members[id]
}

// stop closes a member.
func (c *cluster) stop(id string) {
	c.t.Helper()
	if err := c.members[id].Close(); err != nil {
		c.t.Errorf("close %s: %v", id, err)
	}
	delete(c.members, id)
}

// add makes a running member part of the cluster and waits until it votes.
func (c *cluster) add(id string) {
	c.t.Helper()
	if err := c.leader().AddMember(c.t.Context(), id, c.members[id].options.Address); err != nil {
		c.t.Fatalf("add %s: %v", id, err)
	}
	c.eventually(id+" votes", func() bool {
		for _, m := range c.list() {
			if m.ID == id {
				return m.Voter
			}
		}
		return false
	})
}

// list is what the leader says of the members.
func (c *cluster) list() []Member {
	c.t.Helper()
	members, err := c.leader().Members(c.t.Context())
	if err != nil {
		c.t.Fatalf("members: %v", err)
	}
	return members
}

// leader waits for a member that leads.
func (c *cluster) leader() *Store {
	c.t.Helper()
	var leader *Store
	c.eventually("somebody leads", func() bool {
		for _, s := range c.members {
			if s.IsLeader() {
				leader = s
				return true
			}
		}
		return false
	})
	return leader
}

// follower is a running member which does not lead.
func (c *cluster) follower() *Store {
	c.t.Helper()
	leader := c.leader()
	for _, s := range c.members {
		if s != leader {
			return s
		}
	}
	c.t.Fatal("there is no follower")
	return nil
}

func (c *cluster) eventually(what string, condition func() bool) {
	c.t.Helper()
	testenv.Eventually(c.t, 30*time.Second, condition, "%s", what)
}

// agree waits until all running members have the same revision and content.
func (c *cluster) agree() {
	c.t.Helper()
	leader := c.leader()
	want := leader.Revision()
	for id, s := range c.members {
		c.eventually(id+" catches up", func() bool { return s.Revision() >= want })
	}
	content, err := leader.Range("", "", 0, want)
	if err != nil {
		c.t.Fatal(err)
	}
	for id, s := range c.members {
		got, err := s.Range("", "", 0, want)
		if err != nil || len(got.KVs) != len(content.KVs) {
			c.t.Fatalf("%s has %d keys at revision %d, %v; the leader %d", id, len(got.KVs), want, err, len(content.KVs))
		}
		for i, kv := range got.KVs {
			if !reflect.DeepEqual(kv, content.KVs[i]) {
				c.t.Errorf("%s has %+v, the leader %+v", id, kv, content.KVs[i])
			}
		}
	}
}
