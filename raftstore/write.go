package raftstore

import (
	"context"
	"fmt"
	"time"

	"github.com/skiff-run/skiff/raftstore/command"
)

// Put writes one key. It answers when the write is durable and applied here.
func (s *Store) Put(ctx context.Context, r PutRequest) (PutResult, error) {
	c := command.Command{Kind: command.Put, Key: r.Key, Value: r.Value, Expect: r.ExpectModRevision}
	if r.TTLSeconds > 0 {
		c.Kind, c.TTL = command.PutFor, r.TTLSeconds
	}
	result, err := s.write(ctx, c)
	if err != nil {
		return PutResult{}, fmt.Errorf("put %q: %w", r.Key, err)
	}
	return PutResult{Succeeded: result.Outcome == command.Done, KV: result.KV, PrevKV: result.Prev, Revision: result.Revision}, nil
}

// now is the member's wall clock, by which keys expire.
func (s *Store) now() time.Time {
	if now := s.fsm.parts.Now; now != nil {
		return now()
	}
	return time.Now()
}

// expiresAt is the first second by which the whole time to live has passed.
func expiresAt(from time.Time, ttl int64) int64 {
	return from.Add(time.Second-1).Unix() + ttl
}

// Delete removes one key. It answers when the deletion is durable and applied
// here.
func (s *Store) Delete(ctx context.Context, r DeleteRequest) (DeleteResult, error) {
	result, err := s.write(ctx, command.Command{Kind: command.Delete, Key: r.Key, Expect: r.ExpectModRevision})
	if err != nil {
		return DeleteResult{}, fmt.Errorf("delete %q: %w", r.Key, err)
	}
	if result.Outcome != command.Done {
		return DeleteResult{PrevKV: result.KV, Revision: result.Revision}, nil
	}
	return DeleteResult{Succeeded: true, PrevKV: result.Prev, Revision: result.Revision}, nil
}

// Compact forgets the history up to and including rev. It consumes no
// revision.
func (s *Store) Compact(ctx context.Context, rev int64) error {
	result, err := s.write(ctx, command.Command{Kind: command.Compact, Revision: rev})
	if err == nil {
		switch result.Outcome {
		case command.Compacted:
			err = ErrCompacted
		case command.Future:
			err = ErrFutureRevision
		}
	}
	if err != nil {
		return fmt.Errorf("compact at revision %d: %w", rev, err)
	}
	return nil
}

// write sends one command through the log.
func (s *Store) write(ctx context.Context, c command.Command) (command.Result, error) {
	if size := len(c.Key) + len(c.Value); size > MaxRequestBytes {
		return command.Result{}, fmt.Errorf("%w: %d bytes, the limit is %d", ErrTooLarge, size, MaxRequestBytes)
	}
	if s.removed.Load() {
		return command.Result{}, ErrRemoved
	}
	began := time.Now()
	result, err := s.proposer.propose(ctx, c)
	if err == nil {
		s.metrics.writes.Observe(time.Since(began).Seconds())
		if result.Outcome == command.Forgotten {
			err = ErrOutcomeUnknown
		}
	}
	return result, err
}
