package raftstore

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"
)

// Vitals tells a member that hangs from one that cannot work for other reasons:
// for the supervisor, which ends a process that hangs and starts it again. It
// keeps what it saw last. Its methods may be called from several goroutines.
type Vitals struct {
	store *Store

	// mu guards what follows.
	mu      sync.Mutex
	applied uint64
	moved   time.Time
}

// executing is how long committed entries may wait until one of them is
// executed: the longest is the installation of a snapshot.
const executing = 5 * time.Minute

// Vitals returns the member's.
func (s *Store) Vitals() *Vitals { return &Vitals{store: s} }

// Check returns an error when the member hangs: when raft's loop does not answer
// until ctx ends, or when nothing of what is committed was executed for minutes. To
// be without a leader, without a majority or with a disk that does not answer is no
// such error: a new start would change nothing, and a member that waits goes on
// by itself.
func (v *Vitals) Check(ctx context.Context) error {
	s := v.store
	if s.stalled.Load() != nil {
		return nil // raft's loop may wait for the disk
	}
	answered := make(chan struct{})
	go func() {
		// Whether this member leads is another question: any answer is one. With
		// none, the goroutine ends with raft, and that with the process.
		_ = s.raft.VerifyLeader().Error()
		close(answered)
	}()
	select {
	case <-answered:
	case <-ctx.Done():
		if s.stalled.Load() != nil {
			return nil
		}
		return fmt.Errorf("the store's raft does not answer: %w", context.Cause(ctx))
	}
	committed, applied := s.raft.CommitIndex(), s.raft.AppliedIndex()
	v.mu.Lock()
	defer v.mu.Unlock()
	now := time.Now()
	if applied != v.applied || applied >= committed || v.moved.IsZero() {
		v.applied, v.moved = applied, now
	}
	if now.Sub(v.moved) > executing {
		return errors.New("the store does not execute what is committed")
	}
	return nil
}
