package raftstore

import (
	"context"
	"sync"
)

// leadership is the store's answer to "does this member lead": raft's opinion
// and the epoch command applied, so that who starts work on it sees everything
// earlier leaders committed; and not while leadership is being given up.
type leadership struct {
	mu          sync.Mutex // guards all below
	leading     bool       // the answer
	led         bool       // the answer, if it were not being given up
	resigned    bool
	changed     chan struct{} // closed and replaced on each change
	subscribers map[*Subscription]struct{}
}

func newLeadership() *leadership {
	return &leadership{changed: make(chan struct{}), subscribers: map[*Subscription]struct{}{}}
}

// set is told whether this member leads.
func (l *leadership) set(leading bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.led = leading
	l.update()
}

// update tells everybody of a new answer; the caller holds mu.
func (l *leadership) update() {
	leading := l.led && !l.resigned
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

// resign tells the subscribers that leadership ends, before it does, and waits
// until those that say so have settled, or ctx ends. It holds until resume.
func (l *leadership) resign(ctx context.Context) {
	l.mu.Lock()
	l.resigned = true
	l.update()
	var waiting []<-chan struct{}
	for s := range l.subscribers {
		if s.unsettled != nil {
			waiting = append(waiting, s.unsettled)
		}
	}
	l.mu.Unlock()
	for _, settled := range waiting {
		select {
		case <-settled:
		case <-ctx.Done():
			return
		}
	}
}

// resume ends resign: the answer is raft's again.
func (l *leadership) resume() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.resigned = false
	l.update()
}

// lost ends a resignation that came too late: leadership had been lost before,
// and nobody else would end it.
func (l *leadership) lost() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.led {
		l.resigned = false
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
	settles    bool          // it has called Settled; guarded by leadership.mu
	unsettled  chan struct{} // until it has settled after the last answer; likewise
}

// tell replaces an answer that was not fetched. Only the holder of
// leadership.mu sends, so the second send finds room.
func (s *Subscription) tell(leading bool) {
	select {
	case <-s.c:
	default:
	}
	s.c <- leading
	if s.settles && s.unsettled == nil {
		s.unsettled = make(chan struct{})
	}
}

// Settled says that the subscriber has done what the last answer it received
// from C asks for. When this member gives leadership up by itself, it tells its
// subscribers first and waits a moment for those which use Settled, so that
// their work ends before another member's begins. When leadership is lost
// nothing can wait.
func (s *Subscription) Settled() {
	s.leadership.mu.Lock()
	defer s.leadership.mu.Unlock()
	s.settles = true
	if len(s.c) == 0 {
		s.settle()
	}
}

// settle releases who waits; the caller holds leadership.mu.
func (s *Subscription) settle() {
	if s.unsettled != nil {
		close(s.unsettled)
		s.unsettled = nil
	}
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
	s.settle()
}

// Subscribe starts a subscription of leadership. The caller closes it.
func (s *Store) Subscribe() *Subscription { return s.leadership.subscribe() }

// IsLeader reports whether this member leads and has applied everything its
// predecessors committed.
func (s *Store) IsLeader() bool {
	leading, _ := s.leadership.get()
	return leading
}
