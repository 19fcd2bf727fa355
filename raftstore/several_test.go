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
	"github.com/skiff-run/skiff/raftstore/storetest"
)

func newThree(t testing.TB, n int) []*raftstore.Store {
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
		s, err := raftstore.Open(t.Context(), raftstore.Options{
			Dir: t.TempDir(), MemberID: id, Address: addr, Join: i > 0, Network: ca.Network(t, id, l),
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
	return stores
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
