package mvcc

import (
	"context"
	"errors"
	"sync"
)

// ErrWatchClosed is returned by Next after Close.
var ErrWatchClosed = errors.New("watch is closed")

// maxEventsPerNext bounds one answer of Next, so that a watcher which is far
// behind neither allocates nor blocks for long.
const maxEventsPerNext = 1024

// Watcher delivers the events of a prefix in order. It is only a cursor: a
// slow watcher costs nothing until the history it still needs is compacted,
// and then it is told so.
type Watcher struct {
	state  *State
	prefix string
	cursor int64 // owned by the caller of Next
	closed chan struct{}
	once   sync.Once
}

// Watch starts a watcher for events with revision > after. It fails with
// ErrCompacted if some of those are gone already.
func (s *State) Watch(prefix string, after int64) (*Watcher, error) {
	if _, _, err := s.View().Events(nil, prefix, after, 0); err != nil {
		return nil, err
	}
	return &Watcher{state: s, prefix: prefix, cursor: after, closed: make(chan struct{})}, nil
}

// Next waits until the store moved beyond what was delivered and returns the
// events of the prefix, possibly none, and the progress: everything up to that
// revision has been delivered. One goroutine at a time may call it.
func (w *Watcher) Next(ctx context.Context) ([]Event, int64, error) {
	for {
		changed := w.state.Changed()
		v := w.state.View()
		if v.revision > w.cursor || w.cursor < v.compacted {
			events, progress, err := v.Events(nil, w.prefix, w.cursor, maxEventsPerNext)
			if err != nil {
				return nil, w.cursor, err
			}
			w.cursor = progress
			return events, progress, nil
		}
		select {
		case <-changed:
		case <-w.closed:
			return nil, w.cursor, ErrWatchClosed
		case <-ctx.Done():
			return nil, w.cursor, ctx.Err()
		}
	}
}

// Close ends the watch and wakes a waiting Next. It may be called more than
// once and by any goroutine.
func (w *Watcher) Close() { w.once.Do(func() { close(w.closed) }) }

// WaitRevision blocks until the revision is published.
func (s *State) WaitRevision(ctx context.Context, revision int64) error {
	for {
		changed := s.Changed()
		if s.View().revision >= revision {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
