package raftstore

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/skiff-run/skiff/raftstore/mvcc"
)

// Store is one member of the replicated store.
type Store struct {
	state *mvcc.State
	mu    sync.Mutex // serializes writers
}

// Open opens or makes the store in o.Dir.
func Open(ctx context.Context, o Options) (*Store, error) {
	if o.Dir == "" {
		return nil, fmt.Errorf("open store: Options.Dir is empty")
	}
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("open store %s: %w", o.Dir, err)
	}
	return &Store{state: mvcc.New()}, nil
}

// Close stops the store. It may be called more than once.
func (s *Store) Close() error { return nil }

// Put writes one key. It answers when the write is durable and applied here.
func (s *Store) Put(_ context.Context, r PutRequest) (PutResult, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var expires int64
	if r.TTLSeconds > 0 {
		expires = time.Now().Unix() + r.TTLSeconds
	}
	kv, prev, ok := s.state.Put(r.Key, r.Value, r.ExpectModRevision, expires)
	s.state.Publish()
	if !ok {
		prev = nil
	}
	return PutResult{Succeeded: ok, KV: kv, PrevKV: prev, Revision: s.state.Revision()}, nil
}

// Delete removes one key. It answers when the deletion is durable and applied
// here.
func (s *Store) Delete(_ context.Context, r DeleteRequest) (DeleteResult, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	prev, ok := s.state.Delete(r.Key, r.ExpectModRevision)
	s.state.Publish()
	return DeleteResult{Succeeded: ok, PrevKV: prev, Revision: s.state.Revision()}, nil
}

// Compact forgets the history up to and including rev. It consumes no
// revision.
func (s *Store) Compact(_ context.Context, rev int64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	defer s.state.Publish()
	return s.state.Compact(rev)
}

// ReadIndex returns a revision which includes every write that was answered
// anywhere before the call. It is applied here when ReadIndex returns.
func (s *Store) ReadIndex(context.Context) (int64, error) { return s.Revision(), nil }

// IsLeader reports whether this member leads and has applied everything its
// predecessors committed.
func (s *Store) IsLeader() bool { return true }

// Subscription tells one subscriber about leadership.
type Subscription struct {
	// C has the newest answer to "does this member lead"; the current one is
	// delivered at once. Intermediate answers may be skipped.
	C <-chan bool
	s *Store
}

// Subscribe starts a subscription of leadership.
func (s *Store) Subscribe() *Subscription {
	c := make(chan bool, 1)
	c <- true
	return &Subscription{C: c, s: s}
}

// Close ends the subscription.
func (*Subscription) Close() {}

// Ready returns nil once the local state has caught up with what was committed
// before the start, so that reads do not travel back in time.
func (s *Store) Ready() error { return nil }

// Health returns nil if the store can answer a linearizable read now.
func (s *Store) Health(ctx context.Context) error {
	_, err := s.ReadIndex(ctx)
	return err
}
