package main

import (
	"context"
	"fmt"

	"golang.org/x/sync/errgroup"

	"github.com/skiff-run/skiff/control/apiserver"
	"github.com/skiff-run/skiff/internal/daemon"
	"github.com/skiff-run/skiff/raftstore"
)

// supervision is what systemd hears of the daemon: when it is ready, whether it
// hangs, and in a line how it does.
type supervision struct {
	store  *raftstore.Store
	server *apiserver.Server
	leader *leader
}

// start has the group's goroutines tell systemd.
func (s *supervision) start(ctx context.Context, group *errgroup.Group) {
	vitals := s.store.Vitals()
	group.Go(func() error {
		// The objects every cluster has can only be written and read with a majority.
		if s.server.WaitBootstrapped(ctx) != nil {
			return nil
		}
		daemon.Ready()
		daemon.Watchdog(ctx, s.leader.logger, func(ctx context.Context) error {
			if err := vitals.Check(ctx); err != nil {
				return err
			}
			return s.server.Alive(ctx)
		})
		return nil
	})
	group.Go(func() error {
		daemon.FollowStatus(ctx, func() string { return describe(s.store.Status(), s.leader.working.Load()) })
		return nil
	})
}

// describe is the line of systemctl status: role, leader, revision, and what is
// wrong. working says whether scheduler and controllers run here.
func describe(s raftstore.Status, working bool) string {
	role := ""
	switch {
	case s.ClusterID == "":
		role = "waits to be added to the store of a cluster"
	case s.Leader && !working:
		role = fmt.Sprintf("leader of %s, scheduler and controllers start", members(s.Voters))
	case s.Leader:
		role = "leader of " + members(s.Voters)
	case s.LeaderAddress != "":
		role = fmt.Sprintf("follower, leader %s, %s", s.LeaderAddress, members(s.Voters))
	default:
		role = fmt.Sprintf("no leader: a majority of %s does not answer", members(s.Voters))
	}
	line := fmt.Sprintf("%s; term %d, revision %d", role, s.Term, s.Revision)
	if s.Lag > 0 {
		line += fmt.Sprintf(", %d entries behind", s.Lag)
	}
	if s.Problem != "" {
		line += "; " + s.Problem
	}
	return line
}

func members(n int) string {
	if n == 1 {
		return "1 member"
	}
	return fmt.Sprintf("%d members", n)
}
