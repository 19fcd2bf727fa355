package simulation

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/skiff-run/skiff/raftstore/check"
)

// TestBrokenVariantsAreNoticed breaks the store, or what is done with it, in one
// way at a time. Each must be noticed by the checker that is there for it, within
// a few runs; if none is, the simulation proves nothing about it.
func TestBrokenVariantsAreNoticed(t *testing.T) {
	t.Parallel()
	cases := []struct {
		name   string
		broken func(*Config)
		want   []string // any of these
	}{
		{"a disk that does not sync", func(c *Config) {
			c.lyingDisk, c.Faults = true, []string{faultPowerAll, faultPower}
		}, []string{"was lost", "agreement: ", "is stale"}},
		{"reads of whatever a member has", func(c *Config) {
			c.lie, c.Faults = localReads, []string{faultIsolate, faultStorm, faultBridge}
		}, []string{"is stale"}},
		{"reads of whoever believes to lead", func(c *Config) {
			c.lie, c.Faults = leaderReads, []string{faultFreezeLead}
			c.Options.StallTimeout, c.FaultTime, c.FaultPause = time.Minute, 1500*time.Millisecond, time.Second
		}, []string{"is stale"}},
		{"a watch that loses an event", func(c *Config) { c.lie = droppedEvent }, []string{"guarantee reliable", "guarantee resumable", "guarantee bookmarkable"}},
		{"a watch that mixes up events", func(c *Config) { c.lie = reorderedEvents }, []string{"guarantee ordered"}},
		{"a vote that is not saved", func(c *Config) {
			c.forgetVotes, c.Faults = true, []string{faultKillAll, faultKill, faultIsolateLead}
		}, []string{"has two leaders"}},
		{"a repeated write that is executed again", func(c *Config) {
			c.sabotage.ExecuteTwice, c.Faults = true, []string{faultStorm, faultKill, faultIsolateLead}
		}, []string{"was executed 2 times", "was executed 3 times"}},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			found := ""
			for seed := range uint64(40) {
				config := FromSeed(1000 + seed)
				c.broken(&config)
				r, err := run(t, config)
				found = fmt.Sprint(err)
				for _, want := range c.want {
					if strings.Contains(found, want) {
						t.Logf("noticed in run %d, after %d operations and %d faults:\n%.600s", seed+1, r.Operations, r.Faults, found)
						return
					}
				}
			}
			t.Errorf("40 runs noticed nothing like %v, the last one: %.2000s", c.want, found)
		})
	}
}

// TestVerifyLeaderIsNoticed reads by raft's VerifyLeader from a leader that was
// paused while another one took over: answers to its heartbeats that were under
// way before it was paused confirm it when it goes on. The pause must be found in
// the history of the reads. It happens about once in 300 pauses, when goroutines
// that wake up at one instant run side by side: so this test runs alone.
func TestVerifyLeaderIsNoticed(t *testing.T) {
	config := FromSeed(1)
	config.Members, config.Delay, config.lie, config.Clients = 3, 30*time.Millisecond, verifiedReads, 0
	config.Options.StallTimeout = time.Minute
	// With a lease this long another leader is there before the old one gives up
	// by itself, so it is the replies that decide, not a timer that is due too.
	config.Options.HeartbeatTimeout, config.Options.LeaderLeaseTimeout = 2*time.Second, 2*time.Second
	var verdict func() error
	trials := 0
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(config)
		if err := c.assemble(); err != nil {
			t.Fatal(err)
		}
		for stale := false; !stale && trials < 20_000; trials++ {
			stale = pausedLeader(t, c)
		}
		c.close()
		verdict = c.verdict
	})
	if err := verdict(); err == nil || !strings.Contains(err.Error(), "is stale") {
		t.Errorf("after %d pauses: %v", trials, err)
	} else {
		t.Logf("noticed at pause %d: %.400s", trials, err)
	}
}

// pausedLeader pauses the leader until another one has acknowledged a write, lets
// readers ask the old one as it goes on, and reports whether one was told less.
func pausedLeader(t *testing.T, c *cluster) bool {
	if !c.eventually(10*time.Second, func() bool { return c.leader() != nil }) {
		t.Fatal("nobody leads")
	}
	old := c.leader()
	thaw := c.frozen(old.member)
	written := c.eventually(20*time.Second, func() bool {
		for i, m := range c.members {
			if p := m.serving(); p != nil && p != old && p.store.IsLeader() {
				return c.faithful(i).put(c.ctx)
			}
		}
		return false
	})
	if !written {
		for _, m := range c.members {
			if p := m.serving(); p != nil {
				t.Logf("%s: %+v %v", m.id(), p.store.Status(), p.raft.State())
			}
		}
		t.Fatal("no other leader took over")
	}
	answered := c.agreement.AnsweredSoFar()
	before := len(c.history.Operations())
	var readers sync.WaitGroup
	for i := range 16 {
		reader := c.faithful(slices.Index(c.members, old.member))
		reader.name, reader.early = fmt.Sprintf("reader %d", i), true
		readers.Go(func() { reader.get(c.ctx, 0) })
	}
	synctest.Wait()
	// It takes the readers' questions before it hears anything: scheduling alone
	// would seldom have it so.
	old.member.disk.SetHung(false)
	synctest.Wait()
	thaw()
	readers.Wait()
	c.sleep(c.ctx, 2*time.Second)
	return slices.ContainsFunc(c.history.Operations()[before:], func(o *check.Operation) bool { return o.Revision < answered })
}

// faithful makes a client of one member, whose values no other client writes.
func (c *cluster) faithful(member int) *client {
	one := newClient(c, member)
	one.name, one.faithful = fmt.Sprintf("client at %d", c.history.Now()), true
	return one
}
