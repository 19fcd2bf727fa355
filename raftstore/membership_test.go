package raftstore

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/hashicorp/raft"
)

func TestMembersAreAddedAndPromoted(t *testing.T) {
	t.Parallel()
	c := newCluster(t, Options{}, "a", "b", "c")
	for i := range 100 {
		mustPut(t, c.leader(), fmt.Sprintf("/r/p/k%d", i), "v", 0)
	}
	c.agree()
	members := c.list()
	if len(members) != 3 {
		t.Fatalf("members %+v", members)
	}
	for _, m := range members {
		if !m.Voter || !m.Reachable || m.Problem != "" || m.Leader != (m.ID == "a") || m.Address != addressOf(m.ID) {
			t.Errorf("member %+v", m)
		}
	}
	for _, s := range c.members {
		if s.ClusterID() != c.leader().ClusterID() {
			t.Errorf("%s is of cluster %q", s.id.ID, s.ClusterID())
		}
	}
	// Through a follower, and again: nothing changes.
	f := c.follower()
	index := c.leader().raft.LastIndex()
	for _, id := range []string{"a", "b", "c"} {
		if err := f.AddMember(t.Context(), id, addressOf(id)); err != nil {
			t.Errorf("add %s again: %v", id, err)
		}
		if err := f.PromoteMember(t.Context(), id); err != nil {
			t.Errorf("promote %s again: %v", id, err)
		}
	}
	if now := c.leader().raft.LastIndex(); now != index {
		t.Errorf("the log moved from %d to %d", index, now)
	}
}

func TestBadMembersAreRefused(t *testing.T) {
	t.Parallel()
	c := newCluster(t, Options{}, "a", "b")
	cases := []struct{ name, id, address, want string }{
		{"no id", "", "x:1", "member id"},
		{"an id with a slash", "x/y", "x:1", "member id"},
		{"no port", "x", "10.0.0.1", "host:port"},
		{"no host", "x", ":6444", "host:port"},
		{"another's address", "x", addressOf("b"), "address of member b"},
	}
	for _, k := range cases {
		if err := c.follower().AddMember(t.Context(), k.id, k.address); !errors.Is(err, ErrRefused) || !strings.Contains(err.Error(), k.want) {
			t.Errorf("%s: %v", k.name, err)
		}
	}
	for what, err := range map[string]error{
		"promoting": c.follower().PromoteMember(t.Context(), "nobody"),
		"removing":  c.follower().RemoveMember(t.Context(), "nobody"),
		"electing":  c.follower().TransferLeadership(t.Context(), "nobody"),
	} {
		if !errors.Is(err, ErrRefused) || !strings.Contains(err.Error(), "nobody") {
			t.Errorf("%s nobody: %v", what, err)
		}
	}
}

func TestRemovalThatLosesTheMajorityIsRefused(t *testing.T) {
	t.Parallel()
	voter := func(id string, up bool) heard {
		h := heard{Server: raft.Server{ID: raft.ServerID(id)}}
		if !up {
			h.err = ErrUnreachable
		}
		return h
	}
	learner := heard{Server: raft.Server{ID: "l", Suffrage: raft.Nonvoter}}
	cases := []struct {
		name    string
		members []heard
		refused string
	}{
		{"one of three, all up", []heard{voter("a", true), voter("b", true), voter("x", true)}, ""},
		{"the one that is down", []heard{voter("a", true), voter("b", true), voter("x", false)}, ""},
		{"an up one while another is down", []heard{voter("a", true), voter("b", false), voter("x", true)}, "only 1 can be reached, a majority is 2; start or remove first: b"},
		{"one of two", []heard{voter("a", true), voter("x", true)}, ""},
		{"the last one", []heard{voter("x", true)}, "only voter"},
		{"the last voter beside a learner", []heard{voter("x", true), learner}, "only voter"},
		{"one of five with two down", []heard{voter("a", true), voter("b", true), voter("c", false), voter("d", false), voter("x", true)}, "a majority is 3"},
		{"one of five with one down", []heard{voter("a", true), voter("b", true), voter("c", true), voter("d", false), voter("x", true)}, ""},
	}
	for _, c := range cases {
		err := mayRemove(c.members, "x")
		if (err == nil) != (c.refused == "") || err != nil && (!errors.Is(err, ErrRefused) || !strings.Contains(err.Error(), c.refused)) {
			t.Errorf("%s: %v", c.name, err)
		}
	}
}

