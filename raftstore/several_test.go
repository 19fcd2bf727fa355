package raftstore_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/skiff-run/skiff/raftstore"
	"github.com/skiff-run/skiff/raftstore/storetest"
)

func put(t testing.TB, m *storetest.Member, key, value string) raftstore.PutResult {
	t.Helper()
	r, err := m.Put(t.Context(), raftstore.PutRequest{Key: key, Value: []byte(value), ExpectModRevision: raftstore.AnyRevision})
	if err != nil || !r.Succeeded {
		t.Fatalf("put %s at %s: %+v, %v", key, m.ID, r, err)
	}
	return r
}

func TestEveryMemberServes(t *testing.T) {
	t.Parallel()
	c := storetest.NewCluster(t, 3)
	ctx := t.Context()
	for i, m := range c.Members {
		key := fmt.Sprintf("/r/a/%d", i)
		created := put(t, m, key, "1")
		kv, _, err := m.Get(key, 0)
		if err != nil || kv == nil || kv.ModRevision != created.Revision {
			t.Errorf("%s does not read its own write: %+v, %v", m.ID, kv, err)
		}
		lost, err := m.Put(ctx, raftstore.PutRequest{Key: key, Value: []byte("2")})
		if err != nil || lost.Succeeded || lost.KV == nil || string(lost.KV.Value) != "1" {
			t.Errorf("create of what exists at %s: %+v, %v", m.ID, lost, err)
		}
		for _, other := range c.Members {
			revision, err := other.ReadIndex(ctx)
			if err != nil || revision < created.Revision {
				t.Errorf("read index at %s after a write at %s: %d of %d, %v", other.ID, m.ID, revision, created.Revision, err)
			}
			if kv, _, err := other.Get(key, 0); err != nil || kv == nil || string(kv.Value) != "1" {
				t.Errorf("%s after its read index: %+v, %v", other.ID, kv, err)
			}
			if err := other.Health(ctx); err != nil {
				t.Errorf("health of %s: %v", other.ID, err)
			}
			if status := other.Status(); status.LeaderID != c.Leader().ID || status.Voters != 3 {
				t.Errorf("status of %s: %+v", other.ID, status)
			}
		}
		if r, err := m.Delete(ctx, raftstore.DeleteRequest{Key: key, ExpectModRevision: created.Revision}); err != nil || !r.Succeeded {
			t.Errorf("delete at %s: %+v, %v", m.ID, r, err)
		}
		if err := m.Compact(ctx, created.Revision); err != nil {
			t.Errorf("compact at %s: %v", m.ID, err)
		}
		if err := m.Compact(ctx, created.Revision-1); !errors.Is(err, raftstore.ErrCompacted) {
			t.Errorf("compact what is compacted at %s: %v", m.ID, err)
		}
	}
}

// TestAnsweredWritesAreSeenEverywhere: whoever asks for a read index after a
// write was answered, on whatever member, reads it, under load.
func TestAnsweredWritesAreSeenEverywhere(t *testing.T) {
	t.Parallel()
	c := storetest.NewCluster(t, 3)
	var wg sync.WaitGroup
	for w := range 12 {
		wg.Go(func() {
			key := fmt.Sprintf("/r/a/%d", w)
			for i := range 40 {
				writer, reader := c.Members[(w+i)%3], c.Members[(w+i*7+1)%3]
				want := fmt.Sprint(i)
				put(t, writer, key, want)
				if _, err := reader.ReadIndex(t.Context()); err != nil {
					t.Errorf("read index at %s: %v", reader.ID, err)
					return
				}
				kv, _, err := reader.Get(key, 0)
				if err != nil || kv == nil || string(kv.Value) != want {
					t.Errorf("stale read at %s of a write at %s: %+v, want %s, %v", reader.ID, writer.ID, kv, want, err)
				}
			}
		})
	}
	wg.Wait()
}

// TestCreatesSurviveTheLeader: the leader dies under load. Each key is created
// once, by one writer at a member that lives on; so no create may be told that
// its key exists, and none may be lost.
func TestCreatesSurviveTheLeader(t *testing.T) {
	t.Parallel()
	c := storetest.NewCluster(t, 3)
	leader := c.Leader()
	var wg sync.WaitGroup
	var created, after atomic.Int64
	crashed := make(chan struct{})
	for w := range 16 {
		m := c.Followers()[w%2]
		wg.Go(func() {
			for i := 0; i < 2000 && after.Load() < 400; i++ {
				key := fmt.Sprintf("/r/w%d/%d", w, i)
				r, err := m.Put(t.Context(), raftstore.PutRequest{Key: key, Value: []byte(key)})
				if err != nil || !r.Succeeded {
					t.Errorf("create %s at %s: %+v, %v", key, m.ID, r, err)
					return
				}
				created.Add(1)
				select {
				case <-crashed:
					after.Add(1)
				default:
				}
			}
		})
	}
	if err := leader.WaitRevision(t.Context(), 500); err != nil {
		t.Fatal(err)
	}
	leader.Crash()
	close(crashed)
	wg.Wait()
	survivor := c.Leader()
	if survivor == leader {
		t.Fatal("the dead leader leads")
	}
	if n := survivor.Count("/r/"); n != created.Load() || after.Load() < 400 {
		t.Errorf("%d keys, %d were created, %d of them after the crash", n, created.Load(), after.Load())
	}

	// The dead member comes back and catches up before it calls itself ready.
	leader.Start()
	if leader.Ready() == nil && leader.Count("/r/") != created.Load() {
		t.Error("ready without what was committed before its start")
	}
	c.WaitVoters(3)
	if n := leader.Count("/r/"); n != created.Load() {
		t.Errorf("ready with %d keys of %d", n, created.Load())
	}
}

