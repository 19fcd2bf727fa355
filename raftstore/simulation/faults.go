package simulation

import (
	"context"
	"slices"
	"time"
)

// The kinds of faults.
const (
	faultKill        = "kill -9 of one"
	faultKillAll     = "kill -9 of all"
	faultPower       = "power loss of one"
	faultPowerAll    = "power loss of all"
	faultStop        = "orderly stop of one"
	faultFreeze      = "pause of one"
	faultFreezeLead  = "pause of the leader"
	faultIsolate     = "partition: one alone"
	faultIsolateLead = "partition: the leader alone"
	faultHalves      = "partition: two sides"
	faultBridge      = "partition: a bridge"
	faultOneWay      = "partition: one way"
	faultStorm       = "network: loss, delay, repetition, reordering"
	faultTransfer    = "leadership transfer"
	faultSlow        = "disk: slow"
	faultHung        = "disk: hangs"
	faultSync        = "disk: a sync fails"
	faultFailing     = "disk: fails"
	faultFull        = "disk: full"
	faultFlip        = "disk: a flipped bit"
	faultDelete      = "disk: a deleted file"
	faultReplace     = "replacement of a member"
	faultClock       = "a clock jumps"
)

var faultKinds = []string{
	faultKill, faultKillAll, faultPower, faultPowerAll, faultStop, faultFreeze, faultFreezeLead, faultIsolate, faultIsolateLead,
	faultHalves, faultBridge, faultOneWay, faultStorm, faultTransfer,
	faultSlow, faultHung, faultSync, faultFailing, faultFull, faultFlip, faultDelete, faultReplace, faultClock,
}

// mistreat lets one fault after another happen until ctx ends, and then heals
// everything. A fault may begin while members are still down from an earlier one.
func (c *cluster) mistreat(ctx context.Context) {
	kinds := c.config.Faults
	if kinds == nil {
		kinds = faultKinds
	}
	for len(kinds) > 0 && c.sleep(ctx, c.about(c.config.FaultPause)) {
		kind := kinds[c.intN(len(kinds))]
		heal := c.fault(kind)
		if heal == nil {
			continue // it makes no sense now
		}
		c.count("fault: " + kind)
		c.sleep(ctx, c.about(c.config.FaultTime))
		heal()
	}
	<-ctx.Done()
	c.heal()
}

// heal puts the world in order and waits until every process runs.
func (c *cluster) heal() {
	c.network.setCut()
	c.network.setWeather(c.fair())
	for _, m := range c.members {
		m.disk.Heal()
		if p := m.current(); p != nil {
			p.endpoint.freeze(false)
		}
		m.excuse(false)
		m.hold(false)
	}
	up := c.eventually(30*time.Second, func() bool {
		return !slices.ContainsFunc(c.members, func(m *member) bool { return m.serving() == nil })
	})
	if !up {
		c.violation("liveness", "a member does not start within 30 s after the world was healed")
	}
}

// leading is the member that leads, or any.
func (c *cluster) leading() *member {
	if p := c.leader(); p != nil {
		return p.member
	}
	return c.members[c.intN(len(c.members))]
}

func (c *cluster) anyone() *member { return c.members[c.intN(len(c.members))] }

func nothing() {}

