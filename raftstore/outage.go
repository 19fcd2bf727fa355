package raftstore

import (
	"context"
	"encoding/binary"
	"errors"
	"strconv"
	"time"

	"github.com/hashicorp/raft"
)

// When the leader is gone, raft waits until every follower's own timeout has
// passed, each drawn between one and two of them and armed anew up to that
// often; and a follower whose log is behind may ask first, be refused, and
// wait once more. The members of a store rather ask each other: if the leader
// does not answer, and a majority of voters has not heard of it, the one whose
// log is longest stands for election at once. Raft's own timers remain for what
// this cannot settle; terms, logs and votes are raft's, so nothing here decides
// what is safe.

const (
	// silencePart is the part of HeartbeatTimeout without a word of the leader
	// after which a member asks the others; heartbeats come each tenth to fifth.
	silencePart = 2.0 / 5
	// probePart bounds that question, likewise.
	probePart = 3.0 / 20
	// lookPart is how often a member looks while the leader is silent, likewise.
	lookPart = 1.0 / 20
)

// situation is what a voter thinks of the leader, and how long its log is.
type situation struct {
	leads     bool
	silent    bool // no leader was heard of for a while
	lastTerm  uint64
	lastIndex uint64
}

// better reports whether a log with these ends, of the member with this id,
// shall lead rather than another; the id only decides between equals.
func (a situation) better(b situation, id, other string) bool {
	switch {
	case a.lastTerm != b.lastTerm:
		return a.lastTerm > b.lastTerm
	case a.lastIndex != b.lastIndex:
		return a.lastIndex > b.lastIndex
	default:
		return id < other
	}
}

// shallStand decides whether a member with this situation shall stand for
// election, given what the other voters that answered say. The leader is known
// not to answer.
func shallStand(id string, own situation, others map[string]situation, majority int) bool {
	if !own.silent || own.leads {
		return false
	}
	silent := 1
	for other, s := range others {
		if s.leads {
			return false
		}
		if !s.silent {
			continue
		}
		silent++
		if s.better(own, other, id) {
			return false // that member will stand
		}
	}
	return silent >= majority
}

// watchOutage stands for election when the leader is gone and this member is
// who shall lead, until the store closes.
func (s *Store) watchOutage() {
	if s.options.Network == nil {
		return
	}
	for {
		pause := s.part(silencePart)
		if s.raft.State() != raft.Leader {
			pause = max(time.Until(s.raft.LastContact().Add(pause)), s.part(lookPart))
		}
		select {
		case <-time.After(pause):
		case id := <-s.gone:
			if !s.ended(id) {
				continue
			}
		case <-s.closing:
			return
		}
		if s.raft.State() != raft.Follower || !s.silent() || !s.outage() {
			continue
		}
		s.log.Info("the leader is gone, standing for election", "term", s.raft.CurrentTerm())
		s.transport.callElection()
		select { // raft's election takes its time
		case <-time.After(s.options.HeartbeatTimeout):
		case <-s.closing:
			return
		}
	}
}

// lost hears from the network that a connection of a member ended.
func (s *Store) lost(id string) {
	select {
	case s.gone <- id:
	default: // one is looked after already
	}
}

// ended reports, and remembers, that the process of a member which led has
// ended: its machine says that nobody listens at its port.
func (s *Store) ended(id string) bool {
	address, leader := s.raft.LeaderWithID()
	if string(leader) != id || id == s.id.ID {
		return false
	}
	heard := s.raft.LastContact()
	ctx, cancel := context.WithTimeout(s.ctx, s.part(probePart))
	defer cancel()
	for {
		_, err := s.askSituation(ctx, id, string(address))
		if errors.Is(err, ErrNobodyListens) {
			s.died.Store(&death{heard: heard})
			return true
		}
		if err == nil {
			return false
		}
		select { // other connections of a dead process end a moment later
		case <-time.After(s.part(lookPart) / 5):
		case <-ctx.Done():
			return false
		}
	}
}

// death says that the leader's process ended after this member last heard of
// a leader.
type death struct{ heard time.Time }

// silent reports that no leader was heard of for a while, or that its process
// has ended.
func (s *Store) silent() bool {
	if s.raft.State() == raft.Leader {
		return false
	}
	heard := s.raft.LastContact()
	if d := s.died.Load(); d != nil && d.heard.Equal(heard) {
		return true
	}
	return time.Since(heard) > s.part(silencePart)
}

// part is a part of HeartbeatTimeout.
func (s *Store) part(of float64) time.Duration {
	return time.Duration(float64(s.options.HeartbeatTimeout) * of)
}

// outage asks the leader and the other voters, and decides.
func (s *Store) outage() bool {
	voters := s.voterSet()
	if _, votes := voters[s.id.ID]; !votes || len(voters) == 1 {
		return false
	}
	ctx, cancel := context.WithTimeout(s.ctx, s.part(probePart))
	defer cancel()
	type answer struct {
		id string
		situation
		err error
	}
	answers := make(chan answer, len(voters))
	for id, address := range voters {
		if id != s.id.ID {
			s.asking.Go(func() {
				theirs, err := s.askSituation(ctx, id, address)
				answers <- answer{id, theirs, err}
			})
		}
	}
	others := map[string]situation{}
	for range len(voters) - 1 {
		a := <-answers
		if a.err != nil {
			continue
		}
		others[a.id] = a.situation
		if a.leads {
			return false
		}
	}
	// The leader may have spoken while the question was on its way.
	return shallStand(s.id.ID, s.situation(), others, voters.majority())
}

// situation describes this member.
func (s *Store) situation() situation {
	stats := s.raft.Stats()
	term, _ := strconv.ParseUint(stats["last_log_term"], 10, 64) // 0 is the least
	index, _ := strconv.ParseUint(stats["last_log_index"], 10, 64)
	return situation{leads: s.raft.State() == raft.Leader, silent: s.silent(), lastTerm: term, lastIndex: index}
}

func (s *Store) askSituation(ctx context.Context, id, address string) (situation, error) {
	answer, err := s.call(ctx, id, address, callSituation, nil)
	if err != nil {
		return situation{}, err
	}
	r := wireReader{b: answer}
	flags := r.uint()
	theirs := situation{leads: flags&1 != 0, silent: flags&2 != 0, lastTerm: r.uint(), lastIndex: r.uint()}
	return theirs, r.end()
}

// answerSituation is the other side of askSituation.
func (s *Store) answerSituation(context.Context, string, []byte) ([]byte, error) {
	if s.raft.State() == raft.Shutdown {
		return nil, errors.New("raft has ended")
	}
	own := s.situation()
	flags := uint64(0)
	if own.leads {
		flags |= 1
	}
	if own.silent {
		flags |= 2
	}
	b := binary.AppendUvarint(nil, flags)
	b = binary.AppendUvarint(b, own.lastTerm)
	return binary.AppendUvarint(b, own.lastIndex), nil
}
