package raftstore

import (
	"context"
	"errors"
	"fmt"

	"github.com/hashicorp/raft"
)

// ReadIndex returns a revision which includes every write that was answered
// anywhere before the call. It is applied here when ReadIndex returns.
//
// The answer of a leader is right if a majority of voters was still in its
// term at some moment after the call: a later leader would first have had to
// move one of them to its own term. raft's VerifyLeader is not that proof (it
// counts non-voters and takes replies that were under way before the call). A
// lone voter is its own majority, so its term decides.
func (s *Store) ReadIndex(ctx context.Context) (int64, error) {
	if err := ctx.Err(); err != nil {
		return 0, err
	}
	term := s.raft.CurrentTerm()
	if s.raft.State() != raft.Leader || s.fsm.epoch.Load() != term || !s.IsLeader() {
		return 0, fmt.Errorf("read index: %w", ErrNotLeader)
	}
	if err := s.confirmTerm(term); err != nil {
		return 0, fmt.Errorf("read index: %w", err)
	}
	return s.Revision(), nil
}

// confirmTerm proves that a majority of voters is in the term now.
func (s *Store) confirmTerm(term uint64) error {
	if s.raft.CurrentTerm() != term {
		return ErrNotLeader
	}
	if !s.alone() {
		return errors.New("this version can read consistently only while it is the only voter")
	}
	return nil
}

// Ready returns nil once the local state has caught up with what was committed
// before the start, so that reads do not travel back in time.
func (s *Store) Ready() error {
	if !s.ready.Load() {
		return errors.New("the store has not caught up since its start")
	}
	return nil
}

// Health returns nil if the store can answer a linearizable read now and its
// disk takes writes.
func (s *Store) Health(ctx context.Context) error {
	if err := s.guard.Failed(); err != nil {
		return fmt.Errorf("the store has failed: %w", err)
	}
	if err := s.stalled.Load(); err != nil {
		return *err
	}
	_, err := s.ReadIndex(ctx)
	return err
}
