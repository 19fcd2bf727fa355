package raftstore

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

// quiet logs only what a test should not cause.
func quiet() *slog.Logger {
	return slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelError + 1}))
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

func TestWritesAnswerWhatHappened(t *testing.T) {
	t.Parallel()
	s := openStore(t, Options{})
	ctx := context.Background()
	created := mustPut(t, s, "/r/a/k", "1", 0)
	if !created.Succeeded || created.Revision != 2 || created.KV.ModRevision != 2 || created.PrevKV != nil {
		t.Errorf("create: %+v", created)
	}
	lost := mustPut(t, s, "/r/a/k", "2", 0)
	if lost.Succeeded || lost.KV != created.KV || lost.Revision != 2 {
		t.Errorf("lost create: %+v", lost)
	}
	missing := mustPut(t, s, "/r/a/none", "2", 9)
	if missing.Succeeded || missing.KV != nil {
		t.Errorf("update of nothing: %+v", missing)
	}
	updated := mustPut(t, s, "/r/a/k", "3", 2)
	if !updated.Succeeded || updated.PrevKV != created.KV || updated.Revision != 3 {
		t.Errorf("update: %+v", updated)
	}
	kept, err := s.Delete(ctx, DeleteRequest{Key: "/r/a/k", ExpectModRevision: 2})
	if err != nil || kept.Succeeded || kept.PrevKV != updated.KV {
		t.Errorf("lost delete: %+v, %v", kept, err)
	}
	gone, err := s.Delete(ctx, DeleteRequest{Key: "/r/a/k", ExpectModRevision: 3})
	if err != nil || !gone.Succeeded || gone.PrevKV != updated.KV || gone.Revision != 4 {
		t.Errorf("delete: %+v, %v", gone, err)
	}
	if none, err := s.Delete(ctx, DeleteRequest{Key: "/r/a/k", ExpectModRevision: AnyRevision}); err != nil || none.Succeeded || none.PrevKV != nil || none.Revision != 4 {
		t.Errorf("delete of nothing: %+v, %v", none, err)
	}
	if rev, err := s.ReadIndex(ctx); err != nil || rev != 4 {
		t.Errorf("read index %d, %v", rev, err)
	}
	if _, err := s.Put(ctx, PutRequest{Key: "/r/a/k", Value: make([]byte, MaxRequestBytes)}); !errors.Is(err, ErrTooLarge) {
		t.Errorf("too large: %v", err)
	}
	if r, err := s.Put(ctx, PutRequest{Key: "/r/a/big", Value: make([]byte, MaxRequestBytes-20)}); err != nil || !r.Succeeded {
		t.Errorf("just not too large: %+v, %v", r, err)
	}
	if err := s.Compact(ctx, 99); !errors.Is(err, ErrFutureRevision) {
		t.Errorf("compact the future: %v", err)
	}
	if err := errors.Join(s.Compact(ctx, 3), s.Compact(ctx, 3)); err != nil {
		t.Errorf("compact twice: %v", err)
	}
	if err := s.Compact(ctx, 2); !errors.Is(err, ErrCompacted) {
		t.Errorf("compact backwards: %v", err)
	}
	if s.CompactRevision() != 3 || s.Revision() != 5 {
		t.Errorf("compacted %d, revision %d", s.CompactRevision(), s.Revision())
	}
}

