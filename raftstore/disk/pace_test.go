package disk

import (
	"strings"
	"testing"
	"time"
)

func TestPace(t *testing.T) {
	t.Parallel()
	start := time.Unix(1_800_000_000, 0)
	repeat := func(n int, took time.Duration) (all []time.Duration) {
		for range n {
			all = append(all, took)
		}
		return all
	}
	cases := []struct {
		name    string
		writes  []time.Duration // one each 10 ms
		pending time.Duration   // a write under way since
		later   time.Duration   // how long nothing more happens
		want    string          // "" for healthy
	}{
		{"no write is healthy", nil, 0, 0, ""},
		{"quick writes are healthy", repeat(500, time.Millisecond), 0, 0, ""},
		{"one tardy write is a hiccup", append(repeat(50, time.Millisecond), 300*time.Millisecond), 0, 0, ""},
		{"one tardy write in a hundred is borne", append(repeat(1000, time.Millisecond), repeat(10, 300*time.Millisecond)...), 0, 0, ""},
		{"more than one tardy write in a hundred is slow", append(repeat(480, time.Millisecond), repeat(5, 300*time.Millisecond)...), 0, 0, "5 of 485 writes"},
		{"a single very slow write is slow", append(repeat(1000, time.Millisecond), 1100*time.Millisecond), 0, 0, "took 1.1s"},
		{"a write under way is quick at first", nil, 900 * time.Millisecond, 0, ""},
		{"a write under way becomes slow", nil, time.Second, 0, "under way for 1s"},
		{"slowness is remembered", repeat(20, 300*time.Millisecond), 0, 20 * time.Second, "20 of 20"},
		{"slowness is forgotten", repeat(20, 1500*time.Millisecond), 0, 31 * time.Second, ""},
	}
	for _, c := range cases {
		p := &Pace{TardyAfter: 200 * time.Millisecond, SlowAfter: time.Second}
		now := start
		for _, took := range c.writes {
			p.begin(now)
			now = now.Add(10 * time.Millisecond)
			p.end(now, took)
		}
		if c.pending > 0 {
			p.begin(now)
			now = now.Add(c.pending)
		}
		got := p.Slow(now.Add(c.later))
		if (got == "") != (c.want == "") || !strings.Contains(got, c.want) {
			t.Errorf("%s: %q", c.name, got)
		}
	}
}

// TestSlowDiskIsReported: while the write is under way, and when it was many.
func TestSlowDiskIsReported(t *testing.T) {
	t.Parallel()
	told := make(chan struct{}, 100)
	g := NewGuard(func(err error) { t.Errorf("fatal: %v", err) }, func(err error) { t.Errorf("stalled: %v", err) }, time.Minute)
	g.Pace = &Pace{TardyAfter: time.Nanosecond, SlowAfter: time.Millisecond}
	g.Slow = func() { told <- struct{}{} }
	release := make(chan struct{})
	done := make(chan error)
	go func() { done <- g.watchAppend("write", func() error { <-release; return nil }) }()
	<-told // the write has not come back
	close(release)
	if err := <-done; err != nil {
		t.Error(err)
	}
	g.Pace = &Pace{TardyAfter: time.Nanosecond, SlowAfter: time.Minute}
	for len(told) > 0 {
		<-told
	}
	for range minTardy {
		if err := g.watchAppend("write", func() error { time.Sleep(time.Microsecond); return nil }); err != nil {
			t.Error(err)
		}
	}
	if len(told) != 1 {
		t.Errorf("told %d times of %d tardy writes", len(told), minTardy)
	}
}
