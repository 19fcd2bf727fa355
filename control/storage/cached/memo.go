package cached

import (
	"context"
	"sync"
	"sync/atomic"

	"k8s.io/apimachinery/pkg/runtime"

	"github.com/skiff-run/skiff/raftstore"
)

// entry is one version of one key, decoded when first asked for. Whoever comes
// while it is being decoded waits for that instead of decoding again: a write's
// answer and its event come at the same moment.
type entry struct {
	kv    *raftstore.KeyValue
	older *entry // guarded by memo.mu; the version that the hub has not passed yet
	once  sync.Once
	// written once
	object  runtime.Object
	err     error
	decoded atomic.Bool
	// pristine is what object must stay equal to, see DetectMutations.
	pristine runtime.Object
}

// memo keeps the newest decoded version of each key of a resource.
type memo struct {
	hub    *Hub
	store  *raftstore.Store
	decode func(context.Context, *raftstore.KeyValue) (runtime.Object, error)

	mu     sync.RWMutex
	newest map[string]*entry
}

func newMemo(hub *Hub, decode func(context.Context, *raftstore.KeyValue) (runtime.Object, error)) *memo {
	return &memo{hub: hub, store: hub.store, decode: decode, newest: map[string]*entry{}}
}

// find walks from the newest version of a key to the one asked for.
func (e *entry) find(revision int64) *entry {
	for ; e != nil && e.kv.ModRevision >= revision; e = e.older {
		if e.kv.ModRevision == revision {
			return e
		}
	}
	return nil
}

// of returns the entry of a version. A version that is no longer the newest is
// not kept.
func (m *memo) of(kv *raftstore.KeyValue) *entry {
	m.mu.RLock()
	found := m.newest[kv.Key].find(kv.ModRevision)
	m.mu.RUnlock()
	if found != nil {
		return found
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if found := m.newest[kv.Key].find(kv.ModRevision); found != nil {
		return found
	}
	// Only what is in the store now may be kept: its end is still to come and
	// will pass here (see passed), while that of an older version may have.
	current, _, err := m.store.Get(kv.Key, 0)
	if err != nil || current == nil || current.ModRevision != kv.ModRevision {
		return &entry{kv: kv}
	}
	return m.push(kv)
}

// arrived returns the entry of a version that an event brings. Events come in
// order, so its end is still to come even if the store has moved on.
func (m *memo) arrived(kv *raftstore.KeyValue) *entry {
	m.mu.Lock()
	defer m.mu.Unlock()
	newest := m.newest[kv.Key]
	if found := newest.find(kv.ModRevision); found != nil {
		return found
	}
	if newest != nil && newest.kv.ModRevision > kv.ModRevision {
		return &entry{kv: kv}
	}
	return m.push(kv)
}

func (m *memo) push(kv *raftstore.KeyValue) *entry {
	fresh := &entry{kv: kv, older: m.newest[kv.Key]}
	m.newest[kv.Key] = fresh
	return fresh
}

// passed forgets what an event ended: nobody will ask for it any more.
func (m *memo) passed(event *raftstore.Event) {
	m.mu.Lock()
	defer m.mu.Unlock()
	newest := m.newest[event.KV.Key]
	if newest == nil {
		return
	}
	if newest.kv.ModRevision < event.Revision {
		delete(m.newest, event.KV.Key)
		m.compareFrom(newest)
		return
	}
	for e := newest; e != nil; e = e.older {
		if e.older != nil && e.older.kv.ModRevision < event.Revision {
			m.compareFrom(e.older)
			e.older = nil
		}
	}
}

// clear forgets everything.
func (m *memo) clear() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.newest = map[string]*entry{}
}

// size is how many keys have an entry.
func (m *memo) size() int {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return len(m.newest)
}

// open returns the decoded object of an entry, which is shared.
func (m *memo) open(ctx context.Context, e *entry) (runtime.Object, error) {
	e.once.Do(func() {
		// Others may wait for this one, so it does not end with who came first.
		e.object, e.err = m.decode(context.WithoutCancel(ctx), e.kv)
		if e.err != nil {
			m.drop(e)
		}
		m.preserve(e)
	})
	return e.object, e.err
}

// drop forgets a version that could not be decoded, so that it is tried again:
// a key of encryption may come back.
func (m *memo) drop(e *entry) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.newest[e.kv.Key] == e {
		delete(m.newest, e.kv.Key)
	}
}

// Object implements raw.Objects.
func (m *memo) Object(ctx context.Context, kv *raftstore.KeyValue) (runtime.Object, error) {
	return m.open(ctx, m.of(kv))
}
