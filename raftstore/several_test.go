package raftstore_test

import (
	"fmt"
	"log/slog"
	"net"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"github.com/skiff-run/skiff/raftstore"
	"github.com/skiff-run/skiff/raftstore/peer"
	"github.com/skiff-run/skiff/raftstore/storetest"
)

func newThree(t testing.TB, n int) []*raftstore.Store {
	stores, _ := newThreeNets(t, n)
	return stores
}

func newThreeNets(t testing.TB, n int) ([]*raftstore.Store, []*peer.Network) {
	var nets []*peer.Network
	ca := storetest.NewAuthority(t)
	level := slog.LevelError + 1
	if os.Getenv("LOUD") != "" {
		level = slog.LevelDebug
	}
	var stores []*raftstore.Store
	for i := range n {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		id := fmt.Sprintf("m%d", i+1)
		addr := l.Addr().String()
		nets = append(nets, ca.Network(t, id, l))
		s, err := raftstore.Open(t.Context(), raftstore.Options{
			Dir: t.TempDir(), MemberID: id, Address: addr, Join: i > 0, Network: nets[i],
			Logger:  slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: level})),
			OnFatal: func(err error) { t.Errorf("fatal: %v", err) },
		})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := s.Close(); err != nil {
				t.Error(err)
			}
		})
		stores = append(stores, s)
		if i > 0 {
			if err := stores[0].Raft().AddVoter(raft.ServerID(id), raft.ServerAddress(addr), 0, time.Minute).Error(); err != nil {
				t.Fatal(err)
			}
		}
	}
	return stores, nets
}

func TestThree(t *testing.T) {
	stores := newThree(t, 3)
	for i := range 30 {
		for j, s := range stores {
			r, err := s.Put(t.Context(), raftstore.PutRequest{Key: fmt.Sprintf("/r/a/%d-%d", i, j), Value: []byte("x")})
			if err != nil || !r.Succeeded {
				t.Fatal(i, j, err, r)
			}
			kv, _, _ := s.Get(fmt.Sprintf("/r/a/%d-%d", i, j), 0)
			if kv == nil {
				t.Error("cannot read own write")
			}
			rev, err := s.ReadIndex(t.Context())
			if err != nil || rev < r.Revision {
				t.Error(rev, err)
			}
		}
	}
}

func BenchmarkThree(b *testing.B) {
	for _, at := range []string{"leader", "follower", "all"} {
		for _, writers := range []int{1, 64, 256} {
			b.Run(fmt.Sprintf("%d writers at %s", writers, at), func(b *testing.B) {
				stores := newThree(b, 3)
				pick := func(i int) *raftstore.Store {
					switch at {
					case "leader":
						return stores[0]
					case "follower":
						return stores[1]
					}
					return stores[i%3]
				}
				value := make([]byte, 512)
				var wg sync.WaitGroup
				b.ResetTimer()
				for w := range writers {
					wg.Go(func() {
						for i := w; i < b.N; i += writers {
							if _, err := pick(w).Put(b.Context(), raftstore.PutRequest{Key: fmt.Sprintf("/registry/pods/default/p%d", i%5000), Value: value, ExpectModRevision: raftstore.AnyRevision}); err != nil {
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

// BenchmarkFailover is the time from the end of the leader's process, as the
// others see it, to the next accepted write.
func BenchmarkFailover(b *testing.B) {
	for range b.N {
		b.StopTimer()
		stores, nets := newThreeNets(b, 3)
		for i := range 20 {
			if _, err := stores[i%3].Put(b.Context(), raftstore.PutRequest{Key: "/r/a/k", ExpectModRevision: raftstore.AnyRevision}); err != nil {
				b.Fatal(err)
			}
		}
		b.StartTimer()
		if err := nets[0].Close(); err != nil {
			b.Fatal(err)
		}
		if _, err := stores[1].Put(b.Context(), raftstore.PutRequest{Key: "/r/a/k", ExpectModRevision: raftstore.AnyRevision}); err != nil {
			b.Error(err)
		}
	}
}
