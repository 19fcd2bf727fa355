package nodelifecycle

import (
	"context"
	"sync"
	"time"
)

// pulsesPerGrace is how often, in the time a node may be silent, this process
// looks whether it runs itself.
const pulsesPerGrace = 5

// pulse notices that this process was paused, as a virtual machine is while it
// is moved or saved. No node could report meanwhile, so none is late for it.
type pulse struct {
	every time.Duration

	mu   sync.Mutex // guards last
	last time.Time  // zero while nobody feels it
}

// feel returns how long the process was paused since the last pulse, zero for
// what a crowded machine may delay.
func (p *pulse) feel(now time.Time) time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.last.IsZero() {
		return 0
	}
	gap := now.Sub(p.last)
	p.last = now
	if gap < 2*p.every {
		return 0
	}
	return gap
}

func (p *pulse) start(now time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.last = now
}

// feelPulse runs until ctx ends.
func (c *Controller) feelPulse(ctx context.Context) {
	ticker := time.NewTicker(c.pulse.every)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
			c.forgivePause(c.now())
		}
	}
}

// forgivePause takes the time this process was paused from every node's silence.
func (c *Controller) forgivePause(now time.Time) {
	if gap := c.pulse.feel(now); gap > 0 {
		c.logger.Warn("the control plane was paused; nodes get the time back to report", "pause", gap.Round(time.Millisecond))
		c.signs.forgive(gap, now)
	}
}
