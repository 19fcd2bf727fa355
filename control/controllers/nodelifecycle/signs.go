package nodelifecycle

import (
	"sync"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
)

// signsOfLife remembers, by this process's clock, when each node was last heard of.
// The nodes' own times are compared only with each other, so their clocks may be
// wrong.
type signsOfLife struct {
	mu  sync.Mutex // guards all
	all map[string]*sign
}

type sign struct {
	seen      time.Time
	heartbeat time.Time
	renewed   time.Time
}

func newSignsOfLife() *signsOfLife {
	return &signsOfLife{all: map[string]*sign{}}
}

// of returns the node's entry; the caller holds the mutex.
func (s *signsOfLife) of(node string, now time.Time) *sign {
	one := s.all[node]
	if one == nil {
		// Whatever is there when this process begins to look counts as fresh.
		one = &sign{seen: now}
		s.all[node] = one
	}
	return one
}

// condition takes up the heartbeat in the node's Ready condition.
func (s *signsOfLife) condition(node *corev1.Node, now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	one := s.of(node.Name, now)
	ready := condition(node, corev1.NodeReady)
	if ready == nil {
		return
	}
	if !ready.LastHeartbeatTime.Time.Equal(one.heartbeat) {
		one.heartbeat = ready.LastHeartbeatTime.Time
		one.seen = now
	}
}

// lease takes up a renewal of the node's lease. Any other time than before is one:
// a clock that was ahead and is put right goes back, and the node renews on.
func (s *signsOfLife) lease(lease *coordinationv1.Lease, now time.Time) {
	if lease.Spec.RenewTime == nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	one := s.of(lease.Name, now)
	if !lease.Spec.RenewTime.Time.Equal(one.renewed) {
		one.renewed = lease.Spec.RenewTime.Time
		one.seen = now
	}
}

// seen returns when the node was last heard of. One that never reported counts
// from when this process first saw it, not from its creation: while the control
// plane was away it could not report.
func (s *signsOfLife) seen(node *corev1.Node, now time.Time) time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.of(node.Name, now).seen
}

// renewed returns the last renewal known of the node's lease, by the node's clock.
func (s *signsOfLife) renewed(node string) time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	if one := s.all[node]; one != nil {
		return one.renewed
	}
	return time.Time{}
}

// forgive moves everything that was seen later by a pause of this process.
func (s *signsOfLife) forgive(pause time.Duration, now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, one := range s.all {
		if one.seen = one.seen.Add(pause); one.seen.After(now) {
			one.seen = now
		}
	}
}

func (s *signsOfLife) forget(node string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.all, node)
}
