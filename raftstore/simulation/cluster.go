package simulation

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/skiff-run/skiff/raftstore"
	"github.com/skiff-run/skiff/raftstore/check"
	"github.com/skiff-run/skiff/raftstore/internal/faultfs"
	"github.com/skiff-run/skiff/raftstore/internal/inject"
)

// Config is one run. All of it comes from a seed; tests change parts of it.
type Config struct {
	Seed    uint64
	Members int
	// Duration is how long clients work and faults happen.
	Duration time.Duration
	Clients  int
	Watchers int
	// Pause is how long a client rests between two operations, on average.
	Pause time.Duration
	Keys  int
	// Options are the bounds of each store.
	Options raftstore.Options
	// FaultPause is how long the world is in order between two faults, FaultTime
	// how long a fault lasts, on average.
	FaultPause, FaultTime time.Duration
	// Delay is that of each message in fair weather.
	Delay time.Duration
	// Faults are the kinds that may happen; nil is all.
	Faults []string
	// Restart is the longest time until a process that died is started again.
	Restart time.Duration
	// Log gets what the stores log, nil for nothing.
	Log io.Writer

	// What is broken on purpose, to see that it is noticed.
	sabotage    inject.Parts
	lie         lie
	lyingDisk   bool // syncs do nothing
	forgetVotes bool // term and vote do not outlive a process
}

// FromSeed makes a run that is hard on the store.
func FromSeed(seed uint64) Config {
	r := rand.New(rand.NewPCG(seed, 0x5eed))
	between := func(low, high int) int { return low + r.IntN(high-low+1) }
	c := Config{
		Seed: seed, Members: 3, Duration: 90 * time.Second,
		Clients: between(4, 8), Watchers: between(2, 6), Keys: between(4, 24),
		Pause:      time.Duration(between(30, 90)) * time.Millisecond,
		FaultPause: time.Duration(between(1000, 4000)) * time.Millisecond,
		FaultTime:  time.Duration(between(300, 4000)) * time.Millisecond,
		Restart:    time.Duration(between(50, 2000)) * time.Millisecond,
	}
	if seed%4 == 3 {
		c.Members = 5
	}
	c.Delay = time.Duration(between(100, 400)) * time.Microsecond
	c.Options.SnapshotEntries = int64(between(20, 500))
	c.Options.TrailingEntries = int64(between(1, 100)) // so that who was away is sent a snapshot
	c.Options.SegmentSize = 1 << between(12, 16)
	c.Options.HistoryEvents = int64(1 << between(6, 12))
	if r.IntN(2) == 0 {
		c.Options.HistoryAge = time.Duration(between(5, 60)) * time.Second
	}
	return c
}

// Result says what a run did.
type Result struct {
	Config     Config
	Virtual    time.Duration
	Operations int
	Unknown    int
	Events     int // told to watchers
	Revisions  int64
	Terms      int
	Counts     map[string]int // faults and other happenings by name
	Faults     int
	Messages   int
	Snapshots  int // installed over the network
	// Unavailable is the longest time without an acknowledged write.
	Unavailable time.Duration
	Recovery    time.Duration // from the last heal to the next write
}

// cluster is one run under way.
type cluster struct {
	config    Config
	options   raftstore.Options
	sabotage  inject.Parts
	logger    *slog.Logger
	network   *network
	members   []*member
	history   *check.History
	log       *check.Log
	agreement *check.Agreement
	ctx       context.Context // ends when the world ends
	cancel    context.CancelFunc
	running   sync.WaitGroup

	mu       sync.Mutex // guards all below
	random   *rand.Rand
	found    []error
	counts   map[string]int
	watches  []*check.Watch
	lastAck  time.Time
	longest  time.Duration
	end      bool
	unknown  int
	replaced int
	failures map[string]int
}

func newCluster(c Config) *cluster {
	s := &cluster{
		config: c, options: c.Options, sabotage: c.sabotage, logger: quiet(c.Log),
		history: &check.History{}, log: check.NewLog(1), agreement: check.NewAgreement(),
		random: rand.New(rand.NewPCG(c.Seed, 1)), counts: map[string]int{}, failures: map[string]int{},
	}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	s.network = newNetwork(rand.New(rand.NewPCG(c.Seed, 2)), s.agreement.Leader)
	s.network.setWeather(s.fair())
	for i := range c.Members {
		m := &member{cluster: s, name: fmt.Sprintf("m%d", i+1), founds: i == 0, disk: faultfs.New()}
		m.disk.SetLying(c.lyingDisk, "")
		s.members = append(s.members, m)
	}
	return s
}

// fair is how links behave when nothing is wrong.
func (c *cluster) fair() weather { return weather{delay: c.config.Delay, jitter: c.config.Delay} }

func (c *cluster) violation(kind, format string, args ...any) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.found) < 20 {
		c.found = append(c.found, fmt.Errorf("%s: %s", kind, fmt.Sprintf(format, args...)))
	}
}

func (c *cluster) count(what string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.counts[what]++
}

func (c *cluster) withRandom(f func(*rand.Rand)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	f(c.random)
}

// about is a random time around d.
func (c *cluster) about(d time.Duration) time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	return time.Duration(c.random.Int64N(int64(2*d) + 1))
}

func (c *cluster) intN(n int) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.random.IntN(n)
}

// draining says that the world is ending and members close.
func (c *cluster) draining() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.end
}

// acknowledged notes an answered write.
func (c *cluster) acknowledged(revision int64) {
	c.agreement.Answered(revision)
	c.mu.Lock()
	defer c.mu.Unlock()
	now := time.Now()
	if !c.lastAck.IsZero() {
		c.longest = max(c.longest, now.Sub(c.lastAck))
	}
	c.lastAck = now
}

