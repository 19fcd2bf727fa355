package raftstore

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"
	"testing"
)

// quiet logs only what a test should not cause.
func quiet() *slog.Logger {
	return slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelError}))
}

// openStore opens a store that is closed with the test.
func openStore(t testing.TB, o Options) *Store {
	t.Helper()
	if o.Dir == "" {
		o.Dir = t.TempDir()
	}
	if o.Logger == nil {
		o.Logger = quiet()
	}
	if o.OnFatal == nil {
		o.OnFatal = func(err error) { t.Errorf("fatal: %v", err) }
	}
	s, err := Open(context.Background(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

func mustPut(t testing.TB, s *Store, key, value string, expect int64) PutResult {
	t.Helper()
	r, err := s.Put(context.Background(), PutRequest{Key: key, Value: []byte(value), ExpectModRevision: expect})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestReopenedStoreHasEverything(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := openStore(t, Options{Dir: dir})
	for i := range 100 {
		mustPut(t, s, fmt.Sprintf("/registry/pods/default/p%d", i%10), fmt.Sprint(i), AnyRevision)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = openStore(t, Options{Dir: dir})
	if got := s.Revision(); got != 101 {
		t.Fatalf("revision %d after reopening, want 101", got)
	}
	kv, _, err := s.Get("/registry/pods/default/p9", 0)
	if err != nil || kv == nil || string(kv.Value) != "99" || kv.Version != 10 {
		t.Fatalf("got %+v, %v", kv, err)
	}
	if r := mustPut(t, s, "/registry/pods/default/p9", "x", kv.ModRevision); !r.Succeeded || r.Revision != 102 {
		t.Fatalf("put after reopening: %+v", r)
	}
}

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
