package main

import (
	"testing"

	"github.com/skiff-run/skiff/raftstore"
)

func TestTheStatusLineSaysRoleLeaderAndRevision(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		status  raftstore.Status
		working bool
		want    string
	}{
		"a leader": {
			raftstore.Status{ClusterID: "c", Leader: true, Voters: 3, Term: 7, Revision: 1523}, true,
			"leader of 3 members; term 7, revision 1523",
		},
		"a leader whose controllers start": {
			raftstore.Status{ClusterID: "c", Leader: true, Voters: 1, Term: 7, Revision: 1523}, false,
			"leader of 1 member, scheduler and controllers start; term 7, revision 1523",
		},
		"a follower that is behind": {
			raftstore.Status{ClusterID: "c", LeaderAddress: "192.0.2.1:6444", Voters: 3, Term: 7, Revision: 1500, Lag: 3}, false,
			"follower, leader 192.0.2.1:6444, 3 members; term 7, revision 1500, 3 entries behind",
		},
		"without a majority": {
			raftstore.Status{ClusterID: "c", Voters: 3, Term: 9, Revision: 1500}, false,
			"no leader: a majority of 3 members does not answer; term 9, revision 1500",
		},
		"not a member yet": {
			raftstore.Status{}, false,
			"waits to be added to the store of a cluster; term 0, revision 0",
		},
		"with a problem": {
			raftstore.Status{ClusterID: "c", Leader: true, Voters: 1, Term: 1, Revision: 2, Problem: "writes take 2s"}, true,
			"leader of 1 member; term 1, revision 2; writes take 2s",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if got := describe(tc.status, tc.working); got != tc.want {
				t.Errorf("got  %q\nwant %q", got, tc.want)
			}
		})
	}
}
