package mvcc

import (
	"sort"
	"strings"

	"github.com/tidwall/btree"
)

// items is a counted copy-on-write B-tree ordered by key.
type items = btree.BTreeG[*KeyValue]

func newItems() *items {
	return btree.NewBTreeGOptions(func(a, b *KeyValue) bool { return a.Key < b.Key }, btree.Options{NoLocks: true})
}

// tree is the published, immutable content of one directory.
type tree struct {
	directory string
	items     *items
	bytes     int64
}

// directory decides which tree a key lives in: its first two path segments
// ("/registry/pods/" of "/registry/pods/default/web"), which is one tree per
// resource. Keys with fewer segments share the tree "".
func directory(key string) string {
	if len(key) == 0 || key[0] != '/' {
		return ""
	}
	first := strings.IndexByte(key[1:], '/')
	if first < 0 {
		return ""
	}
	first += 2
	second := strings.IndexByte(key[first:], '/')
	if second < 0 {
		return ""
	}
	return key[:first+second+1]
}

// span is a half-open range of keys; an empty end means no upper bound.
type span struct{ start, end string }

// spanOf is the range of keys which have the prefix and are not before start.
func spanOf(prefix, start string) span {
	s := span{start: prefix, end: prefixEnd(prefix)}
	if start > s.start {
		s.start = start
	}
	return s
}

func (s span) empty() bool { return s.end != "" && s.start >= s.end }

func (s span) contains(key string) bool {
	return key >= s.start && (s.end == "" || key < s.end)
}

// prefixEnd is the first key after all keys with the prefix, "" if there is
// none.
func prefixEnd(prefix string) string {
	b := []byte(prefix)
	for i := len(b) - 1; i >= 0; i-- {
		if b[i] < 0xff {
			b[i]++
			return string(b[:i+1])
		}
	}
	return ""
}

// rank counts the keys of the tree which are before key. The tree counts its
// nodes, so this costs a logarithm squared instead of a scan.
func rank(t *items, key string) int {
	return sort.Search(t.Len(), func(i int) bool {
		kv, _ := t.GetAt(i)
		return kv.Key >= key
	})
}

// count is the number of keys of the tree within the span.
func (t *tree) count(s span) int64 {
	if s.empty() {
		return 0
	}
	end := t.items.Len()
	if s.end != "" && prefixEnd(t.directory) != s.end {
		end = rank(t.items, s.end)
	}
	if s.start <= t.directory {
		return int64(end)
	}
	return int64(end - rank(t.items, s.start))
}

// ascend calls fn for the keys of the tree within the span in order, until fn
// says false. It reports whether fn never did.
func (t *tree) ascend(s span, fn func(*KeyValue) bool) bool {
	more := true
	t.items.Ascend(&KeyValue{Key: s.start}, func(kv *KeyValue) bool {
		if s.end != "" && kv.Key >= s.end {
			return false
		}
		more = fn(kv)
		return more
	})
	return more
}

// forest is a set of trees ordered by directory.
type forest []*tree

func (f forest) find(dir string) (int, bool) {
	return sort.Find(len(f), func(i int) int { return strings.Compare(dir, f[i].directory) })
}

func (f forest) get(key string) *KeyValue {
	i, ok := f.find(directory(key))
	if !ok {
		return nil
	}
	kv, _ := f[i].items.Get(&KeyValue{Key: key})
	return kv
}

// within returns the trees which may hold keys of the span. Trees with a
// directory are disjoint ranges in key order; the tree "" of short keys, which
// is always first, lies between all of them.
func (f forest) within(prefix string, s span) forest {
	if s.empty() {
		return nil
	}
	if dir := directory(prefix); dir != "" {
		if i, ok := f.find(dir); ok {
			return f[i : i+1]
		}
		return nil
	}
	var in forest
	for _, t := range f {
		if t.directory == "" || (s.end == "" || t.directory < s.end) && (prefixEnd(t.directory) > s.start) {
			in = append(in, t)
		}
	}
	return in
}

// ascend walks several trees in key order.
func (f forest) ascend(s span, fn func(*KeyValue) bool) {
	if len(f) > 0 && f[0].directory == "" {
		f.ascendShort(s, fn)
		return
	}
	for _, t := range f {
		if !t.ascend(s, fn) {
			return
		}
	}
}

// ascendShort merges the tree of short keys, which is small, with the others.
func (f forest) ascendShort(s span, fn func(*KeyValue) bool) {
	var short []*KeyValue
	f[0].ascend(s, func(kv *KeyValue) bool { short = append(short, kv); return true })
	merged := func(kv *KeyValue) bool {
		for len(short) > 0 && short[0].Key < kv.Key {
			if !fn(short[0]) {
				return false
			}
			short = short[1:]
		}
		return fn(kv)
	}
	for _, t := range f[1:] {
		if !t.ascend(s, merged) {
			return
		}
	}
	for _, kv := range short {
		if !fn(kv) {
			return
		}
	}
}

func (f forest) count(s span) int64 {
	var n int64
	for _, t := range f {
		n += t.count(s)
	}
	return n
}
