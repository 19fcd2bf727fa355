package raftstore

import "sync"

// leadership is the store's answer to "does this member lead": raft's opinion
// and the epoch command applied, so that who starts work on it sees everything
// earlier leaders committed.
type leadership struct {
	mu          sync.Mutex // guards all below
	leading     bool
	changed     chan struct{} // closed and replaced on each change
	subscribers map[*Subscription]struct{}
}

func newLeadership() *leadership {
	return &leadership{changed: make(chan struct{}), subscribers: map[*Subscription]struct{}{}}
}

func (l *leadership) set(leading bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.leading == leading {
		return
	}
	l.leading = leading
	close(l.changed)
	l.changed = make(chan struct{})
	for s := range l.subscribers {
		s.tell(leading)
	}
}

// get returns the answer and a channel that is closed when it changes.
func (l *leadership) get() (bool, <-chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.leading, l.changed
}

// Subscription tells one subscriber about leadership.
type Subscription struct {
	// C has the newest answer to "does this member lead"; the current one is
	// there at once. Answers nobody received before the next are dropped.
	C <-chan bool

	c          chan bool
	leadership *leadership
}

// tell replaces an answer that was not fetched. Only the holder of
// leadership.mu sends, so the second send finds room.
func (s *Subscription) tell(leading bool) {
	select {
	case <-s.c:
	default:
	}
	s.c <- leading
}

func (l *leadership) subscribe() *Subscription {
	c := make(chan bool, 1)
	s := &Subscription{C: c, c: c, leadership: l}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.subscribers[s] = struct{}{}
	s.tell(l.leading)
	return s
}

// Close ends the subscription. The channel is not closed.
func (s *Subscription) Close() {
	s.leadership.mu.Lock()
	defer s.leadership.mu.Unlock()
	delete(s.leadership.subscribers, s)
}

// Subscribe starts a subscription of leadership. The caller closes it.
func (s *Store) Subscribe() *Subscription { return s.leadership.subscribe() }

// IsLeader reports whether this member leads and has applied everything its
// predecessors committed.
func (s *Store) IsLeader() bool {
	leading, _ := s.leadership.get()
	return leading
}
