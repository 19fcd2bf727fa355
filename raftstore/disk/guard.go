package disk

import (
	"fmt"
	"runtime"
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
	// Offline says that errors are returned where raft could not bear one.
	Offline bool

	mu     sync.Mutex // guards failed
	failed error

	released chan struct{} // closed by Release
	release  sync.Once
}

// NewGuard makes a guard which reports to fatal and stalled.
func NewGuard(fatal, stalled func(error), stallAfter time.Duration) *Guard {
	return &Guard{Fatal: fatal, Stalled: stalled, StallAfter: stallAfter, released: make(chan struct{})}
}

// Release ends the goroutines that were held, for a program which lives on
// after its store has failed. Nothing may depend on them any more.
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
	runtime.Goexit()
	return err
}

// watch runs one write under the stall watchdog. Raft's leader sends heartbeats
// from other goroutines while its disk hangs, so without the watchdog a cluster
// can have a leader and no progress for ever (hashicorp/raft issue 503).
func (g *Guard) watch(what string, write func() error) error {
	if err := g.Failed(); err != nil {
		return fmt.Errorf("%s: the log failed before: %w", what, err)
	}
	stalled := make(chan struct{})
	timer := time.AfterFunc(g.StallAfter, func() {
		defer close(stalled)
		g.Stalled(fmt.Errorf("%s: the disk has not answered for %s", what, g.StallAfter))
	})
	err := write()
	if !timer.Stop() {
		<-stalled
		g.Stalled(nil)
	}
	if err != nil {
		return g.Fail(fmt.Errorf("%s: %w", what, err))
	}
	return nil
}
