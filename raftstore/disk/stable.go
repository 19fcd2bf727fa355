package disk

import (
	"encoding/binary"
	"fmt"
	"sync"
)

// The keys under which raft keeps the term and the vote.
const (
	keyVoteTerm      = "LastVoteTerm"
	keyVoteCandidate = "LastVoteCand"
)

// Stable is raft's StableStore with an atomic vote.
//
// Raft writes a vote as two values, first the term, then the candidate. A crash
// between them leaves a member which believes it voted in the new term for the
// candidate of the old one (hashicorp/raft issue 661). So the term is only held
// here until the candidate arrives, and both go to disk in one write.
type Stable struct {
	values atomicValues
	guard  *Guard

	mu       sync.Mutex // guards heldTerm
	heldTerm []byte     // a vote's term whose candidate has not come yet
}

// atomicValues is a small durable map which can change several values at once.
type atomicValues interface {
	GetStable(key []byte) ([]byte, error)
	SetAll(values map[string][]byte) error
}

// Set implements raft.StableStore.
func (s *Stable) Set(key, value []byte) error {
	values := map[string][]byte{string(key): value}
	s.mu.Lock()
	defer s.mu.Unlock()
	if string(key) == keyVoteCandidate && s.heldTerm != nil {
		values[keyVoteTerm] = s.heldTerm
	}
	if err := s.values.SetAll(values); err != nil {
		// Raft panics when it cannot save its term, and must not go on with a
		// vote it may have forgotten.
		return s.guard.hold(fmt.Errorf("save %s: %w", key, err))
	}
	if string(key) == keyVoteCandidate {
		s.heldTerm = nil
	}
	return nil
}

// Get implements raft.StableStore: nil if the key was never set. A held term
// is not visible, because it is not true yet.
func (s *Stable) Get(key []byte) ([]byte, error) { return s.values.GetStable(key) }

// SetUint64 implements raft.StableStore.
func (s *Stable) SetUint64(key []byte, value uint64) error {
	encoded := binary.LittleEndian.AppendUint64(nil, value)
	if string(key) == keyVoteTerm {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.heldTerm = encoded
		return nil
	}
	return s.Set(key, encoded)
}

// GetUint64 implements raft.StableStore: 0 if the key was never set.
func (s *Stable) GetUint64(key []byte) (uint64, error) {
	encoded, err := s.Get(key)
	if err != nil || encoded == nil {
		return 0, err
	}
	if len(encoded) != 8 {
		return 0, fmt.Errorf("stable value %s has %d bytes instead of 8", key, len(encoded))
	}
	return binary.LittleEndian.Uint64(encoded), nil
}
