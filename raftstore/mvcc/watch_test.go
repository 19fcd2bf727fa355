package mvcc

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
)

func TestWatchDeliversEveryEventOnceInOrder(t *testing.T) {
	t.Parallel()
	const last = 20_000
	s := New()
	prefixes := []string{"", "/r/", "/r/pods/", "/r/nodes/", "/r/none/"}
	var wg sync.WaitGroup
	for i := range 10 {
		prefix := prefixes[i%len(prefixes)]
		w, err := s.Watch(prefix, 0)
		if err != nil {
			t.Fatal(err)
		}
		wg.Go(func() { follow(t, w, prefix, last) })
	}
	for i := int64(2); i <= last; i++ {
		key := fmt.Sprintf("/r/pods/p%d", i%50)
		switch i % 3 {
		case 1:
			key = fmt.Sprintf("/r/nodes/n%d", i%7)
		case 2:
			key = fmt.Sprintf("/q/x/%d", i)
		}
		s.Put(key, nil, AnyRevision, 0)
		if i%7 == 0 {
			s.Publish()
		}
	}
	s.Publish()
	wg.Wait()
}

// follow checks that a watcher sees exactly the revisions whose keys match.
func follow(t *testing.T, w *Watcher, prefix string, last int64) {
	var expect int64 = 2
	for expect <= last {
		events, progress, err := w.Next(context.Background())
		if err != nil {
			t.Errorf("watch %q: %v", prefix, err)
			return
		}
		for _, e := range events {
			for ; expect < e.Revision; expect++ {
				if expect%3 == 0 && strings.HasPrefix("/r/pods/p", prefix) || expect%3 == 1 && strings.HasPrefix("/r/nodes/n", prefix) ||
					expect%3 == 2 && strings.HasPrefix("/q/x/", prefix) {
					t.Errorf("watch %q skipped revision %d", prefix, expect)
				}
			}
			if e.Revision != expect || !strings.HasPrefix(e.KV.Key, prefix) || e.KV.ModRevision != e.Revision {
				t.Errorf("watch %q: event %+v, expected revision %d", prefix, e, expect)
				return
			}
			expect++
		}
		if progress < expect-1 {
			t.Errorf("watch %q: progress %d after revision %d", prefix, progress, expect-1)
			return
		}
		expect = progress + 1
	}
}

func TestWatchThatFellBehindCompaction(t *testing.T) {
	t.Parallel()
	s := New()
	w, err := s.Watch("/r/", 1)
	if err != nil {
		t.Fatal(err)
	}
	for range 2000 {
		s.Put("/r/a/k", nil, AnyRevision, 0)
	}
	s.Publish()
	events, progress, err := w.Next(context.Background())
	if err != nil || len(events) != maxEventsPerNext || progress != maxEventsPerNext+1 {
		t.Fatalf("%d events up to %d, %v", len(events), progress, err)
	}
	if err := s.Compact(progress); err != nil {
		t.Fatal(err)
	}
	s.Publish()
	if events, progress, err = w.Next(context.Background()); err != nil || events[0].Revision != maxEventsPerNext+2 || progress != 2001 {
		t.Fatalf("a compaction of what was delivered disturbed the watch: %v", err)
	}
	for range 100 {
		s.Put("/r/a/k", nil, AnyRevision, 0)
	}
	if err := s.Compact(2050); err != nil {
		t.Fatal(err)
	}
	s.Publish()
	if _, _, err = w.Next(context.Background()); !errors.Is(err, ErrCompacted) {
		t.Fatalf("missed events were not reported: %v", err)
	}
}

func TestWatchEnds(t *testing.T) {
	t.Parallel()
	s := New()
	w, _ := s.Watch("", 1)
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, _, err := w.Next(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	w.Close()
	w.Close()
	if _, _, err := w.Next(context.Background()); !errors.Is(err, ErrWatchClosed) {
		t.Errorf("closed: %v", err)
	}
}

func TestWatchUnderCompactionIsCompleteOrSaysSo(t *testing.T) {
	t.Parallel()
	s := New()
	const last = 30_000
	var wg sync.WaitGroup
	for range 6 {
		w, err := s.Watch("/r/", 1)
		if err != nil {
			t.Fatal(err)
		}
		wg.Go(func() {
			expect := int64(2)
			for expect <= last {
				events, progress, err := w.Next(context.Background())
				if errors.Is(err, ErrCompacted) {
					if v := s.View(); expect-1 >= v.CompactRevision() {
						t.Errorf("compacted up to %d, but the watch had seen %d", v.CompactRevision(), expect-1)
					}
					return
				}
				for _, e := range events {
					if e.Revision != expect {
						t.Errorf("revision %d instead of %d", e.Revision, expect)
						return
					}
					expect++
				}
				if progress != expect-1 {
					t.Errorf("progress %d after %d", progress, expect-1)
					return
				}
			}
		})
	}
	for i := int64(2); i <= last; i++ {
		s.Put("/r/a/k", nil, AnyRevision, 0)
		if i%5 == 0 {
			s.Publish()
		}
		if i%3000 == 0 {
			if err := s.Compact(i - 2500); err != nil {
				t.Fatal(err)
			}
		}
	}
	s.Publish()
	wg.Wait()
}
