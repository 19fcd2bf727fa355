package cgroup

import (
	"sync"
	"time"
)

// CPURate tells how fast computing time is used, from notes taken now and then.
// Its zero value is ready, and its methods may be called from many goroutines.
type CPURate struct {
	mu sync.Mutex // guards the two latest notes
	// older and newer; zero before they are taken.
	older, newer cpuNote
}

type cpuNote struct {
	at   time.Time
	used uint64
}

const (
	// minWindow is the least time over which a rate says something; window is what it should be over.
	minWindow = time.Second
	window    = 10 * time.Second
	// recent is how long ago a start may be to tell of the present.
	recent = time.Minute
)

// Note remembers that used nanoseconds had been computed by now.
func (r *CPURate) Note(now time.Time, used uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.older, r.newer = r.newer, cpuNote{now, used}
}

// Since returns the nanoseconds computed in a second, over the window that ends
// now: since the latest note that is old enough, or since the start when that was
// not long ago. A window of 0 says that nothing can be said yet.
func (r *CPURate) Since(now time.Time, used uint64, started time.Time) (nanoCores uint64, over time.Duration) {
	r.mu.Lock()
	notes := []cpuNote{r.newer, r.older}
	r.mu.Unlock()
	if now.Sub(started) < recent {
		// Everything it has used it has used since then.
		notes = append(notes, cpuNote{at: started})
	}
	for _, note := range notes {
		passed := now.Sub(note.at)
		if note.at.IsZero() || passed < minWindow || used < note.used {
			continue
		}
		nanoCores, over = uint64(float64(used-note.used)/passed.Seconds()), passed
		if over >= window {
			break
		}
	}
	return nanoCores, over
}
