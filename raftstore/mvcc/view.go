package mvcc

import "fmt"

// View is the store at one moment. It never changes; any number of goroutines
// may read it for as long as they like.
type View struct {
	revision     int64
	compacted    int64
	forest       forest
	history      history
	historyBytes int64
	roots        []root
	keys         int64
	bytes        int64
	nextExpiry   int64
}

// root is an older forest, kept so that reading at an old revision undoes few
// events.
type root struct {
	revision int64
	forest   forest
}

// RangeResult answers a Range.
type RangeResult struct {
	KVs []*KeyValue
	// More says that keys remain after the last of KVs.
	More bool
	// Count is the number of keys from the start of the range on, returned or
	// not.
	Count int64
	// Revision is the revision of the store which answered (not the revision
	// read at).
	Revision int64
}

// Revision is the newest revision of the view.
func (v *View) Revision() int64 { return v.revision }

// CompactRevision is the oldest revision which can still be read, 0 if nothing
// was compacted yet.
func (v *View) CompactRevision() int64 { return v.compacted }

// Keys is the number of live keys.
func (v *View) Keys() int64 { return v.keys }

// Bytes is the size of all live keys and values.
func (v *View) Bytes() int64 { return v.bytes }

// HistoryLen is the number of events kept.
func (v *View) HistoryLen() int64 { return v.revision - v.oldest() }

// HistoryBytes is about what the kept events cost in memory.
func (v *View) HistoryBytes() int64 { return v.historyBytes }

// NextExpiry is the earliest ExpiresAt of any key, 0 if no key expires.
func (v *View) NextExpiry() int64 { return v.nextExpiry }

// oldest is the revision after which all events are kept.
func (v *View) oldest() int64 { return max(v.compacted, FirstRevision) }

// check resolves the revision to read at.
func (v *View) check(revision int64) (int64, error) {
	switch {
	case revision == 0:
		return v.revision, nil
	case revision > v.revision:
		return 0, fmt.Errorf("read at revision %d, store is at %d: %w", revision, v.revision, ErrFutureRevision)
	case revision < v.compacted || revision < 0:
		return 0, fmt.Errorf("read at revision %d, compacted up to %d: %w", revision, v.compacted, ErrCompacted)
	}
	return max(revision, FirstRevision), nil
}

// Get returns the version of the key at a revision (0 for the newest), nil if
// it did not exist then.
func (v *View) Get(key string, revision int64) (*KeyValue, error) {
	at, err := v.check(revision)
	if err != nil {
		return nil, err
	}
	base := v.rootFor(at)
	for r := at + 1; r <= base.revision; r++ {
		if e := v.history.at(r); e.KV.Key == key {
			return e.PrevKV, nil
		}
	}
	return base.forest.get(key), nil
}

// Range returns up to limit keys (all if 0) which have the prefix and are not
// before start, at a revision (0 for the newest).
func (v *View) Range(prefix, start string, limit int, revision int64) (RangeResult, error) {
	at, err := v.check(revision)
	if err != nil {
		return RangeResult{}, err
	}
	base := v.rootFor(at)
	s := spanOf(prefix, start)
	in := base.forest.within(prefix, s)
	undone := v.undo(s, at, base.revision)
	result := RangeResult{Revision: v.revision, Count: in.count(s) + undone.growth(base.forest)}
	size := result.Count
	if limit > 0 && int64(limit) < size {
		size = int64(limit)
		result.More = true
	}
	if size <= 0 {
		return result, nil
	}
	result.KVs = make([]*KeyValue, 0, size)
	undone.ascend(in, s, func(kv *KeyValue) bool {
		result.KVs = append(result.KVs, kv)
		return int64(len(result.KVs)) < size
	})
	return result, nil
}

// Count is the number of live keys with the prefix.
func (v *View) Count(prefix string) int64 {
	s := spanOf(prefix, "")
	return v.forest.within(prefix, s).count(s)
}

// Stats is the number of live keys with the prefix and the size of their
// values and keys. It is cheap when the prefix is a directory of two segments,
// otherwise it walks the keys.
func (v *View) Stats(prefix string) (count, bytes int64) {
	s := spanOf(prefix, "")
	in := v.forest.within(prefix, s)
	for _, t := range in {
		if t.directory != "" && len(prefix) <= len(t.directory) {
			count += int64(t.items.Len())
			bytes += t.bytes
			continue
		}
		t.ascend(s, func(kv *KeyValue) bool {
			count++
			bytes += kv.size()
			return true
		})
	}
	return count, bytes
}

// Events appends the events with after < revision <= upTo which concern the
// prefix to into, at most limit of them, and returns the revision up to which
// everything was looked at.
func (v *View) Events(into []Event, prefix string, after int64, limit int) ([]Event, int64, error) {
	if after < v.compacted {
		return into, after, fmt.Errorf("watch after revision %d, compacted up to %d: %w", after, v.compacted, ErrCompacted)
	}
	r := max(after, v.oldest())
	for r < v.revision && len(into) < limit {
		r++
		e := v.history.at(r)
		if hasPrefix(e.KV.Key, prefix) {
			into = append(into, *e)
		}
	}
	return into, max(r, after), nil
}

func hasPrefix(key, prefix string) bool {
	return len(key) >= len(prefix) && key[:len(prefix)] == prefix
}
