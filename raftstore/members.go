package raftstore

import (
	"context"
	"encoding/json"
	"fmt"
	"sync"
	"time"

	"github.com/hashicorp/raft"
)

// Member is one member of the cluster as the leader sees it.
type Member struct {
	ID      string `json:"id"`
	Address string `json:"address"`
	// Voter counts in majorities; a member is none while it catches up.
	Voter  bool `json:"voter"`
	Leader bool `json:"leader"`
	// Reachable: it answered just now. If not, what follows is unknown.
	Reachable bool `json:"reachable"`
	// Revision is the newest it has applied, Lag how many it is behind the
	// newest of all.
	Revision int64 `json:"revision"`
	Lag      int64 `json:"lag"`
	// Problem is what it, or who cannot reach it, complains of; empty if
	// nothing.
	Problem string `json:"problem,omitempty"`
}

// memberPatience bounds how long a member waits for another's word about
// itself.
const memberPatience = time.Second

// Members lists the members of the cluster. The leader's view is asked for; if
// no leader can be found within two seconds, or before ctx ends, it is that of
// this member, whose configuration may be old.
func (s *Store) Members(ctx context.Context) ([]Member, error) {
	asking, cancel := context.WithTimeout(ctx, 2*memberPatience)
	defer cancel()
	answer, err := s.callLeader(asking, callMembers, nil)
	if err != nil {
		if ctx.Err() != nil {
			return nil, fmt.Errorf("list members: %w", err)
		}
		return s.survey(ctx), nil
	}
	var members []Member
	if err := json.Unmarshal(answer, &members); err != nil {
		return nil, fmt.Errorf("list members: the leader's answer: %w", err)
	}
	return members, nil
}

// condition is what a member says of itself. It travels as JSON: members of
// different versions ignore what they do not know.
type condition struct {
	Revision  int64  `json:"revision"`
	LastIndex uint64 `json:"lastIndex"`
	Applied   uint64 `json:"applied"`
	Leads     bool   `json:"leads"`
	// Slow: its disk is slow.
	Slow    bool   `json:"slow"`
	Problem string `json:"problem"`
}

func (s *Store) condition() condition {
	status := s.Status()
	return condition{
		Revision: status.Revision, LastIndex: status.LogIndex, Applied: status.AppliedIndex, Leads: status.Leader,
		Slow: s.guard.Pace.Slow(time.Now()) != "", Problem: status.Problem,
	}
}

// conditionOf asks a member.
func (s *Store) conditionOf(ctx context.Context, server raft.Server) (condition, error) {
	if string(server.ID) == s.id.ID {
		return s.condition(), nil
	}
	ctx, cancel := context.WithTimeout(ctx, memberPatience)
	defer cancel()
	answer, err := s.call(ctx, string(server.ID), string(server.Address), callCondition, nil)
	if err != nil {
		return condition{}, err
	}
	var c condition
	if err := json.Unmarshal(answer, &c); err != nil {
		return condition{}, fmt.Errorf("member %s: %w", server.ID, err)
	}
	return c, nil
}

// heard is the answer of one member about itself, or why there is none.
type heard struct {
	raft.Server
	condition
	err error
}

// hear asks several members at once.
func (s *Store) hear(ctx context.Context, servers []raft.Server) []heard {
	all := make([]heard, len(servers))
	var asking sync.WaitGroup
	for i, server := range servers {
		asking.Go(func() {
			all[i].Server = server
			all[i].condition, all[i].err = s.conditionOf(ctx, server)
		})
	}
	asking.Wait()
	return all
}

// survey asks every member this one knows of.
func (s *Store) survey(ctx context.Context) []Member {
	all := s.hear(ctx, s.configuration().Servers)
	newest := int64(0)
	for _, h := range all {
		newest = max(newest, h.Revision)
	}
	members := make([]Member, len(all))
	for i, h := range all {
		m := Member{ID: string(h.ID), Address: string(h.Address), Voter: h.Suffrage == raft.Voter}
		if h.err != nil {
			m.Problem = h.err.Error()
		} else {
			m.Reachable, m.Leader, m.Problem = true, h.Leads, h.Problem
			m.Revision, m.Lag = h.Revision, newest-h.Revision
		}
		members[i] = m
	}
	return members
}
