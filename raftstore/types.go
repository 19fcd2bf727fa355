package raftstore

import (
	"errors"

	"github.com/skiff-run/skiff/raftstore/mvcc"
)

// The vocabulary of the data model, see package mvcc.
type (
	// KeyValue is one immutable version of a key.
	KeyValue = mvcc.KeyValue
	// Event is one committed mutation.
	Event = mvcc.Event
	// EventType says what an Event did.
	EventType = mvcc.EventType
	// RangeResult answers Range.
	RangeResult = mvcc.RangeResult
	// Watcher is a cursor into the event history.
	Watcher = mvcc.Watcher
)

// The values of EventType.
const (
	EventPut    = mvcc.Put
	EventDelete = mvcc.Delete
)

// AnyRevision makes a write unconditional.
const AnyRevision = mvcc.AnyRevision

// Errors callers branch on; they arrive wrapped.
var (
	// ErrCompacted: the revision asked for is older than the history kept.
	ErrCompacted = mvcc.ErrCompacted
	// ErrFutureRevision: the revision asked for has not been applied here yet.
	ErrFutureRevision = mvcc.ErrFutureRevision
	// ErrWatchClosed: Next after Close.
	ErrWatchClosed = mvcc.ErrWatchClosed
	// ErrClosed: the store is closed or closing.
	ErrClosed = errors.New("store is closed")
	// ErrNotLeader: this member does not lead and the write was not made.
	ErrNotLeader = errors.New("this member is not the leader of the store")
	// ErrOutcomeUnknown: the write may or may not have been made.
	ErrOutcomeUnknown = errors.New("the outcome of the write is unknown")
	// ErrTooLarge: the request is larger than MaxRequestBytes.
	ErrTooLarge = errors.New("request is too large")
)

// MaxRequestBytes bounds key and value of one write, as etcd does.
const MaxRequestBytes = 3 << 19 // 1.5 MiB

// PutRequest writes one key.
type PutRequest struct {
	Key   string
	Value []byte
	// ExpectModRevision is the modification revision the key must have now: 0
	// means it must not exist, AnyRevision means whatever it has.
	ExpectModRevision int64
	// TTLSeconds deletes the key after so many seconds, 0 never does. A later
	// Put sets it anew.
	TTLSeconds int64
}

// PutResult answers a Put.
type PutResult struct {
	// Succeeded is false when the compare failed: nothing was written.
	Succeeded bool
	// KV is the new version, or the current one (nil if none) when the compare
	// failed.
	KV *KeyValue
	// PrevKV is the version before a successful write, nil if none.
	PrevKV *KeyValue
	// Revision is the revision of the write, or of the store when the compare
	// failed.
	Revision int64
}

// DeleteRequest removes one key.
type DeleteRequest struct {
	Key string
	// ExpectModRevision as in PutRequest; deleting needs the key to exist, so
	// 0 never succeeds.
	ExpectModRevision int64
}

// DeleteResult answers a Delete.
type DeleteResult struct {
	// Succeeded is false when the key did not exist or the compare failed.
	Succeeded bool
	// PrevKV is the version deleted, or the current one (nil if none) when the
	// delete did not succeed.
	PrevKV *KeyValue
	// Revision is the revision of the deletion, or of the store.
	Revision int64
}