func TestRevisionsAreDenseUnderConcurrentWriters(t *testing.T) {
	t.Parallel()
	s := openStore(t, Options{SnapshotEntries: 50})
	w, err := s.Watch("", 0)
	if err != nil {
		t.Fatal(err)
	}
	const writers, each = 16, 200
	var mu sync.Mutex
	answered := map[int64]string{}
	var wg sync.WaitGroup
	for i := range writers {
		wg.Go(func() {
			for n := range each {
				key := fmt.Sprintf("/r/w%d/k", i%4) // writers of one key lose compares
				kv, _, _ := s.Get(key, 0)
				expect := int64(0)
				if kv != nil {
					expect = kv.ModRevision
				}
				if n%3 == 0 {
					expect = AnyRevision
				}
				value := fmt.Sprintf("%d-%d", i, n)
				r, err := s.Put(context.Background(), PutRequest{Key: key, Value: []byte(value), ExpectModRevision: expect})
				if err != nil {
					t.Error(err)
					return
				}
				if !r.Succeeded {
					continue
				}
				mu.Lock()
				if other, ok := answered[r.Revision]; ok {
					t.Errorf("revision %d was given to %s and %s", r.Revision, other, value)
				}
				answered[r.Revision] = value
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	last := s.Revision()
	if int(last-1) != len(answered) {
		t.Errorf("revision %d after %d successful writes", last, len(answered))
	}
	for progress := int64(1); progress < last; {
		events, p, err := w.Next(context.Background())
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range events {
			if want := answered[e.Revision]; e.Type != EventPut || string(e.KV.Value) != want {
				t.Fatalf("event %+v, the writer of revision %d was told of %s", e, e.Revision, want)
			}
		}
		progress = p
	}
}

func TestFilesArePrivate(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "a", "store")
	s := openStore(t, Options{Dir: dir, SnapshotEntries: 5})
	for range 30 {
		mustPut(t, s, "/r/a/k", "v", AnyRevision)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err == nil && info.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s has mode %v", path, info.Mode())
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestOpenRefusesWhatMakesNoSense(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s := openStore(t, Options{Dir: dir, MemberID: "one"})
	cases := []struct {
		name    string
		options Options
		want    string
	}{
		{"no directory", Options{}, "Dir is empty"},
		{"a negative bound", Options{Dir: dir, HistoryBytes: -1}, "HistoryBytes"},
		{"a tiny segment", Options{Dir: dir, SegmentSize: 5}, "SegmentSize"},
		{"a directory in use", Options{Dir: dir}, "another process"},
	}
	for _, c := range cases {
		c.options.Logger = quiet()
		if _, err := Open(context.Background(), c.options); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", c.name, err)
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(context.Background(), Options{Dir: dir, MemberID: "two", Logger: quiet()}); err == nil || !strings.Contains(err.Error(), `"one"`) {
		t.Errorf("another member's directory: %v", err)
	}
	if s := openStore(t, Options{Dir: dir}); s.Status().MemberID != "one" {
		t.Errorf("the identity was not kept: %+v", s.Status())
	}
}

func TestClosedStoreSaysSo(t *testing.T) {
	t.Parallel()
	s := openStore(t, Options{})
	leading := s.Subscribe()
	defer leading.Close()
	if !<-leading.C {
		t.Error("a lone member does not lead after Open")
	}
	if err := errors.Join(s.Ready(), s.Health(context.Background())); err != nil {
		t.Error(err)
	}
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for {
				_, err := s.Put(context.Background(), PutRequest{Key: "/r/a/k", ExpectModRevision: AnyRevision})
				if err == nil {
					continue
				}
				if !errors.Is(err, ErrClosed) && !errors.Is(err, ErrNotLeader) && !errors.Is(err, ErrOutcomeUnknown) {
					t.Errorf("while closing: %v", err)
				}
				return
			}
		})
	}
	if err := s.WaitRevision(context.Background(), 50); err != nil {
		t.Error(err)
	}
	if err := errors.Join(s.Close(), s.Close()); err != nil {
		t.Error(err)
	}
	wg.Wait()
	if <-leading.C {
		t.Error("the subscriber was not told of the end")
	}
	if _, err := s.Put(context.Background(), PutRequest{Key: "/r/a/k"}); !errors.Is(err, ErrClosed) {
		t.Errorf("put after close: %v", err)
	}
	if _, err := s.ReadIndex(context.Background()); err == nil {
		t.Error("read index after close")
	}
}

func TestCancelledWriteHasUnknownOutcome(t *testing.T) {
	t.Parallel()
	s := openStore(t, Options{})
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	for range 50 {
		_, err := s.Put(ctx, PutRequest{Key: "/r/a/k", ExpectModRevision: AnyRevision})
		if err != nil && !errors.Is(err, context.Canceled) {
			t.Fatalf("%v", err)
		}
	}
}
