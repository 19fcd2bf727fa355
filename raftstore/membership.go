package raftstore

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"strings"

	"github.com/hashicorp/raft"
)

// The calls of membership.
const (
	callCondition callKind = 32 // how the member is
	callMembers   callKind = 33 // how all members are; leader only, as all that follows
	callAdd       callKind = 34
	callPromote   callKind = 35
	callRemove    callKind = 36
	callTransfer  callKind = 37
	callAnnounce  callKind = 38 // a member's address has changed; any member passes it on
	callRemoved   callKind = 39 // to a removed member: ask whether you were removed
	callReplace   callKind = 40 // a new member for a damaged one; any member passes it on
)

// ErrRefused: a change of the membership was refused. The error says why and
// what to do first.
var ErrRefused = errors.New("refused")

// ErrRemoved: this member was removed from its cluster.
var ErrRemoved = errors.New("this member was removed from its cluster")

// membershipHandlers answer those calls.
func (s *Store) membershipHandlers() map[callKind]callHandler {
	return map[callKind]callHandler{
		callCondition: func(context.Context, string, []byte) ([]byte, error) { return json.Marshal(s.condition()) },
		callMembers: func(ctx context.Context, _ string, _ []byte) ([]byte, error) {
			if !s.IsLeader() {
				return nil, ErrNotLeader
			}
			return json.Marshal(s.survey(ctx))
		},
		callAdd:      s.handle(2, func(ctx context.Context, _ string, a []string) error { return s.add(ctx, a[0], a[1]) }),
		callPromote:  s.handle(1, func(ctx context.Context, _ string, a []string) error { return s.promote(ctx, a[0]) }),
		callRemove:   s.handle(1, func(ctx context.Context, _ string, a []string) error { return s.remove(ctx, a[0]) }),
		callTransfer: s.handle(1, func(ctx context.Context, _ string, a []string) error { return s.transfer(ctx, a[0]) }),
		callAnnounce: s.handle(2, s.announced),
		callReplace:  s.handle(3, s.replaced),
		callRemoved: s.handle(0, func(context.Context, string, []string) error {
			s.steward.suspect()
			return nil
		}),
	}
}

// handle decodes the strings of a call.
func (s *Store) handle(n int, do func(ctx context.Context, from string, arguments []string) error) callHandler {
	return func(ctx context.Context, from string, body []byte) ([]byte, error) {
		r := wireReader{b: body}
		arguments := make([]string, n)
		for i := range arguments {
			arguments[i] = r.string()
		}
		if err := r.end(); err != nil {
			return nil, err
		}
		return nil, do(ctx, from, arguments)
	}
}

func encodeStrings(arguments ...string) (body []byte) {
	for _, a := range arguments {
		body = appendWireString(body, a)
	}
	return body
}

// AddMember adds a member that is reached at address, or changes the address of
// one. The new member does not vote until it has caught up; the leader promotes
// it then by itself, whoever leads. Adding a member that is there already, with
// the same address, does nothing.
func (s *Store) AddMember(ctx context.Context, id, address string) error {
	err := checkMember(id, address)
	if err == nil {
		_, err = s.callLeader(ctx, callAdd, encodeStrings(id, address))
	}
	if err != nil {
		return fmt.Errorf("add member %s at %s: %w", id, address, err)
	}
	return nil
}

func checkMember(id, address string) error {
	if id == "" || strings.ContainsAny(id, "/@ \t\n") {
		return fmt.Errorf("%w: %q is no member id: it must not be empty nor hold spaces, / or @", ErrRefused, id)
	}
	if host, port, err := net.SplitHostPort(address); err != nil || host == "" || port == "" {
		return fmt.Errorf("%w: the address %q is not host:port", ErrRefused, address)
	}
	return nil
}

// PromoteMember makes a member vote at once instead of when the leader sees fit.
// It refuses for a member that has not caught up.
func (s *Store) PromoteMember(ctx context.Context, id string) error {
	if _, err := s.callLeader(ctx, callPromote, encodeStrings(id)); err != nil {
		return fmt.Errorf("promote member %s: %w", id, err)
	}
	return nil
}

// RemoveMember removes a member, which then stops to serve and is refused by the
// others. It refuses, with the reason, to remove a member without whom the
// remaining voters that can be reached would be no majority. A leader removes
// itself by handing leadership over first.
func (s *Store) RemoveMember(ctx context.Context, id string) error {
	if _, err := s.callLeader(ctx, callRemove, encodeStrings(id)); err != nil {
		return fmt.Errorf("remove member %s: %w", id, err)
	}
	return nil
}

