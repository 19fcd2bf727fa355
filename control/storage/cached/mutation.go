package cached

import (
	"reflect"

	"k8s.io/apimachinery/pkg/util/diff"
)

// DetectMutations makes the hub keep a copy of each object beside the shared
// one and report when the two differ, with the object's key and the difference.
// It doubles the memory and is for tests. It must be called before any resource
// is used; report may be called by any goroutine.
func (h *Hub) DetectMutations(report func(key, difference string)) { h.mutated = report }

// CheckMutations compares everything that is kept now. Objects are also
// compared when the storage forgets them.
func (h *Hub) CheckMutations() {
	if h.mutated == nil {
		return
	}
	h.mu.Lock()
	var feeds []*feed
	for _, of := range h.feeds {
		feeds = append(feeds, of...)
	}
	h.mu.Unlock()
	for _, f := range feeds {
		for _, e := range f.memo.entries() {
			f.memo.compare(e)
		}
	}
}

// preserve keeps the copy that a decoded object is compared with.
func (m *memo) preserve(e *entry) {
	if m.hub.mutated != nil && e.err == nil {
		e.pristine = e.object.DeepCopyObject()
	}
	e.decoded.Store(true)
}

// compare reports an object that somebody has changed.
func (m *memo) compare(e *entry) {
	if m.hub.mutated == nil || !e.decoded.Load() || e.err != nil {
		return
	}
	if !reflect.DeepEqual(e.object, e.pristine) {
		m.hub.mutated(e.kv.Key, diff.Diff(e.pristine, e.object))
	}
}

// compareFrom compares the versions of a key that are forgotten.
func (m *memo) compareFrom(e *entry) {
	for ; e != nil; e = e.older {
		m.compare(e)
	}
}

// entries are all that are kept.
func (m *memo) entries() []*entry {
	m.mu.RLock()
	defer m.mu.RUnlock()
	all := make([]*entry, 0, len(m.newest))
	for _, e := range m.newest {
		for ; e != nil; e = e.older {
			all = append(all, e)
		}
	}
	return all
}
