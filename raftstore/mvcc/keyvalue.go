package mvcc

import "errors"

// AnyRevision as an expected modification revision makes a write
// unconditional.
const AnyRevision int64 = -1

// FirstRevision is the revision of an empty store. The first mutation has the
// next one.
const FirstRevision int64 = 1

var (
	// ErrCompacted means that the revision asked for is older than the history
	// kept.
	ErrCompacted = errors.New("the required revision has been compacted")
	// ErrFutureRevision means that the revision asked for has not happened yet
	// on this member.
	ErrFutureRevision = errors.New("the required revision is in the future")
)

// KeyValue is one version of one key. It is shared between the tree, the
// history and all readers: nobody may change it or its Value.
type KeyValue struct {
	Key   string
	Value []byte
	// CreateRevision is the revision which made the key exist, ModRevision the
	// one which wrote this version, Version counts the writes since creation.
	CreateRevision int64
	ModRevision    int64
	Version        int64
	// ExpiresAt is the second of the Unix clock after which the leader deletes
	// the key, 0 if it stays.
	ExpiresAt int64
}

// size is what a version weighs in the accounting of memory bounds.
func (kv *KeyValue) size() int64 { return int64(len(kv.Key)) + int64(len(kv.Value)) }

// EventType says what happened to a key.
type EventType uint8

// The two things that can happen to a key.
const (
	Put    EventType = 1
	Delete EventType = 2
)

// String names the type for logs and test failures.
func (t EventType) String() string {
	switch t {
	case Put:
		return "PUT"
	case Delete:
		return "DELETE"
	}
	return "UNKNOWN"
}

// Event is one committed mutation. Revisions are dense, so event n+1 follows
// event n with nothing in between.
type Event struct {
	Type EventType
	// KV is the new version. For a Delete it carries only the key and, as
	// ModRevision, the revision of the deletion.
	KV *KeyValue
	// PrevKV is the version before, nil when the key did not exist.
	PrevKV   *KeyValue
	Revision int64
}

// weight is what keeping the event costs beyond the live tree.
func (e *Event) weight() int64 {
	const overhead = 160 // the event, the KeyValue header and allocator slack
	w := int64(overhead)
	if e.PrevKV != nil {
		w += e.PrevKV.size()
	}
	return w
}
