package disk

import (
	"fmt"
	"sync"
	"time"
)

const (
	// paceWindow is how far back a slow disk is remembered.
	paceWindow = 30 * time.Second
	// paceSlots divides the window; what falls out of it does so by slots.
	paceSlots = 6
	// minTardy is how many writes must have been tardy before their share
	// counts: one hiccup is no slow disk.
	minTardy = 5
)

// Pace says whether a disk is slow, from how long recent writes took. A disk
// that is slow still works; one that hangs is the Guard's affair.
type Pace struct {
	// TardyAfter: when more than one in a hundred writes take longer, the disk
	// is slow. SlowAfter: when a single write takes longer, it is slow too.
	TardyAfter, SlowAfter time.Duration

	mu    sync.Mutex // guards all below
	slots [paceSlots]paceSlot
	began time.Time // of the write under way, zero if none
}

// paceSlot sums up the writes of one part of the window.
type paceSlot struct {
	number        int64 // which part of all time it is
	writes, tardy int
	worst         time.Duration
}

func slotNumber(at time.Time) int64 { return at.UnixNano() / int64(paceWindow/paceSlots) }

// begin notes that a write is under way.
func (p *Pace) begin(now time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.began = now
}

// end notes how long it took.
func (p *Pace) end(now time.Time, took time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.began = time.Time{}
	n := slotNumber(now)
	s := &p.slots[n%paceSlots]
	if s.number != n {
		*s = paceSlot{number: n}
	}
	s.writes++
	s.worst = max(s.worst, took)
	if took > p.TardyAfter {
		s.tardy++
	}
}

// Slow says why the disk counts as slow now, "" if it does not.
func (p *Pace) Slow(now time.Time) string {
	p.mu.Lock()
	defer p.mu.Unlock()
	if waited := now.Sub(p.began); !p.began.IsZero() && waited >= p.SlowAfter {
		return fmt.Sprintf("the disk is slow: a write to the log is under way for %s", waited.Round(time.Millisecond))
	}
	var recent paceSlot
	for _, s := range p.slots {
		if s.number > slotNumber(now)-paceSlots {
			recent.writes += s.writes
			recent.tardy += s.tardy
			recent.worst = max(recent.worst, s.worst)
		}
	}
	switch {
	case recent.worst > p.SlowAfter:
		return fmt.Sprintf("the disk is slow: a write to the log took %s within the last %s", recent.worst.Round(time.Millisecond), paceWindow)
	case recent.tardy >= minTardy && recent.tardy*100 > recent.writes:
		return fmt.Sprintf("the disk is slow: %d of %d writes to the log took over %s within the last %s, the worst %s",
			recent.tardy, recent.writes, p.TardyAfter, paceWindow, recent.worst.Round(time.Millisecond))
	}
	return ""
}
