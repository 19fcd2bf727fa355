package resilience

import (
	"context"
	"math/rand/v2"
	"time"

	"golang.org/x/sys/unix"

	"github.com/skiff-run/skiff/test/host"
)

// Fault mistreats a cluster and makes it whole again. Do returns when it has
// done both.
type Fault struct {
	Name string
	Do   func(ctx context.Context, c *Cluster, random *rand.Rand) error
}

// Faults are what a short run has time for, in the order of the table that a
// report prints. Each is as likely as any other.
var Faults = append(mistreatments, administration...)

// mistreatments are what happens to machines, processes and cables.
var mistreatments = []Fault{
	{"kill -9 one", func(ctx context.Context, c *Cluster, random *rand.Rand) error {
		return c.one(random).Kill(upTo(random, time.Second))
	}},
	{"kill -9 the leader", func(ctx context.Context, c *Cluster, random *rand.Rand) error {
		return c.leader(ctx, random).Kill(upTo(random, 2*time.Second))
	}},
	{"kill -9 all", func(ctx context.Context, c *Cluster, random *rand.Rand) error {
		for _, m := range c.Members {
			if err := m.Kill(upTo(random, time.Second)); err != nil {
				return err
			}
		}
		return nil
	}},
	{"pause one", func(ctx context.Context, c *Cluster, random *rand.Rand) error {
		return c.pause(ctx, c.one(random), 200*time.Millisecond+upTo(random, c.LongestPause))
	}},
	{"pause the leader", func(ctx context.Context, c *Cluster, random *rand.Rand) error {
		return c.pause(ctx, c.leader(ctx, random), 200*time.Millisecond+upTo(random, c.LongestPause))
	}},
	{"cut one off", func(ctx context.Context, c *Cluster, random *rand.Rand) error {
		m := c.one(random)
		return c.cut(ctx, random, host.Between([]*host.Host{m.Host}, c.others(m)))
	}},
	{"cut the leader off", func(ctx context.Context, c *Cluster, random *rand.Rand) error {
		m := c.leader(ctx, random)
		return c.cut(ctx, random, host.Between([]*host.Host{m.Host}, c.others(m)))
	}},
	{"cut all from all", func(ctx context.Context, c *Cluster, random *rand.Rand) error {
		var all []host.Direction
		for _, m := range c.Members {
			for _, other := range c.others(m) {
				all = append(all, host.Direction{From: m.Host, To: other})
			}
		}
		return c.cut(ctx, random, all)
	}},
	{"one way: the leader is not heard", func(ctx context.Context, c *Cluster, random *rand.Rand) error {
		m := c.leader(ctx, random)
		var out []host.Direction
		for _, other := range c.others(m) {
			out = append(out, host.Direction{From: m.Host, To: other})
		}
		return c.cut(ctx, random, out)
	}},
	{"one way: one hears nobody", func(ctx context.Context, c *Cluster, random *rand.Rand) error {
		m := c.one(random)
		var in []host.Direction
		for _, other := range c.others(m) {
			in = append(in, host.Direction{From: other, To: m.Host})
		}
		return c.cut(ctx, random, in)
	}},
	{"one way: leader to one follower", func(ctx context.Context, c *Cluster, random *rand.Rand) error {
		m := c.leader(ctx, random)
		others := c.others(m)
		return c.cut(ctx, random, []host.Direction{{From: m.Host, To: others[random.IntN(len(others))]}})
	}},
	{"bridge: two see only the third", func(ctx context.Context, c *Cluster, random *rand.Rand) error {
		others := c.others(c.one(random))
		return c.cut(ctx, random, host.Both(others[0], others[1]))
	}},
	{"pull the leader's cable", func(ctx context.Context, c *Cluster, random *rand.Rand) error {
		if err := c.Network.Unplug(c.leader(ctx, random).Host); err != nil {
			return err
		}
		return c.healAfter(ctx, 500*time.Millisecond+upTo(random, c.LongestCut))
	}},
	{"lose a third of all frames", func(ctx context.Context, c *Cluster, random *rand.Rand) error {
		var all []host.Direction
		for _, m := range c.Members {
			for _, other := range c.others(m) {
				all = append(all, host.Direction{From: m.Host, To: other})
			}
		}
		if err := c.Network.Lose(33, all...); err != nil {
			return err
		}
		return c.healAfter(ctx, 500*time.Millisecond+upTo(random, c.LongestCut))
	}},
	{"restart all, one after the other", func(ctx context.Context, c *Cluster, random *rand.Rand) error {
		for _, m := range c.Members {
			if err := m.Terminate(); err != nil {
				return err
			}
			if err := c.ready(ctx, m); err != nil {
				return err
			}
		}
		return nil
	}},
	{"reboot one", func(ctx context.Context, c *Cluster, random *rand.Rand) error {
		m := c.one(random)
		for m.Small {
			m = c.one(random)
		}
		m.expectEnd()
		if err := m.PowerOff(ctx); err != nil {
			return err
		}
		sleep(ctx, upTo(random, time.Second))
		return m.Boot()
	}},
}

// upTo draws a time below a limit.
func upTo(random *rand.Rand, limit time.Duration) time.Duration {
	return time.Duration(random.Int64N(int64(limit)))
}

// sleep lets a fault last.
func sleep(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

func (c *Cluster) one(random *rand.Rand) *Member { return c.Members[random.IntN(len(c.Members))] }

func (c *Cluster) others(m *Member) []*host.Host {
	var others []*host.Host
	for _, other := range c.Members {
		if other != m {
			others = append(others, other.Host)
		}
	}
	return others
}

func (c *Cluster) pause(ctx context.Context, m *Member, length time.Duration) error {
	if _, err := m.Signal(controlProgram, unix.SIGSTOP); err != nil {
		return err
	}
	sleep(ctx, length)
	_, err := m.Signal(controlProgram, unix.SIGCONT)
	return err
}

func (c *Cluster) cut(ctx context.Context, random *rand.Rand, directions []host.Direction) error {
	if err := c.Network.Cut(directions...); err != nil {
		return err
	}
	return c.healAfter(ctx, 500*time.Millisecond+upTo(random, c.LongestCut))
}

func (c *Cluster) healAfter(ctx context.Context, length time.Duration) error {
	sleep(ctx, length)
	return c.Network.Heal()
}

// ready waits until a restarted member says that it is ready.
func (c *Cluster) ready(ctx context.Context, m *Member) error {
	return eventually(ctx, writeAgain, "wait for "+m.Name+" to be ready", func(ctx context.Context) error {
		return c.server(m).ready(ctx)
	})
}
