package simulation

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"
)

// Summary adds up the results of many runs. It is safe for concurrent use.
type Summary struct {
	mu     sync.Mutex // guards all below
	total  Result
	runs   int
	failed []uint64
	worst  time.Duration
	counts map[string]int
	rows   map[int]int // runs by number of members
}

// Add takes one run in.
func (s *Summary) Add(r *Result, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.counts == nil {
		s.counts, s.rows = map[string]int{}, map[int]int{}
	}
	s.runs++
	if err != nil {
		s.failed = append(s.failed, r.Config.Seed)
	}
	s.rows[r.Config.Members]++
	s.total.Virtual += r.Virtual
	s.total.Operations += r.Operations
	s.total.Unknown += r.Unknown
	s.total.Events += r.Events
	s.total.Revisions += r.Revisions
	s.total.Terms += r.Terms
	s.total.Faults += r.Faults
	s.total.Messages += r.Messages
	s.total.Snapshots += r.Snapshots
	s.total.Recovery = max(s.total.Recovery, r.Recovery)
	for what, n := range r.Counts {
		s.counts[what] += n
	}
}

// Faults is how many faults happened, Virtual how long the runs lasted.
func (s *Summary) Faults() int { return s.total.Faults }

// Virtual is the virtual time lived through.
func (s *Summary) Virtual() time.Duration { return s.total.Virtual }

// Operations is how many operations of clients were recorded and checked.
func (s *Summary) Operations() int { return s.total.Operations }

// String is a table for people.
func (s *Summary) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var b strings.Builder
	row := func(what string, value any) { fmt.Fprintf(&b, "  %-52s %12v\n", what, value) }
	row("runs with three members", s.rows[3])
	row("runs with five members", s.rows[5])
	row("runs with violations", fmt.Sprint(len(s.failed), s.failed))
	row("virtual time", s.total.Virtual.Round(time.Second))
	row("operations checked", s.total.Operations)
	row("  of them with an unknown outcome", s.total.Unknown)
	row("mutations in the logs", s.total.Revisions)
	row("events told to watchers and checked", s.total.Events)
	row("terms with a leader", s.total.Terms)
	row("messages between members", s.total.Messages)
	row("snapshots sent to members that were behind", s.total.Snapshots)
	row("longest wait for a write after the last heal", s.total.Recovery)
	row("faults", s.total.Faults)
	names := make([]string, 0, len(s.counts))
	for what := range s.counts {
		if what != "recovery ms" {
			names = append(names, what)
		}
	}
	slices.Sort(names)
	for _, what := range names {
		row("  "+what, s.counts[what])
	}
	return b.String()
}
