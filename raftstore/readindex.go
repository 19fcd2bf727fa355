package raftstore

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/hashicorp/raft"
)

// ReadIndex returns a revision which includes every write that was answered
// anywhere before the call. It is applied here when ReadIndex returns.
//
// A leader's word on what is committed is right if a majority of voters was
// still in its term at some moment after the call: a later leader would first
// have had to move one of them to its own term. So a leader asks voters for
// their term; a voter that asks the leader and is in the leader's term is a
// majority of three with it. raft's VerifyLeader is no such proof (it counts
// non-voters and takes replies that were under way before the call), and clocks
// are not asked.
func (s *Store) ReadIndex(ctx context.Context) (int64, error) {
	index, err := s.committed(ctx)
	if err == nil {
		err = s.fsm.index.wait(ctx, index, s.closing)
	}
	if err != nil {
		return 0, fmt.Errorf("read index: %w", err)
	}
	return s.Revision(), nil
}

// committed is a log index by which everything was committed that was answered
// before the call.
func (s *Store) committed(ctx context.Context) (uint64, error) {
	if err := ctx.Err(); err != nil {
		return 0, err
	}
	if s.removed.Load() {
		return 0, ErrRemoved
	}
	if s.raft.State() == raft.Leader {
		index, err := s.quorum.index(ctx)
		if !errors.Is(err, ErrNotLeader) {
			return index, err
		}
	}
	return s.reads.index(ctx)
}

// askCommitted is one round for the readers of this member: it asks the leader
// until one answers or patience ends.
func (s *Store) askCommitted(ctx context.Context) (uint64, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for {
		index, err := s.askCommittedOnce(ctx)
		if err == nil {
			return index, nil
		}
		select {
		case <-time.After(askAgain):
		case <-ctx.Done():
			if !errors.Is(err, ErrNotLeader) {
				err = fmt.Errorf("%w: %w", ErrNotLeader, err)
			}
			return 0, err
		}
	}
}

func (s *Store) askCommittedOnce(ctx context.Context) (uint64, error) {
	ctx, cancel := context.WithTimeout(ctx, roundTimeout)
	defer cancel()
	// The term is read before the question is sent: that this member was in it
	// counts from now on.
	term := s.raft.CurrentTerm()
	address, leader := s.raft.LeaderWithID()
	switch string(leader) {
	case "":
		return 0, ErrNotLeader
	case s.id.ID:
		return s.quorum.index(ctx)
	}
	answer, err := s.call(ctx, string(leader), string(address), callReadIndex, binary.AppendUvarint(nil, term))
	if err != nil {
		return 0, err
	}
	r := wireReader{b: answer}
	index := r.uint()
	return index, r.end()
}

// answerReadIndex is the leader's side of askCommitted.
func (s *Store) answerReadIndex(ctx context.Context, from string, body []byte) ([]byte, error) {
	r := wireReader{b: body}
	theirs := r.uint()
	if err := r.end(); err != nil {
		return nil, err
	}
	index, term, err := s.leadingCommitted()
	if err != nil {
		return nil, err
	}
	voters := s.voterSet()
	if confirmed := voters.confirmed(s.id.ID) + voters.confirmed(from); theirs != term || confirmed < voters.majority() {
		if index, err = s.quorum.index(ctx); err != nil {
			return nil, err
		}
	}
	return binary.AppendUvarint(nil, index), nil
}

// leadingCommitted is the commit index of this member as the leader of a term,
// and that term. Everything committed in earlier terms is covered, because an
// entry of the term, the epoch, was executed.
func (s *Store) leadingCommitted() (index, term uint64, err error) {
	term = s.raft.CurrentTerm()
	if s.raft.State() != raft.Leader || s.fsm.epoch.Load() != term {
		return 0, 0, ErrNotLeader
	}
	index = s.raft.CommitIndex()
	// Terms only grow: that index is no later leader's.
	if s.raft.CurrentTerm() != term || s.raft.State() != raft.Leader {
		return 0, 0, ErrNotLeader
	}
	return index, term, nil
}

// confirmLeading is one round for the readers of the leader: it asks the other
// voters for their term until a majority is in the leader's.
func (s *Store) confirmLeading(ctx context.Context) (uint64, error) {
	index, term, err := s.leadingCommitted()
	if err != nil {
		return 0, err
	}
	voters := s.voterSet()
	confirmed := voters.confirmed(s.id.ID)
	if confirmed >= voters.majority() {
		return index, nil
	}
	ctx, cancel := context.WithTimeout(ctx, roundTimeout)
	defer cancel()
	terms := make(chan uint64, len(voters))
	asked := 0
	for id, address := range voters {
		if id == s.id.ID {
			continue
		}
		asked++
		s.asking.Go(func() { terms <- s.askTerm(ctx, id, address) })
	}
	for ; asked > 0; asked-- {
		theirs := <-terms
		if theirs > term {
			break
		}
		if theirs == term {
			confirmed++
		}
		if confirmed >= voters.majority() {
			return index, nil
		}
	}
	return 0, fmt.Errorf("%w: a majority of voters does not confirm its term", ErrNotLeader)
}

// roundTimeout bounds one question about what is committed.
const roundTimeout = time.Second

// askTerm is the term another member is in, 0 if it does not say.
func (s *Store) askTerm(ctx context.Context, id, address string) uint64 {
	answer, err := s.call(ctx, id, address, callTerm, nil)
	if err != nil {
		return 0
	}
	r := wireReader{b: answer}
	term := r.uint()
	if r.end() != nil {
		return 0
	}
	return term
}

// answerTerm says which term this member is in. It was saved before it could be
// read, and no vote in a later one was given yet.
func (s *Store) answerTerm(context.Context, string, []byte) ([]byte, error) {
	return binary.AppendUvarint(nil, s.raft.CurrentTerm()), nil
}

// voterSet is the voters of a configuration: id and address.
type voterSet map[string]string

func (s *Store) voterSet() voterSet {
	voters := voterSet{}
	for _, server := range s.configuration().Servers {
		if server.Suffrage == raft.Voter {
			voters[string(server.ID)] = string(server.Address)
		}
	}
	return voters
}

func (v voterSet) majority() int { return len(v)/2 + 1 }

// confirmed is how much the member's word counts.
func (v voterSet) confirmed(id string) int {
	if _, votes := v[id]; votes {
		return 1
	}
	return 0
}

// catchUp makes the member ready once it has applied what was committed before
// it started.
func (s *Store) catchUp() {
	for !s.ready.Load() {
		if _, err := s.ReadIndex(s.ctx); err == nil {
			s.ready.Store(true)
			return
		}
		select {
		case <-time.After(askAgain):
		case <-s.closing:
			return
		}
	}
}

// Ready returns nil once the local state has caught up with what was committed
// before the start, so that reads do not travel back in time.
func (s *Store) Ready() error {
	if s.removed.Load() {
		return ErrRemoved
	}
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
