package resilience

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync/atomic"
	"time"
)

// calm is what is going on between two faults.
const calm = "calm"

// Mistreatment does one fault after the other.
type Mistreatment struct {
	Cluster *Cluster
	Faults  []Fault
	// Length is how long it goes on; the last fault is finished.
	Length time.Duration
	Seed   uint64
	Record *Record
	Logger *slog.Logger

	during atomic.Pointer[string]
	done   map[string]int
}

// During names what is being done at the moment.
func (m *Mistreatment) During() string {
	if now := m.during.Load(); now != nil {
		return *now
	}
	return calm
}

// Run mistreats the cluster. After each fault a write must be acknowledged in
// time: the cluster is whole then, whatever it has been through.
func (m *Mistreatment) Run(ctx context.Context) error {
	random := rand.New(rand.NewPCG(m.Seed, 42))
	m.done = map[string]int{}
	end := time.Now().Add(m.Length)
	var bag []Fault
	for time.Now().Before(end) && ctx.Err() == nil {
		m.say(calm)
		sleep(ctx, 300*time.Millisecond+upTo(random, 900*time.Millisecond))
		if len(bag) == 0 {
			// Each fault once, in a new order, before any comes again.
			bag = append(bag, m.Faults...)
			random.Shuffle(len(bag), func(i, j int) { bag[i], bag[j] = bag[j], bag[i] })
		}
		fault := bag[0]
		bag = bag[1:]
		begin := time.Now()
		m.say(fault.Name)
		if err := fault.Do(ctx, m.Cluster, random); err != nil {
			return fmt.Errorf("%s: %w", fault.Name, err)
		}
		m.done[fault.Name]++
		healed := time.Now()
		err := eventually(ctx, writeAgain, "acknowledge a write after "+fault.Name, func(context.Context) error {
			if m.Record.lastAcknowledged().After(healed) {
				return nil
			}
			return fmt.Errorf("none since %s", time.Since(m.Record.lastAcknowledged()).Round(time.Millisecond))
		})
		m.Logger.Info("fault", "name", fault.Name, "lasted", healed.Sub(begin).Round(time.Millisecond), "writtenAfter", time.Since(healed).Round(time.Millisecond))
		if err != nil {
			return err
		}
	}
	m.say(calm)
	return nil
}

func (m *Mistreatment) say(what string) { m.during.Store(&what) }

// lastAcknowledged is when a write was acknowledged last.
func (r *Record) lastAcknowledged() time.Time {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.lastAck
}
