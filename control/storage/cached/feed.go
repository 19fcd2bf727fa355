package cached

import (
	"context"
	"sync"
	"sync/atomic"

	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apiserver/pkg/storage"

	"github.com/skiff-run/skiff/raftstore"
)

// feed gives the events of one resource to its watchers.
type feed struct {
	prefix    string
	store     *raftstore.Store
	hub       *Hub
	memo      *memo
	versioner storage.Versioner
	newFunc   func() runtime.Object
	// attributes are an object's labels and selectable fields.
	attributes storage.AttrFunc
	indexers   storage.IndexerFuncs

	// sequence is the number of the last change.
	sequence atomic.Int64

	mu sync.Mutex // guards what follows and the state of the watchers
	// revision of the last event that was handed to the watchers: all earlier
	// ones of this resource were, too.
	revision int64
	// last is the newest change. Changes are linked forwards only: one that no
	// watcher stands at is garbage.
	last     *change
	watchers interests
}

// begin says where the feed starts.
func (f *feed) begin(revision int64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.revision, f.last = revision, &change{}
}

// apply handles the next event of the resource. The hub calls it.
func (f *feed) apply(event *raftstore.Event) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.revision = event.Revision
	// The memo is told last: the version that ended is still needed.
	defer f.memo.passed(event)
	if f.watchers.empty() {
		return
	}
	c := f.changeOf(event, f.memo.arrived)
	c.sequence = f.sequence.Add(1)
	f.last.next.Store(c)
	f.last = c
	f.watchers.concerned(c, f.indexers, func(w *watcher) { w.offer(c) })
}

// changeOf prepares an event for watchers.
func (f *feed) changeOf(event *raftstore.Event, entryOf func(*raftstore.KeyValue) *entry) *change {
	c := &change{feed: f, key: event.KV.Key, revision: event.Revision}
	if event.PrevKV != nil {
		c.before.entry = f.memo.of(event.PrevKV)
	}
	if event.Type == raftstore.EventPut {
		c.after.entry = entryOf(event.KV)
	}
	return c
}

// lost is told that events up to a revision will not come. Each watcher reads
// them from the store's history, or learns that they are gone.
func (f *feed) lost(now int64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.memo.clear()
	f.revision, f.last = now, &change{}
	f.watchers.all(func(w *watcher) {
		w.lost = true
		if !w.draining && !w.closed {
			w.draining = true
			go w.drain(nil, nil)
		}
	})
}

// end stops all watchers.
func (f *feed) end() {
	f.mu.Lock()
	var all []*watcher
	f.watchers.all(func(w *watcher) { all = append(all, w) })
	f.mu.Unlock()
	for _, w := range all {
		w.Stop()
	}
	f.memo.clear()
}

// progress is the revision up to which everything has been handed to the
// watchers. Callers hold mu.
func (f *feed) progress() int64 { return max(f.revision, f.hub.revision.Load()) }

// withRevision is a copy of a shared object at another revision.
func (f *feed) withRevision(object runtime.Object, revision int64) (runtime.Object, error) {
	copied := shallow(object)
	return copied, f.versioner.UpdateObject(copied, uint64(revision))
}

// open decodes a version; watches outlive no request, so no context bounds it.
func (f *feed) open(e *entry) (runtime.Object, error) {
	return f.memo.open(context.Background(), e)
}
