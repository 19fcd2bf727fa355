package resilience

import (
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/skiff-run/skiff/raftstore/check"
)

// Record is what clients asked and were answered, with the revisions as the
// API gives them. It is safe for concurrent use until it is judged.
type Record struct {
	History check.History

	mu       sync.Mutex // guards all below
	events   map[int64]*check.Event
	watches  []*check.Watch
	disputes []error
	counts   map[string]map[outcome]int
	received int      // events, over all watches
	resumed  int      // watches that went on where another ended
	expired  []string // why watches had to begin anew
	lastAck  time.Time
	longest  map[string]time.Duration // the longest time without an acknowledged write, by what was going on
}

// NewRecord makes an empty record.
func NewRecord() *Record {
	return &Record{events: map[int64]*check.Event{}, counts: map[string]map[outcome]int{}, longest: map[string]time.Duration{}}
}

// count notes how a request ended.
func (r *Record) count(what string, result outcome) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.counts[what] == nil {
		r.counts[what] = map[outcome]int{}
	}
	r.counts[what][result]++
}

// acknowledged notes that a write was acknowledged now, while something was going on.
func (r *Record) acknowledged(during string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := time.Now()
	if !r.lastAck.IsZero() {
		r.longest[during] = max(r.longest[during], now.Sub(r.lastAck))
	}
	r.lastAck = now
}

// watching notes a new watch.
func (r *Record) watching(w *check.Watch, resumed bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.watches = append(r.watches, w)
	if resumed {
		r.resumed++
	}
}

// saw notes an event of a watch: all watches must tell the same of a revision.
func (r *Record) saw(w *check.Watch, e *check.Event) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.received++
	w.Responses = append(w.Responses, check.Response{Events: []*check.Event{e}})
	known := r.events[e.Revision]
	if known == nil {
		r.events[e.Revision] = e
		return
	}
	if known.Delete != e.Delete || known.Version.Key != e.Version.Key || known.Version.Value != e.Version.Value {
		r.disputes = append(r.disputes, fmt.Errorf("%s on %s saw %v, another watch saw %v", w.Client, w.Member, e, known))
	}
}

// progressed notes a bookmark of a watch.
func (r *Record) progressed(w *check.Watch, revision int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	w.Responses = append(w.Responses, check.Response{Progress: revision})
}

// ranks maps revisions, of which the workload causes only some, to a dense
// count of the workload's own mutations: the order stays, and an answer between
// two mutations has the rank of the one before.
type ranks []int64

// firstRank is the rank before the first mutation; 0 stays "unknown".
const firstRank = 1

func (r ranks) of(revision int64) int64 {
	if revision == 0 {
		return 0
	}
	n, exact := slices.BinarySearch(r, revision)
	if exact {
		n++
	}
	return firstRank + int64(n)
}

func (r ranks) is(revision int64) bool {
	_, exact := slices.BinarySearch(r, revision)
	return exact
}

func (r ranks) version(v *check.Version) *check.Version {
	if v == nil {
		return nil
	}
	ranked := *v
	ranked.ModRevision, ranked.CreateRevision = r.of(v.ModRevision), 0
	return &ranked
}

func (r ranks) event(e *check.Event) *check.Event {
	ranked := *e
	ranked.Revision, ranked.Version = r.of(e.Revision), *r.version(&e.Version)
	return &ranked
}
