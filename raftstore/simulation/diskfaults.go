package simulation

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"time"
)

// failing lets a disk misbehave for a while. The member may end itself, or has
// to, and is started again until the disk is in order.
func (c *cluster) failing(kind string) func() {
	m := c.anyone()
	if c.intN(2) == 0 {
		m = c.leading()
	}
	m.excuse(true)
	switch kind {
	case faultSlow:
		m.disk.SetSlow(time.Duration(5+c.intN(1500)) * time.Millisecond)
	case faultHung:
		m.disk.SetHung(true)
	case faultSync:
		m.disk.FailNextSync()
	case faultFailing:
		m.disk.SetFailing(true)
	case faultFull:
		m.disk.SetFull(true)
	}
	return func() {
		m.disk.Heal()
		// What failed while the disk did may be noticed a little later.
		c.sleep(c.ctx, 100*time.Millisecond)
		m.excuse(false)
	}
}

// harmed kills a member and damages its files, or takes them away. It must
// notice and refuse to start, or not need what was damaged; then it is replaced
// by a new member with an empty disk. This is done only while all others are
// there: whoever loses what it acknowledged counts as lost for good.
func (c *cluster) harmed(kind string) func() {
	if slices.ContainsFunc(c.members, func(m *member) bool { return m.serving() == nil }) || !c.complete() {
		return nil
	}
	m := c.anyone()
	m.hold(true)
	if p := m.current(); p != nil {
		p.die(false)
	}
	if kind == faultReplace {
		return func() { c.replace(m) }
	}
	files := slices.DeleteFunc(m.disk.Files("/store/"), func(path string) bool { return strings.HasSuffix(path, "LOCK") })
	path := files[c.intN(len(files))]
	var err error
	if kind == faultDelete {
		err = m.disk.Delete(path)
	} else {
		c.withRandom(func(r *rand.Rand) { err = m.disk.FlipBit(r, path) })
	}
	if err != nil {
		m.hold(false)
		return nil
	}
	m.mu.Lock()
	m.harmed = true
	m.mu.Unlock()
	m.hold(false)
	return func() {
		c.eventually(5*time.Second, func() bool { return m.serving() != nil || m.refuses() })
		if m.refuses() {
			c.count("replaced because of damage")
		} else {
			// What it did not need yet it may need when it is one of a bare majority.
			c.count("replaced in spite of serving with damage")
		}
		c.replace(m)
	}
}

// refuses says that the member found its files damaged.
func (m *member) refuses() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.damaged != nil
}

// complete says that the leader counts as many voters as there are machines.
func (c *cluster) complete() bool {
	p := c.leader()
	return p != nil && p.store.Status().Voters == len(c.members)
}

// ask tries something on the leader until it succeeds.
func (c *cluster) askLeader(what string, request func(context.Context, *process) error) error {
	var err error
	done := c.eventually(40*time.Second, func() bool {
		p := c.leader()
		if p == nil {
			err = fmt.Errorf("nobody leads")
			return false
		}
		ctx, cancel := context.WithTimeout(c.ctx, 5*time.Second)
		answer := make(chan error, 1)
		c.running.Go(func() {
			defer cancel()
			answer <- request(ctx, p)
		})
		select {
		case err = <-answer:
		case <-time.After(20 * time.Second):
			err = fmt.Errorf("%s has not answered 15 s after the caller lost patience: %+v", p.name, p.raft.Stats())
			c.violation("membership", "%s: %v", what, err)
		}
		return err == nil
	})
	if done || c.ctx.Err() != nil {
		return nil
	}
	return fmt.Errorf("could not %s within 40 s: %w", what, err)
}

// join adds a running member and waits until it votes.
func (c *cluster) join(m *member) error {
	id := m.id()
	err := c.askLeader("add "+id, func(ctx context.Context, p *process) error { return p.store.AddMember(ctx, id, id+":6444") })
	if err != nil {
		return err
	}
	return c.askLeader("promote "+id, func(ctx context.Context, p *process) error {
		members, err := p.store.Members(ctx)
		if err != nil {
			return err
		}
		for _, one := range members {
			if one.ID == id && one.Voter {
				return nil
			}
		}
		return fmt.Errorf("it does not vote yet: %+v", members)
	})
}

// replace removes a member that is down, empties its disk and lets the machine
// join as a new member.
func (c *cluster) replace(m *member) {
	m.hold(true)
	if p := m.current(); p != nil {
		p.die(false)
	}
	old := m.id()
	err := c.askLeader("remove "+old, func(ctx context.Context, p *process) error {
		members, err := p.store.Members(ctx)
		if err != nil {
			return err
		}
		for _, one := range members {
			if one.ID == old {
				return p.store.RemoveMember(ctx, old)
			}
		}
		return nil
	})
	if err == nil {
		m.disk.Wipe()
		m.mu.Lock()
		m.name = fmt.Sprintf("m%d", c.newID())
		m.founds, m.harmed, m.damaged = false, false, nil
		m.mu.Unlock()
		m.hold(false)
		err = c.join(m)
	}
	if err != nil {
		c.violation("membership", "%v", err)
	}
}

// newID numbers members that never were.
func (c *cluster) newID() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.replaced++
	return len(c.members) + c.replaced
}
