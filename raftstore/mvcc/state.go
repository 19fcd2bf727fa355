package mvcc

import (
	"fmt"
	"sort"
	"sync/atomic"
)

// State is the writer's side of the store. Its mutating methods belong to one
// goroutine; View may be called by anyone.
type State struct {
	revision     int64
	compacted    int64
	trees        map[string]*growing
	dirty        []*growing
	history      history
	historyBytes int64
	roots        []root
	keys         int64
	bytes        int64
	expiries     *expiries

	published atomic.Pointer[View]
	changed   atomic.Pointer[chan struct{}]
}

// growing is a tree under change.
type growing struct {
	directory string
	items     *items
	bytes     int64
	dirty     bool
}

// maxRoots bounds how many older forests are kept. Each pins the tree nodes
// which changed since, so the bound is on memory; events between two roots are
// undone one by one.
const (
	maxRoots       = 8
	minRootSpacing = 1024
)

// New makes an empty store at FirstRevision.
func New() *State {
	s := &State{}
	s.reset(FirstRevision, 0)
	c := make(chan struct{})
	s.changed.Store(&c)
	s.publish(nil)
	return s
}

func (s *State) reset(revision, compacted int64) {
	s.revision, s.compacted = revision, compacted
	s.trees, s.dirty, s.roots = map[string]*growing{}, nil, nil
	s.history = history{base: max(compacted, FirstRevision) + 1}
	s.historyBytes, s.keys, s.bytes = 0, 0, 0
	s.expiries = newExpiries()
}

// View is the newest published view.
func (s *State) View() *View { return s.published.Load() }

// Revision is the newest revision, published or not. Writer only.
func (s *State) Revision() int64 { return s.revision }

// lookup finds a key in the unpublished state.
func (s *State) lookup(key string) *KeyValue {
	t := s.trees[directory(key)]
	if t == nil {
		return nil
	}
	kv, _ := t.items.Get(&KeyValue{Key: key})
	return kv
}

func (s *State) touch(dir string) *growing {
	t := s.trees[dir]
	if t == nil {
		t = &growing{directory: dir, items: newItems()}
		s.trees[dir] = t
	}
	if !t.dirty {
		t.dirty = true
		s.dirty = append(s.dirty, t)
	}
	return t
}

// matches decides a compare: expect is AnyRevision, 0 for "must not exist", or
// the modification revision the current version must have.
func matches(current *KeyValue, expect int64) bool {
	if expect == AnyRevision {
		return true
	}
	if current == nil {
		return expect == 0
	}
	return current.ModRevision == expect
}

// Put writes a key. When the compare fails nothing changes and no revision is
// consumed; kv is then the current version. previous is the version before the
// write. The value is kept, not copied.
func (s *State) Put(key string, value []byte, expect, expiresAt int64) (kv, previous *KeyValue, ok bool) {
	current := s.lookup(key)
	if !matches(current, expect) {
		return current, current, false
	}
	s.revision++
	kv = &KeyValue{Key: key, Value: value, CreateRevision: s.revision, ModRevision: s.revision, Version: 1, ExpiresAt: expiresAt}
	if current != nil {
		kv.Key = current.Key // one string for all versions
		kv.CreateRevision = current.CreateRevision
		kv.Version = current.Version + 1
	}
	s.insert(kv, current)
	s.record(Event{Type: Put, KV: kv, PrevKV: current, Revision: s.revision})
	return kv, current, true
}

// insert places a version in its tree instead of the previous one.
func (s *State) insert(kv, previous *KeyValue) {
	t := s.touch(directory(kv.Key))
	t.items.Set(kv)
	grown := kv.size()
	if previous != nil {
		grown -= previous.size()
		s.expiries.remove(previous)
	} else {
		s.keys++
	}
	t.bytes += grown
	s.bytes += grown
	s.expiries.add(kv)
}

// Delete removes a key. A missing key or a failed compare changes nothing;
// previous is the version deleted, or the current one on a failed compare.
func (s *State) Delete(key string, expect int64) (previous *KeyValue, ok bool) {
	current := s.lookup(key)
	if current == nil || !matches(current, expect) {
		return current, false
	}
	s.revision++
	t := s.touch(directory(key))
	t.items.Delete(current)
	t.bytes -= current.size()
	s.bytes -= current.size()
	s.keys--
	s.expiries.remove(current)
	s.record(Event{Type: Delete, KV: &KeyValue{Key: current.Key, ModRevision: s.revision}, PrevKV: current, Revision: s.revision})
	return current, true
}

