package raftstore

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/hashicorp/raft"
)

const (
	// stewardPace is how often the steward looks again while it has work.
	stewardPace = 200 * time.Millisecond
	// lonelyAfter is how long a member hears of no leader before it asks around
	// whether it is still a member.
	lonelyAfter = 2 * time.Second
	// handoverPause is how long a member with a slow disk that leads again keeps
	// leadership: if all disks are slow, handing it round helps nobody.
	handoverPause = time.Minute
	// farewell is how long the leader tries to tell a member that it was removed.
	farewell = time.Minute
)

// steward looks after membership. On the leader it promotes members that have
// caught up, tells removed members, and hands leadership over when the disk is
// slow; on the others it announces a changed address and finds out whether this
// member was removed. It decides from what it observes, so whoever leads goes on
// where the former leader stopped. Without work it sleeps without a timer.
type steward struct {
	store *Store
	kick  chan struct{}

	mu      sync.Mutex // guards all below
	removed map[raft.ServerID]parting
	doubt   bool // somebody says that this member was removed

	// run only:
	noted       []raft.Server            // the members written down last
	lonelySince time.Time                // zero while a leader is known
	handedOver  time.Time                // the last time the disk was the reason
	complaint   string                   // what was last logged about the disk
	rounds      map[raft.ServerID]uint64 // commit index a non-voter has to reach
}

// parting is a member to be told of its removal.
type parting struct {
	server raft.Server
	until  time.Time
}

func newSteward(s *Store) *steward {
	return &steward{store: s, kick: make(chan struct{}, 1), removed: map[raft.ServerID]parting{}, rounds: map[raft.ServerID]uint64{}}
}

// wake makes the steward look now. It does not block.
func (w *steward) wake() {
	select {
	case w.kick <- struct{}{}:
	default:
	}
}

// suspect makes the steward find out whether this member was removed.
func (w *steward) suspect() {
	w.mu.Lock()
	w.doubt = true
	w.mu.Unlock()
	w.wake()
}

// tellRemoved has a member told that it was removed.
func (w *steward) tellRemoved(server raft.Server) {
	w.mu.Lock()
	w.removed[server.ID] = parting{server, time.Now().Add(farewell)}
	w.mu.Unlock()
	w.wake()
}

// run looks after membership until closing.
func (w *steward) run() {
	s := w.store
	leading := s.Subscribe()
	defer leading.Close()
	seen := make(chan raft.Observation, 16)
	observer := raft.NewObserver(seen, false, func(o *raft.Observation) bool {
		switch o.Data.(type) {
		case raft.LeaderObservation, raft.PeerObservation:
			return true
		}
		return false
	})
	s.raft.RegisterObserver(observer)
	defer s.raft.DeregisterObserver(observer)
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-timer.C:
		case <-w.kick:
		case <-leading.C:
		case <-seen:
		case <-s.closing:
			return
		}
		timer.Stop()
		if again := w.look(s.ctx, time.Now()); again > 0 {
			timer.Reset(again)
		}
	}
}

// look does what is due and says when to look again, 0 for when something
// happens.
func (w *steward) look(ctx context.Context, now time.Time) time.Duration {
	s := w.store
	again := earliest(w.sayFarewell(ctx, now), w.watchDisk(ctx, now))
	servers := s.configuration().Servers
	if len(servers) > 0 && !slices.Equal(servers, w.noted) {
		w.noted = servers
		s.rememberMembers(servers)
	}
	own := find(servers, s.id.ID)
	if s.IsLeader() {
		w.lonelySince = time.Time{}
		return earliest(again, w.keepOwnAddress(own), w.raise(ctx, servers))
	}
	clear(w.rounds)
	if len(servers) == 0 || s.removed.Load() {
		return again // it waits to be added, or is no member any more
	}
	if _, leader := s.raft.LeaderWithID(); leader != "" {
		w.lonelySince = time.Time{}
	} else if w.lonelySince.IsZero() {
		w.lonelySince = now
	}
	return earliest(again, w.announce(ctx, own, servers), w.askAround(ctx, servers, now))
}

// earliest is the smallest duration that is not 0.
func earliest(all ...time.Duration) (first time.Duration) {
	for _, d := range all {
		if d > 0 && (first == 0 || d < first) {
			first = d
		}
	}
	return first
}

// keepOwnAddress corrects a leader's own entry.
func (w *steward) keepOwnAddress(own *raft.Server) time.Duration {
	s := w.store
	if own == nil || string(own.Address) == s.options.Address {
		return 0
	}
	if err := s.add(s.ctx, s.id.ID, s.options.Address); err != nil {
		s.log.Warn("could not change this member's address", "address", s.options.Address, "error", err)
		return stewardPace
	}
	return 0
}

// announce tells the leader, through any member that can be reached, that this
// member's address has changed.
func (w *steward) announce(ctx context.Context, own *raft.Server, servers []raft.Server) time.Duration {
	s := w.store
	if own == nil || string(own.Address) == s.options.Address {
		return 0
	}
	body := encodeStrings(s.id.ID, s.options.Address)
	var failures []error
	for _, server := range servers {
		if string(server.ID) == s.id.ID {
			continue
		}
		asking, cancel := context.WithTimeout(ctx, memberPatience)
		_, err := s.call(asking, string(server.ID), string(server.Address), callAnnounce, body)
		cancel()
		if err == nil {
			s.log.Info("this member's new address is known", "address", s.options.Address, "former", own.Address)
			return stewardPace // until the configuration says so
		}
		failures = append(failures, err)
	}
	s.log.Debug("could not announce this member's new address", "address", s.options.Address, "error", errors.Join(failures...))
	return stewardPace
}

