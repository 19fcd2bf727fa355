package check

import (
	"errors"
	"fmt"
	"math"
	"strconv"
	"sync"
	"sync/atomic"
)

// Kind is what an operation asked for.
type Kind uint8

// The kinds of operations. Get and List are linearizable reads unless At is set.
const (
	Get Kind = iota + 1
	List
	Put
	Delete
)

// String names the kind.
func (k Kind) String() string {
	return [...]string{"?", "get", "list", "put", "delete"}[min(int(k), 4)]
}

// AnyRevision as an expected revision makes a write unconditional.
const AnyRevision int64 = -1

// Never is the return time of an operation whose outcome its client never
// learned: it may take effect at any later time.
const Never int64 = math.MaxInt64

// Version is one version of a key. Two are the same if all fields are that both
// sides know.
type Version struct {
	Key, Value string
	// ModRevision is the revision that wrote it.
	ModRevision int64
	// CreateRevision is the revision that made the key exist, 0 if the client
	// could not see it.
	CreateRevision int64
}

func (v *Version) String() string {
	if v == nil {
		return "nothing"
	}
	return fmt.Sprintf("%s=%s@%d", v.Key, brief(v.Value), v.ModRevision)
}

// brief quotes a value, or the beginning of a long one.
func brief(value string) string {
	const enough = 40
	if len(value) > enough {
		return fmt.Sprintf("%q and %d bytes more", value[:enough], len(value)-enough)
	}
	return strconv.Quote(value)
}

// same compares two versions, nil meaning no version.
func same(a, b *Version) bool {
	if a == nil || b == nil {
		return a == b
	}
	return a.Key == b.Key && a.Value == b.Value && a.ModRevision == b.ModRevision &&
		(a.CreateRevision == b.CreateRevision || a.CreateRevision == 0 || b.CreateRevision == 0)
}

// Operation is one request of a client and its answer. Reads that failed are not
// recorded, nor are writes that were certainly not made.
type Operation struct {
	Client, Member string // who asked whom, for messages
	Kind           Kind
	// Key is the key, or the prefix of a List.
	Key string
	// Value of a Put. No two Puts of a history have the same.
	Value string
	// Expect is the modification revision the key must have: 0 for none,
	// AnyRevision for whatever it has.
	Expect int64
	// At reads at an old revision; 0 is the newest.
	At int64

	// Call and Return order operations: one that returned before another was
	// called happened before it. Return is Never for unknown outcomes.
	Call, Return int64

	// Succeeded: the write was made. False if its compare failed.
	Succeeded bool
	// Revision is the revision of the write, or of the store that answered. 0
	// when the answer did not tell, as that of a read of one object over HTTP.
	Revision int64
	// Found is what a Get read, or what a failed write found; Previous what a
	// successful write replaced.
	Found, Previous *Version
	// Blind: the answer to a failed write told nothing of what it found.
	Blind bool
	// HasPrevious: the answer told Previous.
	HasPrevious bool
	// Listed is what a List read, in key order.
	Listed []*Version
}

func (o *Operation) mutates() bool { return o.Kind == Put || o.Kind == Delete }

func (o *Operation) String() string {
	s := fmt.Sprintf("%s by %s on %s: %s %s", "operation", o.Client, o.Member, o.Kind, o.Key)
	if o.Kind == Put {
		s += " value " + brief(o.Value)
	}
	if o.mutates() {
		s += fmt.Sprintf(" expecting %d", o.Expect)
	}
	if o.At != 0 {
		s += fmt.Sprintf(" at %d", o.At)
	}
	switch {
	case o.Return == Never:
		return s + " (outcome unknown)"
	case o.mutates() && o.Succeeded:
		return s + fmt.Sprintf(" made at revision %d, previous %v", o.Revision, o.Previous)
	case o.Kind == List:
		return s + fmt.Sprintf(" found %d keys, store at revision %d", len(o.Listed), o.Revision)
	}
	return s + fmt.Sprintf(" found %v, store at revision %d", o.Found, o.Revision)
}

// History records operations of many clients at once.
type History struct {
	clock atomic.Int64

	mu         sync.Mutex // guards operations
	operations []*Operation
}

// Now is the next moment of the history's clock. It counts calls, so of two
// moments one is always earlier.
func (h *History) Now() int64 { return h.clock.Add(1) }

// Add records an operation that has ended. Its Call came from Now; its Return
// is set here, unless it is Never.
func (h *History) Add(o *Operation) {
	if o.Return != Never {
		o.Return = h.Now()
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.operations = append(h.operations, o)
}

// Operations are all recorded so far, in no special order.
func (h *History) Operations() []*Operation {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.operations[:len(h.operations):len(h.operations)]
}

// maxReported bounds how many violations one checker tells.
const maxReported = 5

// violations gathers what a checker finds.
type violations struct {
	name  string
	found []error
	more  int
}

func (v *violations) add(format string, args ...any) {
	if len(v.found) == maxReported {
		v.more++
		return
	}
	v.found = append(v.found, fmt.Errorf("%s: %s", v.name, fmt.Sprintf(format, args...)))
}

func (v *violations) err() error {
	if v.more == 0 {
		return errors.Join(v.found...)
	}
	return errors.Join(append(v.found[:len(v.found):len(v.found)], fmt.Errorf("%s: and %d more", v.name, v.more))...)
}
