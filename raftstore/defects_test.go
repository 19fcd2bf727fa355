package raftstore

import (
	"context"
	"encoding/binary"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"

	"github.com/skiff-run/skiff/raftstore/command"
)

// The tests here first drive the bare library into its defect, and fail if it
// has become well-behaved; then they show that the store does not have it.

// heldTransport loses messages to some members, and holds the replies to
// heartbeats which the others have processed already.
type heldTransport struct {
	*raft.InmemTransport
	losing atomic.Pointer[func(to raft.ServerID, heartbeat bool) bool]
	tried  func(to raft.ServerID, lost bool) // of all but heartbeats
	// pipelines are allowed; what they carry is not lost.
	pipelines bool
	holding   atomic.Bool
	held      atomic.Int32
	release   chan struct{}
}

// lose decides from now on what is lost.
func (h *heldTransport) lose(which func(to raft.ServerID, heartbeat bool) bool) {
	h.losing.Store(&which)
}

func (h *heldTransport) AppendEntriesPipeline(id raft.ServerID, target raft.ServerAddress) (raft.AppendPipeline, error) {
	if h.pipelines {
		return h.InmemTransport.AppendEntriesPipeline(id, target)
	}
	return nil, raft.ErrPipelineReplicationNotSupported
}

func (h *heldTransport) AppendEntries(id raft.ServerID, target raft.ServerAddress, args *raft.AppendEntriesRequest, resp *raft.AppendEntriesResponse) error {
	if (*h.losing.Load())(id, isHeartbeat(args)) {
		return errors.New("lost")
	}
	err := h.InmemTransport.AppendEntries(id, target, args, resp)
	if isHeartbeat(args) && h.holding.Load() {
		h.held.Add(1)
		<-h.release
	}
	return err
}

// bareCluster is raft without anything of ours: the first leads.
func bareCluster(t *testing.T, servers ...raft.Server) (leader *raft.Raft, transport *heldTransport) {
	t.Helper()
	nodes, transport := bareClusterOn(t, nil, false, servers...)
	return nodes[0], transport
}

// bareClusterOn gives the leader our transport, if wrap makes one.
func bareClusterOn(t *testing.T, wrap func(Transport) *transport, pipelines bool, servers ...raft.Server) (nodes []*raft.Raft, lossy *heldTransport) {
	t.Helper()
	var ours *transport
	var inner []*raft.InmemTransport
	for i := range servers {
		_, tr := raft.NewInmemTransport(servers[i].Address)
		inner = append(inner, tr)
	}
	for _, a := range inner {
		for _, b := range inner {
			a.Connect(b.LocalAddr(), b)
		}
	}
	for i, server := range servers {
		c := raft.DefaultConfig()
		c.LocalID, c.Logger = server.ID, hclog.NewNullLogger()
		var tr raft.Transport = inner[i]
		if i == 0 {
			lossy = &heldTransport{
				InmemTransport: inner[0], release: make(chan struct{}), pipelines: pipelines,
			}
			lossy.lose(func(raft.ServerID, bool) bool { return false })
			tr = lossy
			if wrap != nil {
				ours = wrap(lossy)
				tr = ours
			}
		} else {
			c.HeartbeatTimeout, c.ElectionTimeout = time.Hour, time.Hour // only the first leads
		}
		logs, snapshots := raft.NewInmemStore(), raft.NewInmemSnapshotStore()
		if err := raft.BootstrapCluster(c, logs, logs, snapshots, tr, raft.Configuration{Servers: servers}); err != nil {
			t.Fatal(err)
		}
		machine := newFSM()
		if i == 0 && ours != nil {
			machine.committed = ours.notices.committed
		}
		r, err := raft.NewRaft(c, machine, logs, logs, snapshots, tr)
		if err != nil {
			t.Fatal(err)
		}
		nodes = append(nodes, r)
		if i == 0 && ours != nil {
			ours.attach(r)
		}
	}
	t.Cleanup(func() {
		for _, r := range nodes {
			if err := r.Shutdown().Error(); err != nil {
				t.Error(err)
			}
		}
	})
	for nodes[0].State() != raft.Leader {
		time.Sleep(10 * time.Millisecond) // virtual
	}
	time.Sleep(time.Second)
	return nodes, lossy
}