// askAround finds out whether this member was removed, when it is told so or
// hears of no leader.
func (w *steward) askAround(ctx context.Context, servers []raft.Server, now time.Time) time.Duration {
	s := w.store
	w.mu.Lock()
	doubt := w.doubt
	w.doubt = false
	w.mu.Unlock()
	if !doubt {
		if w.lonelySince.IsZero() {
			return 0
		}
		if wait := lonelyAfter - now.Sub(w.lonelySince); wait > 0 {
			return wait
		}
	}
	for _, h := range s.hear(ctx, servers) {
		if errors.Is(h.err, ErrRemoved) {
			s.noteRemoved()
			return 0
		}
	}
	if w.lonelySince.IsZero() {
		return 0
	}
	return lonelyAfter
}

// raise promotes members that have caught up: a member has when it has applied,
// at one look, what was committed at the look before.
func (w *steward) raise(ctx context.Context, servers []raft.Server) time.Duration {
	s := w.store
	var learners []raft.Server
	for _, server := range servers {
		if server.Suffrage == raft.Nonvoter {
			learners = append(learners, server)
		}
	}
	if len(learners) == 0 {
		clear(w.rounds)
		return 0
	}
	committed := s.raft.CommitIndex()
	for _, h := range s.hear(ctx, learners) {
		goal, known := w.rounds[h.ID]
		w.rounds[h.ID] = committed
		if h.err != nil || !known || h.Applied < goal || h.Problem != "" {
			continue
		}
		if err := s.promote(ctx, string(h.ID)); err != nil {
			s.log.Debug("could not promote a member yet", "id", h.ID, "error", err)
			continue
		}
		delete(w.rounds, h.ID)
	}
	return stewardPace
}

// watchDisk hands leadership over when the disk is slow and another voter's is
// not.
func (w *steward) watchDisk(ctx context.Context, now time.Time) time.Duration {
	s := w.store
	reason := s.guard.Pace.Slow(now)
	if (reason == "") != (w.complaint == "") {
		if reason == "" {
			s.log.Info("the disk is quick again")
		} else {
			s.log.Warn("writes wait for the disk", "reason", reason)
		}
	}
	w.complaint = reason
	if reason == "" {
		return 0
	}
	const lookAgain = time.Second
	if !s.IsLeader() || s.voters() < 2 || !w.handedOver.IsZero() && now.Sub(w.handedOver) < handoverPause {
		return lookAgain
	}
	target, err := successor(s.hear(ctx, s.configuration().Servers), s.id.ID, "")
	if err != nil {
		s.log.Warn("this leader's disk is slow, but no other voter is better off", "reason", reason, "error", err)
		return 5 * lookAgain
	}
	w.handedOver = now
	s.log.Warn("handing leadership over because of the disk", "reason", reason, "to", target.ID)
	if err := s.handOver(target); err != nil {
		s.log.Warn("could not hand leadership over", "error", err)
		w.handedOver = time.Time{}
		return lookAgain
	}
	s.metrics.slowHandovers.Inc()
	return lookAgain
}

// sayFarewell tells removed members to find out.
func (w *steward) sayFarewell(ctx context.Context, now time.Time) time.Duration {
	s := w.store
	w.mu.Lock()
	partings := slices.Collect(maps.Values(w.removed))
	w.mu.Unlock()
	for _, p := range partings {
		asking, cancel := context.WithTimeout(ctx, memberPatience)
		_, err := s.call(asking, string(p.server.ID), string(p.server.Address), callRemoved, nil)
		cancel()
		if err == nil || now.After(p.until) {
			w.mu.Lock()
			delete(w.removed, p.server.ID)
			w.mu.Unlock()
		}
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.removed) > 0 {
		return time.Second
	}
	return 0
}

// noteRemoved ends this member's part in the cluster for good.
func (s *Store) noteRemoved() {
	if s.removed.Swap(true) {
		return
	}
	s.adopting.Lock()
	id := s.id
	id.ClusterID, id.Removed = s.ClusterID(), true
	err := id.keep(s.options.fs(), s.options.Dir)
	s.adopting.Unlock()
	s.log.Error("this member was removed from its cluster and stops to serve; it can join again as a new member with an empty directory",
		"dir", s.options.Dir)
	if err != nil {
		s.log.Error("noting that this member was removed failed; it asks the others again after a restart", "error", err)
	}
	s.leadership.set(false)
	s.running.Go(func() { _ = s.transport.Close() }) // raft is silent from now on
	if s.options.OnRemoved != nil {
		s.options.OnRemoved()
	}
}

// farewellTo says, to a caller that is not in the configuration, what is known
// about that. Only a leader whose configuration is committed knows for sure.
func (s *Store) farewellTo(from string) error {
	select {
	case s.changing <- struct{}{}: // no change is under way: the newest is committed
		defer func() { <-s.changing }()
		if servers := s.configuration().Servers; s.IsLeader() && find(servers, from) == nil {
			return fmt.Errorf("%w: %q", ErrRemoved, from)
		}
	default:
	}
	return fmt.Errorf("%q is %w", from, errNotMember)
}
