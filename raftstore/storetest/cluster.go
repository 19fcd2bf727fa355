package storetest

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"os"
	"testing"
	"time"

	"github.com/skiff-run/skiff/raftstore"
	"github.com/skiff-run/skiff/raftstore/peer"
)

// Cluster is a store of several members in this process.
type Cluster struct {
	// Members in the order they joined; the first founded the cluster.
	Members []*Member

	t         testing.TB
	authority *Authority
	change    []func(*raftstore.Options)
}

// Member is one member and what it needs to come back after Stop or Crash.
type Member struct {
	// Store is the running member, or the last one that ran.
	*raftstore.Store
	// ID, Dir and Address stay the same over restarts.
	ID, Dir, Address string

	cluster *Cluster
	network *peer.Network
	down    bool // stopped or crashed; the test's goroutine only
}

// NewCluster founds a store and adds members until there are n, each a voter,
// on ports of the loopback interface. Every member gets the options as changed
// by the functions given; whatever they set of Dir, MemberID, Network, Address
// and Join is ignored. The cluster ends with the test.
//
// A member's log is silent unless the environment has STORETEST_LOG=1.
func NewCluster(t testing.TB, n int, change ...func(*raftstore.Options)) *Cluster {
	t.Helper()
	c := &Cluster{t: t, authority: NewAuthority(t), change: change}
	for range n {
		c.Add()
	}
	c.WaitVoters(n)
	return c
}

// Add starts another member and adds it to the cluster. It becomes a voter by
// itself, see WaitVoters.
func (c *Cluster) Add() *Member {
	c.t.Helper()
	id := fmt.Sprintf("member-%d", len(c.Members)+1)
	m := &Member{ID: id, Dir: c.t.TempDir(), Address: "127.0.0.1:0", cluster: c}
	m.Start()
	c.t.Cleanup(func() {
		if err := m.Store.Close(); err != nil {
			c.t.Errorf("close %s: %v", m.ID, err)
		}
	})
	if len(c.Members) > 0 {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		if err := c.Members[0].AddMember(ctx, m.ID, m.Address); err != nil {
			c.t.Fatalf("add %s: %v", m.ID, err)
		}
	}
	c.Members = append(c.Members, m)
	return m
}

// Start opens the member, for the first time or after Stop or Crash.
func (m *Member) Start() {
	t := m.cluster.t
	t.Helper()
	listener, err := net.Listen("tcp", m.Address)
	if err != nil {
		t.Fatalf("listen for %s: %v", m.ID, err)
	}
	m.Address = listener.Addr().String()
	m.network = m.cluster.authority.Network(t, m.ID, listener)
	o := raftstore.Options{
		Logger:  slog.New(slog.DiscardHandler),
		OnFatal: func(err error) { t.Errorf("%s failed: %v", m.ID, err) },
	}
	if os.Getenv("STORETEST_LOG") != "" {
		o.Logger = slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug}))
	}
	for _, change := range m.cluster.change {
		change(&o)
	}
	o.Dir, o.MemberID, o.Network, o.Address = m.Dir, m.ID, m.network, m.Address
	o.Join = len(m.cluster.Members) > 0 && m.cluster.Members[0] != m
	m.Store, err = raftstore.Open(context.Background(), o)
	if err != nil {
		t.Fatalf("open %s: %v", m.ID, err)
	}
	m.down = false
}

// Stop closes the member in order.
func (m *Member) Stop() {
	m.cluster.t.Helper()
	m.down = true
	if err := m.Store.Close(); err != nil {
		m.cluster.t.Errorf("stop %s: %v", m.ID, err)
	}
}

// Crash ends the member as the others see the end of a process: its connections
// and its port close at once, and it hands nothing over. Its store is closed when
// Crash returns.
func (m *Member) Crash() {
	m.Vanish()
	m.Stop()
}

// Vanish closes the member's connections and its port at once and leaves its
// store running with nobody to talk to.
func (m *Member) Vanish() {
	m.cluster.t.Helper()
	m.down = true
	if err := m.network.Close(); err != nil {
		m.cluster.t.Errorf("close the network of %s: %v", m.ID, err)
	}
}

// Leader waits until a running member leads. The methods of Cluster and Member
// that start, stop or look for members belong to one goroutine.
func (c *Cluster) Leader() *Member {
	c.t.Helper()
	var leader *Member
	c.wait("a leader", func() bool {
		for _, m := range c.Members {
			if m.down || !m.IsLeader() {
				continue
			}
			ctx, cancel := context.WithTimeout(context.Background(), time.Second)
			err := m.Health(ctx)
			cancel()
			if err == nil {
				leader = m
				return true
			}
		}
		return false
	})
	return leader
}

// Followers are all running members but the leader.
func (c *Cluster) Followers() []*Member {
	c.t.Helper()
	leader := c.Leader()
	var followers []*Member
	for _, m := range c.Members {
		if m != leader && !m.down {
			followers = append(followers, m)
		}
	}
	return followers
}

// WaitVoters waits until every running member knows that n members vote, and is ready.
func (c *Cluster) WaitVoters(n int) {
	c.t.Helper()
	c.wait(fmt.Sprintf("%d voters", n), func() bool {
		for _, m := range c.Members {
			if !m.down && (m.Status().Voters != n || m.Ready() != nil) {
				return false
			}
		}
		return true
	})
}

// wait fails the test if the condition does not come true in a minute.
func (c *Cluster) wait(what string, holds func() bool) {
	c.t.Helper()
	for deadline := time.Now().Add(time.Minute); !holds(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			for _, m := range c.Members {
				c.t.Logf("%s: %+v", m.ID, m.Status())
			}
			c.t.Fatalf("waited a minute for %s", what)
		}
	}
}