// Expire deletes up to limit keys which expired before now (Unix seconds), each
// with its own revision, and returns how many it deleted.
func (s *State) Expire(now int64, limit int) int {
	n := 0
	for n < limit {
		key, ok := s.expiries.due(now)
		if !ok {
			break
		}
		s.Delete(key, AnyRevision)
		n++
	}
	return n
}

func (s *State) record(e Event) {
	s.history.append(e)
	w := e.weight()
	s.history.chunks[len(s.history.chunks)-1].bytes += w
	s.historyBytes += w
}

// Compact forgets the history up to and including revision; reading at that
// revision stays possible. It consumes no revision.
func (s *State) Compact(revision int64) error {
	switch {
	case revision > s.revision:
		return fmt.Errorf("compact at revision %d, store is at %d: %w", revision, s.revision, ErrFutureRevision)
	case revision == s.compacted:
		return nil
	case revision < s.compacted:
		return fmt.Errorf("compact at revision %d, compacted up to %d: %w", revision, s.compacted, ErrCompacted)
	}
	s.compacted = revision
	for _, c := range s.history.trim(revision) {
		s.historyBytes -= c.bytes
	}
	keep := sort.Search(len(s.roots), func(i int) bool { return s.roots[i].revision >= revision })
	s.roots = append([]root(nil), s.roots[keep:]...)
	return nil
}

// Publish makes everything done so far visible to readers and wakes whoever
// waits for it.
func (s *State) Publish() *View { return s.publish(s.View().forest) }

// publish replaces the changed trees of base.
func (s *State) publish(base forest) *View {
	v := &View{
		revision:     s.revision,
		compacted:    s.compacted,
		history:      s.history,
		historyBytes: s.historyBytes,
		keys:         s.keys,
		bytes:        s.bytes,
		nextExpiry:   s.expiries.next(),
		forest:       base,
	}
	if len(s.dirty) > 0 {
		v.forest = s.replant(base)
	}
	s.keepRoot(v)
	v.roots = s.roots
	s.published.Store(v)
	next := make(chan struct{})
	close(*s.changed.Swap(&next))
	return v
}

// replant copies the changed trees into a new forest.
func (s *State) replant(old forest) forest {
	fresh := make(forest, 0, len(old)+len(s.dirty))
	sort.Slice(s.dirty, func(i, j int) bool { return s.dirty[i].directory < s.dirty[j].directory })
	for _, g := range s.dirty {
		for len(old) > 0 && old[0].directory < g.directory {
			fresh, old = append(fresh, old[0]), old[1:]
		}
		if len(old) > 0 && old[0].directory == g.directory {
			old = old[1:]
		}
		g.dirty = false
		if g.items.Len() == 0 {
			delete(s.trees, g.directory)
			continue
		}
		fresh = append(fresh, &tree{directory: g.directory, items: g.items.Copy(), bytes: g.bytes})
	}
	s.dirty = s.dirty[:0]
	return append(fresh, old...)
}

// keepRoot remembers the forest for reads in the past if the last one
// remembered is far enough away, thinning the row when it grows too long.
func (s *State) keepRoot(v *View) {
	spacing := max(minRootSpacing, v.HistoryLen()/maxRoots)
	newest := v.oldest()
	if n := len(s.roots); n > 0 {
		newest = s.roots[n-1].revision
	}
	if v.revision-newest < spacing {
		return
	}
	kept := make([]root, 0, maxRoots+1)
	last := v.oldest()
	for _, r := range s.roots {
		if r.revision-last >= spacing {
			kept = append(kept, r)
			last = r.revision
		}
	}
	s.roots = append(kept, root{revision: v.revision, forest: v.forest})
}

// Changed is closed by the next Publish after the call. Take it before looking
// at View, or a change in between is missed.
func (s *State) Changed() <-chan struct{} { return *s.changed.Load() }
