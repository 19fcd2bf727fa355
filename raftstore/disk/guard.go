package disk

import (
	"fmt"
	"sync"
	"time"
)

// Guard decides what happens when the disk fails. There is no safe way to go
// on with a log whose last write failed: the kernel may have dropped the pages
// and report success next time. So the first error is handed to Fatal, which
// should end the process, and every later write is refused.
type Guard struct {
	// Fatal is told once about the first error.
	Fatal func(error)
	// Stalled is told when a write takes longer than StallAfter, with a nil
	// error when that write came back after all.
	Stalled    func(error)
	StallAfter time.Duration
	// Pace learns how long each write took. Slow, if set, is told whenever it
	// says that the disk is slow, already while a write is under way; it must not
	// block.
	Pace *Pace
	Slow func()
	// Wrote, if set, is told how long each append took.
	Wrote func(time.Duration)
	// Offline says that errors are returned where raft could not bear one.
	Offline bool

	mu     sync.Mutex // guards failed
	failed error

	broken   chan struct{} // closed by the first Fail
	released chan struct{} // closed by Release
	release  sync.Once
}

// NewGuard makes a guard which reports to fatal and stalled.
func NewGuard(fatal, stalled func(error), stallAfter time.Duration) *Guard {
	return &Guard{Fatal: fatal, Stalled: stalled, StallAfter: stallAfter, broken: make(chan struct{}), released: make(chan struct{})}
}

// Broken is closed when Failed is no longer nil.
func (g *Guard) Broken() <-chan struct{} { return g.broken }

// Release lets the goroutines that were held come to their end, for a program
// which lives on after its store has failed. Some go on as if their write had
// succeeded, so nobody may hear them any more: the network is closed before.
func (g *Guard) Release() { g.release.Do(func() { close(g.released) }) }

// Failed is the error which ended the log's life, nil while it lives.
func (g *Guard) Failed() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.failed
}

// Fail records the first error and reports it. It returns the error to hand
// to raft.
func (g *Guard) Fail(err error) error {
	g.mu.Lock()
	first := g.failed == nil
	if first {
		g.failed = err
	}
	g.mu.Unlock()
	if first {
		close(g.broken)
		g.Fatal(err)
	}
	return err
}

// hold is Fail for callers that cannot bear an error: raft panics when the term
// cannot be saved or a record cannot be read, and a panic would hide the reason.
// The caller's goroutine waits here for the end of the process, which is near.
func (g *Guard) hold(err error) error {
	_ = g.Fail(err)
	if g.Offline {
		return err
	}
	<-g.released
	return nil
}

// watch runs one write under the stall watchdog. Raft's leader sends heartbeats
// from other goroutines while its disk hangs, so without the watchdog a cluster
// can have a leader and no progress for ever (hashicorp/raft issue 503).
func (g *Guard) watch(what string, write func() error) error {
	return g.attendTo(what, nil, write)
}

// watchAppend is watch for appends, by whose pace the disk is judged. There is
// one at a time.
func (g *Guard) watchAppend(what string, write func() error) error {
	return g.attendTo(what, g.Pace, write)
}

func (g *Guard) attendTo(what string, pace *Pace, write func() error) error {
	if err := g.Failed(); err != nil {
		return fmt.Errorf("%s: the log failed before: %w", what, err)
	}
	w := g.attend(what, pace)
	err := write()
	w.over()
	if err != nil {
		return g.Fail(fmt.Errorf("%s: %w", what, err))
	}
	return nil
}

// attendance watches one write.
type attendance struct {
	guard *Guard
	pace  *Pace // nil: the write says nothing about it
	what  string
	began time.Time

	mu      sync.Mutex // guards all below
	timer   *time.Timer
	done    bool
	stalled chan struct{} // nil until the write stalls, closed when that was told
}

// attend begins to watch a write. One timer serves both bounds: a write which
// comes back in time costs one.
func (g *Guard) attend(what string, pace *Pace) *attendance {
	w := &attendance{guard: g, pace: pace, what: what, began: time.Now()}
	w.mu.Lock()
	defer w.mu.Unlock()
	if p := pace; p != nil {
		p.begin(w.began)
		if p.SlowAfter < g.StallAfter {
			w.timer = time.AfterFunc(p.SlowAfter, w.slow)
			return w
		}
	}
	w.timer = time.AfterFunc(g.StallAfter, w.stall)
	return w
}

func (w *attendance) slow() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.done {
		return
	}
	w.timer = time.AfterFunc(w.guard.StallAfter-w.pace.SlowAfter, w.stall)
	w.guard.tellSlow()
}

func (w *attendance) stall() {
	w.mu.Lock()
	if w.done {
		w.mu.Unlock()
		return
	}
	w.stalled = make(chan struct{})
	w.mu.Unlock()
	defer close(w.stalled)
	w.guard.Stalled(fmt.Errorf("%s: the disk has not answered for %s", w.what, w.guard.StallAfter))
}

func (w *attendance) over() {
	w.mu.Lock()
	w.done = true
	w.timer.Stop()
	w.mu.Unlock()
	g, now := w.guard, time.Now()
	if w.stalled != nil {
		<-w.stalled
		g.Stalled(nil)
	}
	if w.pace == nil {
		return
	}
	took := now.Sub(w.began)
	w.pace.end(now, took)
	if g.Wrote != nil {
		g.Wrote(took)
	}
	if took > w.pace.TardyAfter && w.pace.Slow(now) != "" {
		g.tellSlow()
	}
}

func (g *Guard) tellSlow() {
	if g.Slow != nil {
		g.Slow()
	}
}
