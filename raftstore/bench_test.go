package raftstore

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/skiff-run/skiff/raftstore/mvcc"
)

func BenchmarkPut(b *testing.B) {
	for _, writers := range []int{1, 8, 64, 256} {
		b.Run(fmt.Sprintf("%d writers", writers), func(b *testing.B) {
			s := openStore(b, Options{Logger: slog.New(slog.DiscardHandler)})
			value := make([]byte, 512)
			var next atomic.Int64
			var wg sync.WaitGroup
			b.ResetTimer()
			for range writers {
				wg.Go(func() {
					for i := next.Add(1); i <= int64(b.N); i = next.Add(1) {
						key := fmt.Sprintf("/registry/pods/default/p%d", i%5000)
						if _, err := s.Put(context.Background(), PutRequest{Key: key, Value: value, ExpectModRevision: AnyRevision}); err != nil {
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

// filled is a store's state with n keys of 512 bytes in one directory.
func filled(n int) *mvcc.State {
	s := mvcc.New()
	for i := range n {
		s.Put(fmt.Sprintf("/registry/pods/ns%d/p%d", i%100, i), make([]byte, 512), 0, 0)
	}
	s.Publish()
	return s
}

func BenchmarkRead(b *testing.B) {
	s := filled(100_000)
	v := s.View()
	b.Run("get", func(b *testing.B) {
		b.ReportAllocs()
		for i := range b.N {
			if kv, err := v.Get("/registry/pods/ns50/p4750", 0); err != nil || kv == nil {
				b.Fatal(i, err)
			}
		}
	})
	b.Run("page of 500", func(b *testing.B) {
		for range b.N {
			if r, err := v.Range("/registry/pods/", "/registry/pods/ns50/", 500, 0); err != nil || len(r.KVs) != 500 {
				b.Fatal(err)
			}
		}
	})
	b.Run("page of 500 at a revision 1,000 back", func(b *testing.B) {
		for range b.N {
			if r, err := v.Range("/registry/pods/", "/registry/pods/ns50/", 500, v.Revision()-1000); err != nil || len(r.KVs) != 500 {
				b.Fatal(err)
			}
		}
	})
	b.Run("count of a namespace", func(b *testing.B) {
		for range b.N {
			if n := v.Count("/registry/pods/ns50/"); n != 1000 {
				b.Fatal(n)
			}
		}
	})
}

func BenchmarkApply(b *testing.B) {
	for _, batch := range []int{1, 16} {
		b.Run(fmt.Sprintf("published each %d", batch), func(b *testing.B) {
			s := filled(100_000)
			value := make([]byte, 512)
			b.ReportAllocs()
			b.ResetTimer()
			for i := range b.N {
				s.Put(fmt.Sprintf("/registry/pods/ns%d/p%d", i%100, (i*7919)%100_000), value, mvcc.AnyRevision, 0)
				if i%batch == 0 {
					s.Publish()
				}
				if i%20_000 == 19_999 {
					if err := s.Compact(s.Revision() - 10_000); err != nil {
						b.Fatal(err)
					}
				}
			}
		})
	}
}

func BenchmarkWatchers(b *testing.B) {
	for _, watchers := range []int{1, 60} {
		b.Run(fmt.Sprintf("%d watchers", watchers), func(b *testing.B) {
			s := mvcc.New()
			ctx, cancel := context.WithCancel(context.Background())
			var wg sync.WaitGroup
			for i := range watchers {
				w, err := s.Watch(fmt.Sprintf("/registry/r%d/", i), 1)
				if err != nil {
					b.Fatal(err)
				}
				wg.Go(func() {
					for {
						if _, progress, err := w.Next(ctx); err != nil || progress >= int64(b.N)+1 {
							return
						}
					}
				})
			}
			for i := range b.N {
				s.Put("/registry/r0/k", nil, mvcc.AnyRevision, 0)
				s.Publish()
				if i%10_000 == 9_999 {
					if err := s.WaitRevision(ctx, s.Revision()); err != nil {
						b.Fatal(err)
					}
				}
			}
			wg.Wait()
			cancel()
		})
	}
}
