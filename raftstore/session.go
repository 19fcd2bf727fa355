package raftstore

import (
	"bufio"
	"slices"

	"github.com/skiff-run/skiff/raftstore/command"
	"github.com/skiff-run/skiff/raftstore/mvcc"
)

// maxSessions bounds how many origins are remembered. An origin is one run of
// one member, so this is a long row of restarts.
const maxSessions = 32

// session remembers the results of one origin which that origin has not
// acknowledged yet. When a batch is proposed again because its fate was
// unknown, its commands are answered from here instead of executed twice.
type session struct {
	acknowledged uint64
	lastIndex    uint64 // log index of the last batch, decides who is forgotten
	results      map[uint64]command.Result
}

// sessions is part of the replicated state: every member must decide alike
// which command is a repetition.
type sessions map[uint64]*session

// of returns the session of an origin, making room for a new one by forgetting
// the one silent for longest.
func (s sessions) of(origin, index uint64) *session {
	found := s[origin]
	if found == nil {
		if len(s) >= maxSessions {
			delete(s, s.oldest())
		}
		found = &session{results: map[uint64]command.Result{}}
		s[origin] = found
	}
	found.lastIndex = index
	return found
}

func (s sessions) oldest() uint64 {
	var origin, index uint64
	for o, candidate := range s {
		// Two sessions never share an index: an entry has one origin.
		if index == 0 || candidate.lastIndex < index {
			origin, index = o, candidate.lastIndex
		}
	}
	return origin
}

// acknowledge drops what the origin knows.
func (s *session) acknowledge(sequence uint64) {
	if sequence <= s.acknowledged {
		return
	}
	s.acknowledged = sequence
	for known := range s.results {
		if known <= sequence {
			delete(s.results, known)
		}
	}
}

// recall finds the result of a command that was executed before.
func (s *session) recall(sequence uint64) (command.Result, bool) {
	if sequence <= s.acknowledged {
		return command.Result{Outcome: command.Forgotten}, true
	}
	r, ok := s.results[sequence]
	return r, ok
}

// clone copies the sessions for a snapshot. They are small: an origin has at
// most its unanswered commands here.
func (s sessions) clone() sessions {
	c := make(sessions, len(s))
	for origin, old := range s {
		fresh := *old
		fresh.results = make(map[uint64]command.Result, len(old.results))
		for sequence, r := range old.results {
			fresh.results[sequence] = r
		}
		c[origin] = &fresh
	}
	return c
}

func (s sessions) encode(w *bufio.Writer) error {
	e := mvcc.NewEncoder(w)
	e.Uint(uint64(len(s)))
	for _, origin := range sortedKeys(s) {
		one := s[origin]
		e.Uint(origin)
		e.Uint(one.acknowledged)
		e.Uint(one.lastIndex)
		e.Uint(uint64(len(one.results)))
		for _, sequence := range sortedKeys(one.results) {
			r := one.results[sequence]
			e.Uint(sequence)
			e.Uint(uint64(r.Outcome))
			e.Uint(uint64(r.Revision))
			e.Uint(uint64(r.Count))
			encodeVersion(e, r.KV)
			encodeVersion(e, r.Prev)
		}
	}
	return e.Err()
}

func encodeVersion(e *mvcc.Encoder, kv *KeyValue) {
	if kv == nil {
		e.Uint(0)
		return
	}
	e.Uint(1)
	e.KeyValue(kv)
}

func decodeVersion(d *mvcc.Decoder) *KeyValue {
	if d.Uint() == 0 || d.Err() != nil {
		return nil
	}
	return d.KeyValue()
}

func decodeSessions(r *bufio.Reader) (sessions, error) {
	d := mvcc.NewDecoder(r)
	s := sessions{}
	for n := d.Uint(); n > 0 && d.Err() == nil; n-- {
		origin := d.Uint()
		one := &session{acknowledged: d.Uint(), lastIndex: d.Uint(), results: map[uint64]command.Result{}}
		for m := d.Uint(); m > 0 && d.Err() == nil; m-- {
			sequence := d.Uint()
			r := command.Result{Outcome: command.Outcome(d.Uint()), Revision: int64(d.Uint()), Count: int64(d.Uint())}
			r.KV, r.Prev = decodeVersion(d), decodeVersion(d)
			one.results[sequence] = r
		}
		s[origin] = one
	}
	return s, d.Err()
}

func sortedKeys[V any](m map[uint64]V) []uint64 {
	keys := make([]uint64, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}
