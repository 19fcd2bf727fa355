package podworker

import (
	"context"
	"time"

	"github.com/skiff-run/skiff/agent/plan"
)

// operation is work in progress for a pod. There is at most one; while it runs
// the worker goes on looking and reporting.
type operation struct {
	cancel context.CancelFunc
	done   chan struct{}
	// stopping: it ends the pod with that grace period, in seconds.
	stopping bool
	grace    int64
}

// doneOrNever is closed when the operation has ended; nil operations never end.
func (o *operation) doneOrNever() <-chan struct{} {
	if o == nil {
		return nil
	}
	return o.done
}

// begin starts an operation. It must be nil before.
func (w *worker) begin(ctx context.Context, do func(context.Context)) *operation {
	ctx, cancel := context.WithCancel(ctx)
	o := &operation{cancel: cancel, done: make(chan struct{})}
	w.op = o
	go func() {
		defer close(o.done)
		defer cancel()
		do(ctx)
	}()
	return o
}

// endOperation cancels what is running and waits for it.
func (w *worker) endOperation() {
	if w.op == nil {
		return
	}
	w.op.cancel()
	<-w.op.done
	w.op = nil
}

// setFailed notes why something could not be started, and lets the status
// tell at once.
func (w *worker) setFailed(name string, f plan.Failed) {
	w.mu.Lock()
	w.failed[name] = f
	w.mu.Unlock()
	w.signal()
}

func (w *worker) clearFailed(name string) {
	w.mu.Lock()
	delete(w.failed, name)
	w.mu.Unlock()
}

// retry spaces the attempts at one thing that keeps failing.
type retry struct{ delay time.Duration }

const (
	firstRetry = 500 * time.Millisecond
	maxRetry   = 2 * time.Minute
)

// next is the delay before another attempt.
func (r *retry) next() time.Duration {
	if r.delay == 0 {
		r.delay = firstRetry
	} else {
		r.delay = min(2*r.delay, maxRetry)
	}
	return r.delay
}

func (r *retry) reset() { r.delay = 0 }