func server(id string, suffrage raft.ServerSuffrage) raft.Server {
	return raft.Server{ID: raft.ServerID(id), Address: raft.ServerAddress(id), Suffrage: suffrage}
}

// TestH5NonVotersConfirmNobody: a leader that reaches only a non-voter may have
// a successor.
func TestH5NonVotersConfirmNobody(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		leader, transport := bareCluster(t, server("a", raft.Voter), server("b", raft.Voter), server("c", raft.Voter), server("d", raft.Nonvoter))
		transport.lose(func(to raft.ServerID, _ bool) bool { return to != "d" })
		if err := leader.VerifyLeader().Error(); err != nil {
			t.Errorf("the bare library knows better by itself: %v", err)
		}
	})

	c := newCluster(t, Options{}, "a", "b", "c")
	old := c.leader()
	term := binary.AppendUvarint(nil, old.raft.CurrentTerm())
	if _, err := old.answerReadIndex(t.Context(), "b", term); err != nil {
		t.Fatalf("a voter in the leader's term: %v", err)
	}
	c.hub.isolate(old.id.ID, true)
	if answer, err := old.answerReadIndex(t.Context(), "somebody without a vote", term); err == nil {
		t.Errorf("a leader nobody with a vote confirms answered %v", answer)
	}
	c.hub.isolate(old.id.ID, false)
}

// TestH6RepliesUnderWayConfirmNothing: what was sent before a question proves
// nothing after it.
func TestH6RepliesUnderWayConfirmNothing(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		leader, transport := bareCluster(t, server("a", raft.Voter), server("b", raft.Voter), server("c", raft.Voter))
		transport.holding.Store(true)
		for transport.held.Load() < 2 {
			time.Sleep(time.Millisecond)
		}
		// From here on the leader reaches nobody. Whatever happens at the others
		// now, replies to what they said before are under way.
		transport.lose(func(raft.ServerID, bool) bool { return true })
		verified := leader.VerifyLeader()
		synctest.Wait()
		transport.holding.Store(false)
		close(transport.release)
		if err := verified.Error(); err != nil {
			t.Errorf("the bare library knows better by itself: %v", err)
		}
	})

	// Ours: who asks while a round is under way gets the answer of the next.
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		release := make(chan struct{})
		var asked atomic.Uint64
		r := &reads{ctx: ctx, kick: make(chan struct{}, 1), ask: func(context.Context) (uint64, error) {
			n := asked.Add(1)
			if n == 1 {
				<-release
			}
			return n, nil
		}}
		var wg sync.WaitGroup
		wg.Go(r.run)
		reader := func(want uint64) {
			if got, err := r.index(ctx); err != nil || got != want {
				t.Errorf("answered by round %d, want %d: %v", got, want, err)
			}
		}
		var readers sync.WaitGroup
		readers.Go(func() { reader(1) })
		synctest.Wait() // its question is under way
		for range 20 {
			readers.Go(func() { reader(2) })
		}
		synctest.Wait()
		close(release)
		readers.Wait()
		if asked.Load() != 2 {
			t.Errorf("%d rounds for 21 readers", asked.Load())
		}
		cancel()
		wg.Wait()
	})
}

