package mvcc

import "sort"

// rootFor is the oldest known forest which is not older than the revision:
// from there events are undone.
func (v *View) rootFor(revision int64) root {
	i := sort.Search(len(v.roots), func(i int) bool { return v.roots[i].revision >= revision })
	if i < len(v.roots) {
		return v.roots[i]
	}
	return root{revision: v.revision, forest: v.forest}
}

// undone holds the keys of a span which had another version at the revision
// read at than in the base forest: what they were, nil for not there.
type undone map[string]*KeyValue

// undo collects what the events in (revision, from] changed. The oldest event
// of a key decides, because its PrevKV is what was there before all of them.
func (v *View) undo(s span, revision, from int64) undone {
	var u undone
	for r := revision + 1; r <= from; r++ {
		e := v.history.at(r)
		if !s.contains(e.KV.Key) {
			continue
		}
		if u == nil {
			u = undone{}
		}
		if _, seen := u[e.KV.Key]; !seen {
			u[e.KV.Key] = e.PrevKV
		}
	}
	return u
}

// growth is by how many keys the span differs from the base forest.
func (u undone) growth(base forest) int64 {
	var n int64
	for key, was := range u {
		if was != nil {
			n++
		}
		if base.get(key) != nil {
			n--
		}
	}
	return n
}

// ascend walks the span of the base forest in order as it was.
func (u undone) ascend(base forest, s span, fn func(*KeyValue) bool) {
	if len(u) == 0 {
		base.ascend(s, fn)
		return
	}
	old := make([]*KeyValue, 0, len(u))
	for _, kv := range u {
		if kv != nil {
			old = append(old, kv)
		}
	}
	sort.Slice(old, func(i, j int) bool { return old[i].Key < old[j].Key })
	stopped := false
	emit := func(kv *KeyValue) bool {
		stopped = !fn(kv)
		return !stopped
	}
	base.ascend(s, func(kv *KeyValue) bool {
		for len(old) > 0 && old[0].Key <= kv.Key {
			if !emit(old[0]) {
				return false
			}
			old = old[1:]
		}
		if _, replaced := u[kv.Key]; replaced {
			return true
		}
		return emit(kv)
	})
	for _, kv := range old {
		if stopped || !emit(kv) {
			return
		}
	}
}
