package check

import (
	"fmt"
	"slices"
	"sort"
	"strings"
	"sync"
)

// Event is one mutation of the store.
type Event struct {
	Revision int64
	// Delete: the key was removed; Version then has only Key and, as
	// ModRevision, the revision of the removal.
	Delete  bool
	Version Version
	// Previous is the version before, nil for none. HasPrevious: the source told.
	Previous    *Version
	HasPrevious bool
	// Created: the source said that the key did not exist before. HasCreated:
	// the source told.
	Created, HasCreated bool
}

func (e *Event) String() string {
	if e.Delete {
		return fmt.Sprintf("delete %s@%d", e.Version.Key, e.Revision)
	}
	return "put " + e.Version.String()
}

// Log gathers the store's mutations from whoever saw them and notices when two
// witnesses disagree. It is safe for concurrent use until it is read.
type Log struct {
	first int64 // revision of the empty store

	mu      sync.Mutex // guards all below
	seen    map[int64]*Event
	witness map[int64]string
	wrong   violations

	once   sync.Once // makes all below, which then does not change
	events []*Event  // dense, the first has revision first+1
	after  []Version // what each event left, with its CreateRevision
	keys   map[string][]*Event
	values map[string][]*Event
	gap    error
}

// NewLog makes the log of a store that was empty at revision first.
func NewLog(first int64) *Log {
	return &Log{first: first, seen: map[int64]*Event{}, witness: map[int64]string{}, wrong: violations{name: "agreement on the log"}}
}

// Add tells the log what a witness saw.
func (l *Log) Add(witness string, e *Event) {
	l.mu.Lock()
	defer l.mu.Unlock()
	known := l.seen[e.Revision]
	if known == nil {
		l.seen[e.Revision], l.witness[e.Revision] = e, witness
		return
	}
	if known.Delete != e.Delete || !same(&known.Version, &e.Version) {
		l.wrong.add("%s saw %v, %s saw %v", l.witness[e.Revision], known, witness, e)
	}
}

// complete closes the log: it must have no gaps.
func (l *Log) complete() error {
	l.once.Do(func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.keys, l.values = map[string][]*Event{}, map[string][]*Event{}
		for r := l.first + 1; len(l.events) < len(l.seen); r++ {
			e := l.seen[r]
			if e == nil {
				l.gap = fmt.Errorf("log: nobody saw revision %d, although revisions up to %d were seen", r, slices.Max(revisions(l.seen)))
				return
			}
			left := e.Version
			left.CreateRevision = e.Revision
			if before := l.at(left.Key, r-1); before != nil {
				left.CreateRevision = before.CreateRevision
			}
			l.events, l.after = append(l.events, e), append(l.after, left)
			l.keys[e.Version.Key] = append(l.keys[e.Version.Key], e)
			if !e.Delete {
				l.values[e.Version.Value] = append(l.values[e.Version.Value], e)
			}
		}
	})
	if l.gap != nil {
		return l.gap
	}
	return l.wrong.err()
}

func revisions(m map[int64]*Event) []int64 {
	var r []int64
	for k := range m {
		r = append(r, k)
	}
	return r
}

// Last is the revision of the last mutation seen.
func (l *Log) Last() int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	last := l.first
	for r := range l.seen {
		last = max(last, r)
	}
	return last
}

// event returns the mutation of a revision, nil if there is none. The log is
// complete.
func (l *Log) event(revision int64) *Event {
	if n := revision - l.first - 1; n >= 0 && n < int64(len(l.events)) {
		return l.events[n]
	}
	return nil
}

// at is the version of a key after a revision, nil if it did not exist.
func (l *Log) at(key string, revision int64) *Version {
	events := l.keys[key]
	n := sort.Search(len(events), func(i int) bool { return events[i].Revision > revision })
	if n == 0 || events[n-1].Delete {
		return nil
	}
	return &l.after[events[n-1].Revision-l.first-1]
}

// list is what existed below a prefix after a revision, in key order.
func (l *Log) list(prefix string, revision int64) []*Version {
	var found []*Version
	for key := range l.keys {
		if strings.HasPrefix(key, prefix) {
			if v := l.at(key, revision); v != nil {
				found = append(found, v)
			}
		}
	}
	slices.SortFunc(found, func(a, b *Version) int { return strings.Compare(a.Key, b.Key) })
	return found
}