func TestRemovedMemberStopsAndIsRefused(t *testing.T) {
	t.Parallel()
	told := make(chan struct{}, 1)
	c := newCluster(t, Options{OnRemoved: func() { told <- struct{}{} }}, "a", "b", "c")
	if err := c.follower().RemoveMember(t.Context(), "c"); err != nil {
		t.Fatal(err)
	}
	<-told
	gone := c.members["c"]
	for what, err := range map[string]error{
		"ready": gone.Ready(), "health": gone.Health(t.Context()),
		"write": func() error { _, err := gone.Put(t.Context(), PutRequest{Key: "/r/a/k"}); return err }(),
		"read":  func() error { _, err := gone.ReadIndex(t.Context()); return err }(),
	} {
		if !errors.Is(err, ErrRemoved) {
			t.Errorf("%s: %v", what, err)
		}
	}
	if _, err := gone.call(t.Context(), "a", addressOf("a"), callCondition, nil); !errors.Is(err, ErrRemoved) {
		t.Errorf("the others answer it: %v", err)
	}
	mustPut(t, c.leader(), "/r/a/k", "v", 0)
	c.stop("c")
	delete(c.members, "c")
	if _, err := Open(t.Context(), Options{Dir: c.dirs["c"], Logger: quiet()}); !errors.Is(err, ErrRemoved) {
		t.Errorf("opened again: %v", err)
	}
	if n := len(c.list()); n != 2 {
		t.Errorf("%d members", n)
	}
	c.agree()
}

// TestMemberRemovedWhileItWasAwayFindsOut: nobody could tell it.
func TestMemberRemovedWhileItWasAwayFindsOut(t *testing.T) {
	t.Parallel()
	c := newCluster(t, Options{}, "a", "b", "c")
	c.stop("c")
	if err := c.leader().RemoveMember(t.Context(), "c"); err != nil {
		t.Fatal(err)
	}
	c.leader().steward.mu.Lock()
	clear(c.leader().steward.removed) // the leader has given up telling it
	c.leader().steward.mu.Unlock()
	told := make(chan struct{}, 1)
	c.open("c", addressOf("c"), false, func(o *Options) { o.OnRemoved = func() { told <- struct{}{} } })
	<-told
}

func TestLeaderRemovesItself(t *testing.T) {
	t.Parallel()
	c := newCluster(t, Options{}, "a", "b", "c")
	first := c.leader()
	if err := first.RemoveMember(t.Context(), first.id.ID); err != nil {
		t.Fatal(err)
	}
	c.eventually("the former leader notices", func() bool { return errors.Is(first.Ready(), ErrRemoved) })
	delete(c.members, first.id.ID)
	if next := c.leader(); next == first {
		t.Error("it leads still")
	}
	if n := len(c.list()); n != 2 {
		t.Errorf("%d members", n)
	}
	mustPut(t, c.leader(), "/r/a/k", "v", 0)
	c.agree()
}

func TestLeadershipIsTransferred(t *testing.T) {
	t.Parallel()
	c := newCluster(t, Options{}, "a", "b", "c")
	for _, to := range []string{"c", "b", "b", "a"} {
		if err := c.follower().TransferLeadership(t.Context(), to); err != nil {
			t.Fatalf("to %s: %v", to, err)
		}
		c.eventually(to+" leads", func() bool { return c.members[to].IsLeader() })
		mustPut(t, c.members[to], "/r/a/k", to, AnyRevision)
	}
	if err := c.follower().TransferLeadership(t.Context(), ""); err != nil {
		t.Fatal(err)
	}
	c.eventually("another leads", func() bool { return c.leader() != c.members["a"] })
	c.hub.isolate("a", true)
	if err := c.leader().TransferLeadership(t.Context(), "a"); !errors.Is(err, ErrRefused) {
		t.Errorf("to a member nobody reaches: %v", err)
	}
}

func TestBestSuccessor(t *testing.T) {
	t.Parallel()
	member := func(id string, last uint64, change ...func(*heard)) heard {
		h := heard{Server: raft.Server{ID: raft.ServerID(id)}, condition: condition{LastIndex: last}}
		for _, f := range change {
			f(&h)
		}
		return h
	}
	down := func(h *heard) { h.err = ErrUnreachable }
	slow := func(h *heard) { h.Slow, h.Problem = true, "the disk is slow" }
	learner := func(h *heard) { h.Suffrage = raft.Nonvoter }
	cases := []struct {
		name    string
		members []heard
		wanted  string
		want    string // "" for refused
		refused string
	}{
		{"the most caught up", []heard{member("me", 9), member("a", 7), member("b", 8)}, "", "b", ""},
		{"not one that is down", []heard{member("me", 9), member("a", 7), member("b", 8, down)}, "", "a", ""},
		{"not one with a slow disk", []heard{member("me", 9), member("a", 7), member("b", 8, slow)}, "", "a", ""},
		{"not a learner", []heard{member("me", 9), member("a", 7), member("b", 8, learner)}, "", "a", ""},
		{"the wanted one", []heard{member("me", 9), member("a", 7), member("b", 8)}, "a", "a", ""},
		{"nobody well", []heard{member("me", 9), member("a", 7, slow), member("b", 8, down)}, "", "", "the disk is slow"},
		{"the wanted one is down", []heard{member("me", 9), member("a", 7), member("b", 8, down)}, "b", "", "cannot be reached"},
		{"the wanted one is a learner", []heard{member("me", 9), member("b", 8, learner)}, "b", "", "does not vote"},
		{"nobody else", []heard{member("me", 9)}, "", "", "no other voter"},
	}
	for _, c := range cases {
		got, err := successor(c.members, "me", c.wanted)
		if string(got.ID) != c.want || (c.want == "") != errors.Is(err, ErrRefused) || err != nil && !strings.Contains(err.Error(), c.refused) {
			t.Errorf("%s: %q, %v", c.name, got.ID, err)
		}
	}
}