// TestOldLeaderDoesNotConfirmItself: a leader which was cut off and has a
// successor must not answer a consistent read, however sure raft is.
func TestOldLeaderDoesNotConfirmItself(t *testing.T) {
	t.Parallel()
	c := newCluster(t, Options{}, "a", "b", "c")
	old := c.leader()
	mustPut(t, old, "/r/a/k", "old", AnyRevision)
	c.hub.isolate(old.id.ID, true)
	var other *Store
	c.eventually("another member leads", func() bool {
		for _, s := range c.members {
			if s != old && s.IsLeader() {
				other = s
			}
		}
		return other != nil
	})
	written := mustPut(t, other, "/r/a/k", "new", AnyRevision)
	ctx, cancel := context.WithCancel(t.Context())
	answered := make(chan error, 1)
	go func() {
		revision, err := old.ReadIndex(ctx)
		if err == nil && revision < written.Revision {
			t.Errorf("a consistent read at revision %d after a write at %d", revision, written.Revision)
		}
		answered <- err
	}()
	c.hub.isolate(old.id.ID, false) // now it can be answered, by the new leader
	if err := <-answered; err != nil {
		t.Errorf("read index after the cut has healed: %v", err)
	}
	cancel()
}

// TestMemberThatIsBackIsSpokenToAtOnce: raft doubles its pause after each
// failure, up to ten seconds; our transport repeats the message itself.
func TestMemberThatIsBackIsSpokenToAtOnce(t *testing.T) {
	t.Parallel()
	silence := func(wrap func(Transport) *transport) (pause time.Duration) {
		synctest.Test(t, func(t *testing.T) {
			nodes, bare := bareClusterOn(t, wrap, false, server("a", raft.Voter), server("b", raft.Voter), server("c", raft.Voter))
			var tried atomic.Int64
			var away, reached atomic.Bool
			away.Store(true)
			bare.lose(func(to raft.ServerID, heartbeat bool) bool {
				if to != "c" {
					return false
				}
				if !heartbeat {
					tried.Add(1)
					reached.Store(!away.Load())
				}
				return away.Load()
			})
			batch := command.Batch{Origin: 1, Commands: []command.Command{{Kind: command.Epoch, Sequence: 1}}}
			for range 60 {
				if err := nodes[0].Apply(batch.Encode(nil), 0).Error(); err != nil {
					t.Fatal(err)
				}
				time.Sleep(time.Second)
			}
			for before := tried.Load(); tried.Load() == before; { // so that a pause has just begun
				time.Sleep(time.Millisecond)
			}
			began := time.Now()
			away.Store(false)
			for !reached.Load() {
				time.Sleep(time.Millisecond)
			}
			pause = time.Since(began)
		})
		return pause
	}
	if pause := silence(nil); pause < 5*time.Second {
		t.Errorf("the bare library speaks again after %s by itself", pause)
	}
	if pause := silence(ourTransport); pause > 2*retryPause {
		t.Errorf("the leader speaks again after %s", pause)
	}
}

// ourTransport is newTransport for members of one cluster.
func ourTransport(inner Transport) *transport { return newTransport(inner, oneCluster, nil) }

// TestFollowersHearOfCommitsAtOnce: the bare library tells them by a timer.
func TestFollowersHearOfCommitsAtOnce(t *testing.T) {
	t.Parallel()
	delay := func(wrap func(Transport) *transport) (worst time.Duration) {
		synctest.Test(t, func(t *testing.T) {
			nodes, _ := bareClusterOn(t, wrap, true, server("a", raft.Voter), server("b", raft.Voter), server("c", raft.Voter))
			batch := command.Batch{Origin: 1, Commands: []command.Command{{Kind: command.Epoch, Sequence: 1}}}
			for range 50 {
				future := nodes[0].Apply(batch.Encode(nil), 0)
				if err := future.Error(); err != nil {
					t.Fatal(err)
				}
				began := time.Now()
				for synctest.Wait(); nodes[1].CommitIndex() < future.Index() || nodes[2].CommitIndex() < future.Index(); {
					time.Sleep(time.Millisecond)
				}
				worst = max(worst, time.Since(began))
				time.Sleep(time.Second)
			}
		})
		return worst
	}
	if d := delay(nil); d == 0 {
		t.Error("the bare library tells of commits at once by itself")
	}
	if d := delay(ourTransport); d != 0 {
		t.Errorf("a follower heard of a commit %s later", d)
	}
}