// fault begins a fault and returns what ends it.
func (c *cluster) fault(kind string) func() {
	switch kind {
	case faultKill, faultPower:
		m := c.anyone()
		if c.intN(2) == 0 {
			m = c.leading()
		}
		return c.killed(kind == faultPower, m)
	case faultKillAll, faultPowerAll:
		return c.killed(kind == faultPowerAll, c.members...)
	case faultStop:
		m := c.anyone()
		m.hold(true)
		if p := m.serving(); p != nil {
			p.stop()
		}
		return func() { m.hold(false) }
	case faultFreeze:
		return c.frozen(c.anyone())
	case faultFreezeLead:
		return c.frozen(c.leading())
	case faultIsolate:
		return c.cut(c.around(c.anyone(), true, true))
	case faultIsolateLead:
		return c.cut(c.around(c.leading(), true, true))
	case faultOneWay:
		in := c.intN(2) == 0
		m := c.anyone()
		if c.intN(2) == 0 {
			m = c.leading()
		}
		return c.cut(c.around(m, in, !in))
	case faultHalves:
		return c.cut(c.sides(false))
	case faultBridge:
		return c.cut(c.sides(true))
	case faultSlow, faultHung, faultSync, faultFailing, faultFull:
		return c.failing(kind)
	case faultClock:
		// It stays where it is: machines whose clocks differ are nothing special.
		m := c.anyone()
		m.mu.Lock()
		defer m.mu.Unlock()
		m.clock = time.Duration(c.intN(7200)-3600) * time.Second
		return nothing
	case faultFlip, faultDelete, faultReplace:
		return c.harmed(kind)
	case faultStorm:
		c.network.setWeather(weather{
			delay: time.Duration(c.intN(20)) * time.Millisecond, jitter: time.Duration(1+c.intN(150)) * time.Millisecond,
			drop: float64(c.intN(40)) / 100, duplicate: float64(c.intN(30)) / 100,
		})
		return func() { c.network.setWeather(c.fair()) }
	case faultTransfer:
		p := c.leader()
		if p == nil {
			return nil
		}
		c.running.Go(func() { _ = p.raft.LeadershipTransfer().Error() })
		return nothing
	}
	panic("no such fault: " + kind)
}

// hold keeps the supervisor from starting the member.
func (m *member) hold(down bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.down = down
}

func (c *cluster) killed(power bool, members ...*member) func() {
	for _, m := range members {
		m.hold(true)
	}
	for _, m := range members {
		if p := m.current(); p != nil {
			p.die(power)
		}
	}
	return func() {
		for _, m := range members {
			m.hold(false)
		}
	}
}

// frozen stops a process as SIGSTOP does, as far as that is possible here: no
// message comes or goes, no client is answered, and a sync of the log waits,
// which holds raft's main loop: a leader goes on believing that it leads.
func (c *cluster) frozen(m *member) func() {
	p := m.serving()
	if p == nil {
		return nil
	}
	p.endpoint.freeze(true)
	m.excuse(true)
	m.disk.SetHung(true)
	c.running.Go(func() { _ = p.raft.Barrier(0).Error() })
	return func() {
		m.disk.SetHung(false)
		p.endpoint.freeze(false)
		m.excuse(false)
	}
}

// excuse says that the process may end by itself.
func (m *member) excuse(excused bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.excused = excused
}

func (c *cluster) cut(links []link) func() {
	c.network.setCut(links...)
	return func() { c.network.setCut() }
}

// around is the links to and from a member.
func (c *cluster) around(m *member, in, out bool) []link {
	var links []link
	for _, other := range c.members {
		if other == m {
			continue
		}
		if in {
			links = append(links, link{other.id(), m.id()})
		}
		if out {
			links = append(links, link{m.id(), other.id()})
		}
	}
	return links
}

// sides cuts the members into two, with one that reaches both if bridged.
func (c *cluster) sides(bridged bool) []link {
	ids := make([]string, len(c.members))
	for i, m := range c.members {
		ids[i] = m.id()
	}
	c.mu.Lock()
	c.random.Shuffle(len(ids), func(i, j int) { ids[i], ids[j] = ids[j], ids[i] })
	at := 1 + c.random.IntN(len(ids)-1)
	c.mu.Unlock()
	left, right := ids[:at], ids[at:]
	if bridged {
		if len(left) > 1 {
			left = left[1:]
		} else {
			right = right[1:]
		}
	}
	var links []link
	for _, a := range left {
		for _, b := range right {
			links = append(links, link{a, b}, link{b, a})
		}
	}
	return links
}