func TestMinorityRefuses(t *testing.T) {
	t.Parallel()
	c := storetest.NewCluster(t, 3)
	last := c.Members[2]
	put(t, last, "/r/a/k", "1")
	c.Members[0].Crash()
	c.Members[1].Crash()
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() {
		if _, err := last.ReadIndex(ctx); err == nil {
			t.Error("a consistent read without a majority")
		}
	})
	wg.Go(func() {
		r, err := last.Put(ctx, raftstore.PutRequest{Key: "/r/a/k", Value: []byte("2"), ExpectModRevision: raftstore.AnyRevision})
		if err == nil || r.Succeeded {
			t.Errorf("a write without a majority: %+v", r)
		}
		if !errors.Is(err, raftstore.ErrNotLeader) && !errors.Is(err, raftstore.ErrOutcomeUnknown) {
			t.Errorf("the write says %v", err)
		}
	})
	wg.Wait() // both give up by themselves
	cancel()
	if kv, _, err := last.Get("/r/a/k", 0); err != nil || string(kv.Value) != "1" {
		t.Errorf("what it knew is not readable: %+v, %v", kv, err)
	}
	c.Members[0].Start()
	put(t, last, "/r/a/k", "3")
	c.Members[1].Start()
}

func TestCloseHandsLeadershipOver(t *testing.T) {
	t.Parallel()
	c := storetest.NewCluster(t, 3)
	leader := c.Leader()
	subscription := leader.Subscribe()
	if !<-subscription.C {
		t.Fatal("the leader does not lead")
	}
	subscription.Settled()
	told := make(chan bool)
	go func() {
		leads := <-subscription.C
		// Nobody else may lead before this subscriber has settled.
		for _, m := range c.Members {
			if m != leader && m.IsLeader() {
				t.Errorf("%s leads while the work for the former leader goes on", m.ID)
			}
		}
		told <- leads
		subscription.Settled()
	}()
	stopped := make(chan struct{})
	go func() { defer close(stopped); leader.Stop() }()
	if <-told {
		t.Error("told of leadership at the end")
	}
	<-stopped
	if next := c.Leader(); next == leader {
		t.Error("the closed member leads")
	}
	put(t, c.Followers()[0], "/r/a/k", "1")
}

func BenchmarkThreeMembers(b *testing.B) {
	for _, at := range []string{"the leader", "a follower", "all"} {
		for _, writers := range []int{1, 64, 256} {
			b.Run(fmt.Sprintf("%d writers at %s", writers, at), func(b *testing.B) {
				c := storetest.NewCluster(b, 3)
				members := c.Members
				switch at {
				case "the leader":
					members = []*storetest.Member{c.Leader()}
				case "a follower":
					members = c.Followers()[:1]
				}
				value := make([]byte, 512)
				var wg sync.WaitGroup
				b.ResetTimer()
				for w := range writers {
					m := members[w%len(members)]
					wg.Go(func() {
						for i := w; i < b.N; i += writers {
							r := raftstore.PutRequest{Key: fmt.Sprintf("/registry/pods/default/p%d", i%5000), Value: value, ExpectModRevision: raftstore.AnyRevision}
							if _, err := m.Put(b.Context(), r); err != nil {
								b.Error(err)
								return
							}
						}
					})
				}
				wg.Wait()
				b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "puts/s")
			})
		}
	}
}

func BenchmarkReadIndex(b *testing.B) {
	c := storetest.NewCluster(b, 3)
	for name, m := range map[string]*storetest.Member{"the leader": c.Leader(), "a follower": c.Followers()[0]} {
		for _, readers := range []int{1, 64} {
			b.Run(fmt.Sprintf("%d readers at %s", readers, name), func(b *testing.B) {
				var wg sync.WaitGroup
				for w := range readers {
					wg.Go(func() {
						for i := w; i < b.N; i += readers {
							if _, err := m.ReadIndex(b.Context()); err != nil {
								b.Error(err)
								return
							}
						}
					})
				}
				wg.Wait()
				b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "reads/s")
			})
		}
	}
}

// BenchmarkFailover is the time from the end of the leader's process, as the
// others see it, to the next accepted write.
func BenchmarkFailover(b *testing.B) {
	for range b.N {
		b.StopTimer()
		c := storetest.NewCluster(b, 3)
		leader, survivor := c.Leader(), c.Followers()[0]
		put(b, survivor, "/r/a/k", "1")
		b.StartTimer()
		leader.Vanish()
		put(b, survivor, "/r/a/k", "2")
	}
}

// TestAMemberFarBehindCatchesUpWhileNothingIsWritten: raft's pipeline sends one
// message for each new entry, so a member that comes back to an idle cluster
// must be brought up to date before the pipeline begins.
func TestAMemberFarBehindCatchesUpWhileNothingIsWritten(t *testing.T) {
	t.Parallel()
	c := storetest.NewCluster(t, 3)
	leader, away := c.Leader(), c.Followers()[0]
	put(t, leader, "/r/a/before", "1")
	away.Crash()
	// One entry each: far more than fits into the messages of a few ticks.
	var last raftstore.PutResult
	for i := range 3500 {
		last = put(t, leader, fmt.Sprintf("/r/a/%d", i%100), "1")
	}
	away.Start()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	if err := away.WaitRevision(ctx, last.Revision); err != nil {
		t.Errorf("at revision %d of %d: %v", away.Revision(), last.Revision, err)
	}
}
