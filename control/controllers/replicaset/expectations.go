package replicaset

import (
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/types"

	"github.com/skiff-run/skiff/control/controllers/reconcile"
)

// expectationsTimeout is how long pods that were asked for and never seen keep a
// replica set waiting.
const expectationsTimeout = 5 * time.Minute

// expectations remember which creations and deletions the informer has yet to
// show, so that a replica set never creates or deletes twice because what it
// reads is older than what it wrote.
type expectations struct {
	now func() time.Time

	mu  sync.Mutex // guards all
	all map[reconcile.Key]*expected
}

type expected struct {
	creations int
	deletions map[types.UID]struct{}
	since     time.Time
}

func newExpectations(now func() time.Time) *expectations {
	return &expectations{now: now, all: map[reconcile.Key]*expected{}}
}

// expect sets what set has just decided to do.
func (e *expectations) expect(set reconcile.Key, creations int, deletions ...types.UID) {
	e.mu.Lock()
	defer e.mu.Unlock()
	one := &expected{creations: creations, since: e.now()}
	if len(deletions) > 0 {
		one.deletions = make(map[types.UID]struct{}, len(deletions))
		for _, uid := range deletions {
			one.deletions[uid] = struct{}{}
		}
	}
	e.all[set] = one
}

// created notes that count of the creations were seen, or will never be.
func (e *expectations) created(set reconcile.Key, count int) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if one := e.all[set]; one != nil {
		one.creations -= count
	}
}

// deleted notes that the pod's deletion was seen, or will never be.
func (e *expectations) deleted(set reconcile.Key, pod types.UID) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if one := e.all[set]; one != nil {
		delete(one.deletions, pod)
	}
}

// forget drops what is expected for a set that is gone.
func (e *expectations) forget(set reconcile.Key) {
	e.mu.Lock()
	defer e.mu.Unlock()
	delete(e.all, set)
}

// wait returns how long the set must still wait for its expectations at most;
// zero when they are fulfilled or too old to be believed.
func (e *expectations) wait(set reconcile.Key) time.Duration {
	e.mu.Lock()
	defer e.mu.Unlock()
	one := e.all[set]
	if one == nil {
		return 0
	}
	left := expectationsTimeout - e.now().Sub(one.since)
	if left <= 0 || (one.creations <= 0 && len(one.deletions) == 0) {
		delete(e.all, set)
		return 0
	}
	return left
}