// TransferLeadership makes another voter the leader: the one named, or if id is
// empty the one most caught up of those that can be reached and have no problem.
func (s *Store) TransferLeadership(ctx context.Context, id string) error {
	if _, err := s.callLeader(ctx, callTransfer, encodeStrings(id)); err != nil {
		return fmt.Errorf("transfer leadership: %w", err)
	}
	return nil
}

// change is one step from a configuration to the next; nil changes nothing.
type change func() raft.IndexFuture

// reconfigure makes one change of the configuration, which decide chooses, after
// all others have come to their end. The library takes one at a time too, but
// does not tell which configuration it has applied.
func (s *Store) reconfigure(ctx context.Context, decide func([]raft.Server) (change, error)) error {
	select {
	case s.changing <- struct{}{}:
		defer func() { <-s.changing }()
	case <-ctx.Done():
		return ctx.Err()
	case <-s.closing:
		return ErrClosed
	}
	if !s.IsLeader() {
		return ErrNotLeader
	}
	step, err := decide(s.configuration().Servers)
	if step == nil || err != nil {
		return err
	}
	err = step().Error()
	switch {
	case errors.Is(err, raft.ErrNotLeader), errors.Is(err, raft.ErrLeadershipLost), errors.Is(err, raft.ErrLeadershipTransferInProgress):
		return ErrNotLeader // a change that may have been made may be asked for again
	case errors.Is(err, raft.ErrRaftShutdown):
		return ErrClosed
	}
	s.steward.wake()
	return err
}

func find(servers []raft.Server, id string) *raft.Server {
	for i := range servers {
		if string(servers[i].ID) == id {
			return &servers[i]
		}
	}
	return nil
}

// add is AddMember on the leader.
func (s *Store) add(ctx context.Context, id, address string) error {
	if err := checkMember(id, address); err != nil {
		return err
	}
	return s.reconfigure(ctx, func(servers []raft.Server) (change, error) {
		for _, other := range servers {
			if string(other.Address) == address && string(other.ID) != id {
				return nil, fmt.Errorf("%w: %s is the address of member %s; remove that first if it is gone", ErrRefused, address, other.ID)
			}
		}
		known := find(servers, id)
		if known != nil && string(known.Address) == address {
			return nil, nil
		}
		return func() raft.IndexFuture {
			s.log.Info("adding a member, or changing its address", "id", id, "address", address)
			if known != nil && known.Suffrage == raft.Voter {
				return s.raft.AddVoter(raft.ServerID(id), raft.ServerAddress(address), 0, 0)
			}
			return s.raft.AddNonvoter(raft.ServerID(id), raft.ServerAddress(address), 0, 0)
		}, nil
	})
}

// maxPromotionLag is how many log entries a member may be behind when it is
// promoted: about what it catches up with in a moment.
const maxPromotionLag = 256

// promote is PromoteMember on the leader.
func (s *Store) promote(ctx context.Context, id string) error {
	return s.reconfigure(ctx, func(servers []raft.Server) (change, error) {
		member := find(servers, id)
		if member == nil {
			return nil, fmt.Errorf("%w: there is no member %s", ErrRefused, id)
		}
		if member.Suffrage == raft.Voter {
			return nil, nil
		}
		c, err := s.conditionOf(ctx, *member)
		if err != nil {
			return nil, fmt.Errorf("%w: %v", ErrRefused, err) // not to be taken for an unreachable leader
		}
		if err := caughtUp(c, s.raft.CommitIndex()); err != nil {
			return nil, err
		}
		return func() raft.IndexFuture {
			s.log.Info("promoting a member to voter", "id", id)
			return s.raft.AddVoter(member.ID, member.Address, 0, 0)
		}, nil
	})
}

// caughtUp says whether a member in that condition may vote.
func caughtUp(c condition, committed uint64) error {
	switch {
	case c.Problem != "":
		return fmt.Errorf("%w: the member has a problem: %s", ErrRefused, c.Problem)
	case c.Applied+maxPromotionLag < committed:
		return fmt.Errorf("%w: the member is %d log entries behind; it is promoted when it has caught up", ErrRefused, committed-c.Applied)
	}
	return nil
}

// remove is RemoveMember on the leader.
func (s *Store) remove(ctx context.Context, id string) error {
	if id == s.id.ID {
		if err := mayRemove(s.hear(ctx, s.configuration().Servers), id); err != nil {
			return err
		}
		if err := s.transfer(ctx, ""); err != nil {
			return err
		}
		return ErrNotLeader // the caller asks the new one
	}
	member := find(s.configuration().Servers, id)
	err := s.removeOther(ctx, id)
	if err == nil && member != nil {
		s.steward.tellRemoved(*member)
	}
	return err
}

