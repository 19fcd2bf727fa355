package raftstore

import (
	"context"
	"sync"
)

// reads lets many readers share few rounds. A reader needs an answer that was
// asked for after it came; so one round is on its way, and who comes meanwhile
// shares the next one, never the running one.
type reads struct {
	ask  func(context.Context) (uint64, error)
	ctx  context.Context // the store's
	kick chan struct{}

	mu   sync.Mutex // guards next
	next *round     // the one that has not begun, nil if nobody waits for it
}

// round is one question and its answer.
type round struct {
	done  chan struct{} // closed when the answer is there
	index uint64
	err   error
}

func newReads(s *Store, ask func(context.Context) (uint64, error)) *reads {
	return &reads{ask: ask, ctx: s.ctx, kick: make(chan struct{}, 1)}
}

// index waits for the answer of a round that begins after the call.
func (r *reads) index(ctx context.Context) (uint64, error) {
	r.mu.Lock()
	if r.next == nil {
		r.next = &round{done: make(chan struct{})}
		select {
		case r.kick <- struct{}{}:
		default:
		}
	}
	mine := r.next
	r.mu.Unlock()
	select {
	case <-mine.done:
		return mine.index, mine.err
	case <-ctx.Done():
		return 0, ctx.Err()
	case <-r.ctx.Done():
		return 0, ErrClosed
	}
}

// run asks one round after another, until the store closes.
func (r *reads) run() {
	for {
		select {
		case <-r.kick:
		case <-r.ctx.Done():
			return
		}
		r.mu.Lock()
		current := r.next
		r.next = nil
		r.mu.Unlock()
		if current == nil {
			continue
		}
		current.index, current.err = r.ask(r.ctx)
		close(current.done)
	}
}
