package raftstore

import (
	"context"
	"fmt"
	"time"

	"github.com/hashicorp/raft"

	"github.com/skiff-run/skiff/raftstore/command"
	"github.com/skiff-run/skiff/raftstore/disk"
)

// keyCurrentTerm is raft's name for the term in its stable store.
const keyCurrentTerm = "CurrentTerm"

// bootstrap writes the first log entry of a new store: the configuration with
// this member as only voter. raft.BootstrapCluster does the same but refuses to
// finish what a crash interrupted between its two writes.
func bootstrap(log *disk.Log, snapshots *disk.Snapshots, id string, address raft.ServerAddress) error {
	_, last, err := log.Bounds()
	if err != nil {
		return err
	}
	ids, err := snapshots.IDs()
	if err != nil {
		return err
	}
	if last > 0 || len(ids) > 0 {
		return nil
	}
	stable := log.Stable()
	term, err := stable.GetUint64([]byte(keyCurrentTerm))
	if err != nil {
		return err
	}
	if term == 0 {
		term = 1
		if err := stable.SetUint64([]byte(keyCurrentTerm), term); err != nil {
			return err
		}
	}
	voters := soleVoter(id, string(address))
	first := &raft.Log{Index: 1, Term: term, Type: raft.LogConfiguration, Data: raft.EncodeConfiguration(voters)}
	if err := log.StoreLog(first); err != nil {
		return fmt.Errorf("write the first configuration: %w", err)
	}
	return nil
}

// voters counts the voters of the newest configuration this member knows.
func (s *Store) voters() int {
	n := 0
	for _, server := range s.configuration().Servers {
		if server.Suffrage == raft.Voter {
			n++
		}
	}
	return n
}

// alone reports whether this member is the only voter.
func (s *Store) alone() bool { return s.voters() == 1 }

// lead makes a lone voter the leader at once, by the message with which a
// leader hands over, instead of waiting for a leader that cannot exist; then it
// waits until everything committed is applied.
func (s *Store) lead(ctx context.Context) error {
	s.transport.callElection()
	for {
		leading, changed := s.leadership.get()
		if leading {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return fmt.Errorf("become leader: %w", ctx.Err())
		}
	}
}

// leaderObserver hears from raft when the leader is another one.
func (s *Store) leaderObserver() *raft.Observer {
	return raft.NewObserver(s.observed, false, func(o *raft.Observation) bool {
		_, ok := o.Data.(raft.LeaderObservation)
		return ok
	})
}

// followLeader tells who waits for a leader that it is another one now.
func (s *Store) followLeader() {
	for {
		select {
		case <-s.observed:
			_, leader := s.raft.LeaderWithID()
			s.proposer.leaderChanged(leader)
		case <-s.closing:
			return
		}
	}
}

// followLeadership turns raft's word on leadership into ours. Raft waits until
// its word is taken, so a slow epoch must not keep this loop.
func (s *Store) followLeadership() {
	origin, sequence := newOrigin(), uint64(0)
	var epoch chan error
	var again <-chan time.Time // set after a failed epoch
	for {
		select {
		case leads := <-s.notify:
			again = nil
			if !leads {
				s.leadership.set(false)
				s.leadership.resume()
				epoch = nil
				continue
			}
			sequence++
			epoch = s.beginEpoch(origin, sequence)
		case err := <-epoch:
			epoch = nil
			if err != nil {
				s.log.Warn("could not begin to lead", "error", err)
				again = time.After(askAgain)
				continue
			}
			s.log.Info("leading", "term", s.fsm.epoch.Load(), "revision", s.Revision())
			s.ready.Store(true)
			s.leadership.set(true)
			s.keeper.wake()
		case <-again:
			again = nil
			if s.raft.State() == raft.Leader {
				sequence++
				epoch = s.beginEpoch(origin, sequence)
			}
		case <-s.closing:
			s.leadership.set(false)
			return
		}
	}
}

// beginEpoch commits an entry of the new term. Once it is applied, so is
// everything earlier leaders committed. The channel gets the outcome.
func (s *Store) beginEpoch(origin, sequence uint64) chan error {
	done := make(chan error, 1)
	batch := command.Batch{Origin: origin, Acknowledged: sequence - 1, Commands: []command.Command{{Kind: command.Epoch, Sequence: sequence}}}
	s.running.Go(func() { done <- s.apply(batch.Encode(nil)) })
	return done
}
