package raftstore

import (
	"context"
	"sync"
)

// mark is a number that only grows and that can be waited for.
type mark struct {
	mu      sync.Mutex // guards all below
	value   uint64
	changed chan struct{} // made by who waits, closed by raise
}

func (m *mark) get() uint64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.value
}

// raise sets the value, if it is larger.
func (m *mark) raise(value uint64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if value <= m.value {
		return
	}
	m.value = value
	if m.changed != nil {
		close(m.changed)
		m.changed = nil
	}
}

// reached returns nil if the value is there, or a channel that is closed when
// it has grown.
func (m *mark) reached(value uint64) <-chan struct{} {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.value >= value {
		return nil
	}
	if m.changed == nil {
		m.changed = make(chan struct{})
	}
	return m.changed
}

// wait blocks until the value is there, ctx ends or closing is closed.
func (m *mark) wait(ctx context.Context, value uint64, closing <-chan struct{}) error {
	for {
		changed := m.reached(value)
		if changed == nil {
			return nil
		}
		select {
		case <-changed:
		case <-closing:
			return ErrClosed
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