// removeOther removes a member which is not this one.
func (s *Store) removeOther(ctx context.Context, id string) error {
	return s.reconfigure(ctx, func(servers []raft.Server) (change, error) {
		member := find(servers, id)
		if member == nil {
			return nil, fmt.Errorf("%w: there is no member %s", ErrRefused, id)
		}
		if member.Suffrage == raft.Voter {
			if err := mayRemove(s.hear(ctx, servers), id); err != nil {
				return nil, err
			}
		}
		return func() raft.IndexFuture {
			s.log.Info("removing a member", "id", id)
			return s.raft.RemoveServer(member.ID, 0, 0)
		}, nil
	})
}

// mayRemove refuses to remove a voter without whom the others would not be able
// to decide anything.
func mayRemove(members []heard, id string) error {
	voters, reachable, silent := 0, 0, []string(nil)
	for _, m := range members {
		if m.Suffrage != raft.Voter || string(m.ID) == id {
			continue
		}
		voters++
		if m.err == nil {
			reachable++
		} else {
			silent = append(silent, string(m.ID))
		}
	}
	switch quorum := voters/2 + 1; {
	case voters == 0:
		return fmt.Errorf("%w: %s is the only voter; a cluster needs one", ErrRefused, id)
	case reachable < quorum:
		return fmt.Errorf("%w: of the %d voters that would remain only %d can be reached, a majority is %d; start or remove first: %s",
			ErrRefused, voters, reachable, quorum, strings.Join(silent, ", "))
	}
	return nil
}

// transfer is TransferLeadership on the leader.
func (s *Store) transfer(ctx context.Context, id string) error {
	if !s.IsLeader() {
		return ErrNotLeader
	}
	if id == s.id.ID {
		return nil
	}
	target, err := successor(s.hear(ctx, s.configuration().Servers), s.id.ID, id)
	if err != nil {
		return err
	}
	return s.handOver(target)
}

// successor picks who shall lead next: wanted, or the best if that is "".
func successor(members []heard, self, wanted string) (raft.Server, error) {
	var best *heard
	var problems []string
	for i, m := range members {
		id := string(m.ID)
		if id == self || wanted != "" && id != wanted {
			continue
		}
		switch {
		case m.Suffrage != raft.Voter:
			problems = append(problems, id+" does not vote")
		case m.err != nil:
			problems = append(problems, m.err.Error())
		case m.Problem != "":
			problems = append(problems, id+": "+m.Problem)
		case best == nil || m.LastIndex > best.LastIndex:
			best = &members[i]
		}
	}
	switch {
	case best != nil:
		return best.Server, nil
	case len(problems) > 0:
		return raft.Server{}, fmt.Errorf("%w: nobody can take leadership over: %s", ErrRefused, strings.Join(problems, "; "))
	case wanted != "":
		return raft.Server{}, fmt.Errorf("%w: there is no member %s", ErrRefused, wanted)
	}
	return raft.Server{}, fmt.Errorf("%w: there is no other voter", ErrRefused)
}

// handOver makes another voter lead. Who works on this member's leadership ends
// that first.
func (s *Store) handOver(to raft.Server) error {
	s.resign()
	err := s.raft.LeadershipTransferToServer(to.ID, to.Address).Error()
	if err == nil {
		s.log.Info("leadership handed over", "to", to.ID)
		return nil // raft's word that it is lost ends the resignation
	}
	if s.raft.State() == raft.Leader {
		s.leadership.resume()
	} else {
		s.leadership.lost()
	}
	if errors.Is(err, raft.ErrNotLeader) {
		return ErrNotLeader
	}
	return fmt.Errorf("hand leadership over to %s: %w", to.ID, err)
}

// announced takes a member's new address. A member that does not lead passes it
// on.
func (s *Store) announced(ctx context.Context, from string, a []string) error {
	id, address := a[0], a[1]
	if s.IsLeader() {
		if find(s.configuration().Servers, id) == nil {
			return fmt.Errorf("%w: there is no member %s", ErrRefused, id)
		}
		return s.add(ctx, id, address)
	}
	if from != id {
		return ErrNotLeader // it was passed on once
	}
	_, err := s.callLeaderOnce(ctx, callAnnounce, encodeStrings(id, address))
	return err
}