func TestMovedMemberAnnouncesItself(t *testing.T) {
	t.Parallel()
	c := newCluster(t, Options{}, "a", "b", "c")
	c.stop("c")
	// The leader moves while c is away.
	if err := c.leader().TransferLeadership(t.Context(), "b"); err != nil {
		t.Fatal(err)
	}
	c.eventually("b leads", func() bool { return c.members["b"].IsLeader() })
	c.open("c", "moved.test:6444", false)
	addressIs := func(id, want string) func() bool {
		return func() bool {
			for _, m := range c.list() {
				if m.ID == id {
					return m.Address == want && m.Reachable
				}
			}
			return false
		}
	}
	c.eventually("the others know c's new address", addressIs("c", "moved.test:6444"))
	mustPut(t, c.leader(), "/r/a/k", "v", 0)
	c.agree()
	// The leader itself.
	leader := c.leader().id.ID
	c.stop(leader)
	c.open(leader, "moved-too.test:6444", false)
	c.eventually("the others know the former leader's new address", addressIs(leader, "moved-too.test:6444"))
	// A lone member that moved.
	alone := newCluster(t, Options{}, "z")
	alone.stop("z")
	alone.open("z", "elsewhere.test:6444", false)
	alone.eventually("it knows its own address", func() bool {
		return string(alone.leader().configuration().Servers[0].Address) == "elsewhere.test:6444"
	})
}

func TestPromotionSurvivesAChangeOfLeaders(t *testing.T) {
	t.Parallel()
	c := newCluster(t, Options{}, "a", "b", "c")
	// The new member is not there yet, so nobody can promote it.
	if err := c.leader().AddMember(t.Context(), "d", addressOf("d")); err != nil {
		t.Fatal(err)
	}
	if err := c.leader().PromoteMember(t.Context(), "d"); !errors.Is(err, ErrRefused) {
		t.Errorf("promoted a member that is not there: %v", err)
	}
	c.stop(c.leader().id.ID)
	c.leader()
	c.open("d", addressOf("d"), true)
	c.eventually("the new leader promotes it", func() bool {
		m := find(c.leader().configuration().Servers, "d")
		return m != nil && m.Suffrage == raft.Voter
	})
}

func TestOtherClustersDoNotTalk(t *testing.T) {
	t.Parallel()
	c := newCluster(t, Options{}, "a", "b", "c")
	mustPut(t, c.leader(), "/r/a/k", "v", 0)
	c.agree()
	// c is recovered beside the cluster it belonged to, under its old name and
	// address: the others' leader still speaks to it.
	c.stop("c")
	if _, err := Recover(c.dirs["c"], ""); err != nil {
		t.Fatal(err)
	}
	own := c.open("c", addressOf("c"), false)
	delete(c.members, "c")
	c.eventually("the recovered member leads itself", own.IsLeader)
	if _, err := own.call(t.Context(), "a", addressOf("a"), callCondition, nil); !errors.Is(err, ErrOtherCluster) {
		t.Errorf("call: %v", err)
	}
	term := own.raft.CurrentTerm()
	for i := range 50 {
		mustPut(t, c.leader(), fmt.Sprintf("/r/old/%d", i), "v", 0)
		mustPut(t, own, fmt.Sprintf("/r/new/%d", i), "v", 0)
	}
	c.agree()
	if own.raft.CurrentTerm() != term || !own.IsLeader() || own.Count("/r/old/") != 0 || c.leader().Count("/r/new/") != 0 {
		t.Errorf("the clusters mixed: term %d was %d, %d and %d keys of the other", own.raft.CurrentTerm(), term, own.Count("/r/old/"), c.leader().Count("/r/new/"))
	}
	if n := len(c.list()); n != 3 {
		t.Errorf("the old cluster has %d members", n)
	}
	if own.removed.Load() {
		t.Error("the old cluster told the new one that it was removed")
	}
}