// sleep lets virtual time pass; it reports false when the world ends.
func (c *cluster) sleep(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// eventually waits for a condition in virtual time.
func (c *cluster) eventually(within time.Duration, condition func() bool) bool {
	deadline := time.Now().Add(within)
	for !condition() {
		if time.Now().After(deadline) {
			return false
		}
		time.Sleep(10 * time.Millisecond)
	}
	return true
}

// leader is the process that leads, nil if none is known to.
func (c *cluster) leader() *process {
	for _, m := range c.members {
		if p := m.serving(); p != nil && p.store.IsLeader() {
			return p
		}
	}
	return nil
}

// found makes one cluster of the members.
func (c *cluster) assemble() error {
	restart := func() time.Duration { return c.about(c.config.Restart / 2) }
	for _, m := range c.members {
		c.running.Go(func() { m.supervise(restart) })
	}
	if !c.eventually(20*time.Second, func() bool { return c.leader() != nil }) {
		return errors.New("no member leads at the beginning")
	}
	for _, m := range c.members[1:] {
		if err := c.join(m); err != nil {
			return err
		}
	}
	return nil
}

// Run lives through one run. It must be called in a bubble of synctest; the
// returned verdict runs the checkers, which need real time, outside of it.
func Run(config Config) (*Result, func() error) {
	c := newCluster(config)
	began := time.Now()
	if err := c.assemble(); err != nil {
		c.violation("beginning", "%v", err)
	} else {
		c.live()
	}
	c.close()
	result := c.result(time.Since(began))
	return result, func() error { return c.verdict() }
}

// live runs clients, watchers and faults, and then checks that all recovers.
func (c *cluster) live() {
	working, rest := context.WithTimeout(c.ctx, c.config.Duration)
	defer rest()
	watching, endWatching := context.WithCancel(c.ctx)
	defer endWatching()
	var clients, watchers sync.WaitGroup
	for i := range c.config.Clients {
		clients.Go(func() { newClient(c, i).work(working) })
	}
	for i := range c.config.Watchers {
		watchers.Go(func() { c.watch(watching, i) })
	}
	c.mistreat(working)
	clients.Wait()
	c.recovers()
	endWatching()
	watchers.Wait()
}

// recovers checks that a healed cluster takes writes within 5 seconds and that
// its members converge within 10.
func (c *cluster) recovers() {
	healed := time.Now()
	last := newClient(c, c.config.Clients)
	written := c.eventually(5*time.Second, func() bool { return last.put(c.ctx) })
	if !written {
		c.violation("liveness", "no write within 5 s after the last fault was healed")
		return
	}
	if !c.eventually(5*time.Second, func() bool { return c.leader() != nil }) {
		c.violation("liveness", "writes are answered, but for 5 s no member said that it leads")
	}
	c.mu.Lock()
	c.counts["recovery ms"] = int(time.Since(healed).Milliseconds())
	c.mu.Unlock()
	state := ""
	converged := c.eventually(10*time.Second, func() bool {
		state = ""
		for _, m := range c.members {
			p := m.serving()
			if p == nil || p.store.Ready() != nil || p.store.Revision() != c.log.Last() {
				return false
			}
			if state == "" {
				state = p.stateHash()
			}
			if p.stateHash() != state {
				return false
			}
		}
		return true
	})
	if converged {
		return
	}
	for _, m := range c.members {
		if p := m.serving(); p != nil {
			c.violation("liveness", "%s is at revision %d (%s), the log at %d, 10 s after the last write: %+v", p.name, p.store.Revision(), p.stateHash(), c.log.Last(), p.store.Status())
		} else {
			c.violation("liveness", "%s is down 10 s after the last write: %v", m.id(), m.damaged)
		}
	}
}

// close ends the world in good order.
func (c *cluster) close() {
	c.mu.Lock()
	c.end = true
	c.mu.Unlock()
	c.cancel()
	for _, m := range c.members {
		m.disk.Heal()
		if p := m.current(); p != nil {
			p.endpoint.freeze(false)
			p.stop()
		}
	}
	c.running.Wait()
}

func (c *cluster) result(virtual time.Duration) *Result {
	c.network.mu.Lock()
	network := c.network.counts
	c.network.mu.Unlock()
	c.mu.Lock()
	defer c.mu.Unlock()
	r := &Result{
		Config: c.config, Virtual: virtual, Operations: len(c.history.Operations()), Unknown: c.unknown, Revisions: c.log.Last(),
		Terms: c.agreement.Terms(), Counts: c.counts, Messages: network.sent, Snapshots: network.snapshots, Unavailable: c.longest,
		Recovery: time.Duration(c.counts["recovery ms"]) * time.Millisecond,
	}
	for _, kind := range faultKinds {
		r.Faults += c.counts["fault: "+kind]
	}
	for _, w := range c.watches {
		for _, answer := range w.Responses {
			r.Events += len(answer.Events)
		}
	}
	return r
}

// verdict is everything the checkers find.
func (c *cluster) verdict() error {
	operations := c.history.Operations()
	found := append([]error{}, c.found...)
	found = append(found, c.agreement.Err(), check.Ordered(operations, c.log), check.Durable(operations, c.log, expires), check.Watched(c.watches, c.log))
	if len(found) > 0 && errors.Join(found...) == nil {
		all := append(operations, check.Expiries(operations, c.log, expires)...)
		found = append(found, check.Linearizable(all, c.log, time.Minute))
	}
	return errors.Join(found...)
}
