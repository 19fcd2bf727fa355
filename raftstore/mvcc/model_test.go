package mvcc

import (
	"bufio"
	"bytes"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
)

// model is the store written so simply that it is obviously right: the whole
// content at every revision.
type model struct{ at []map[string]*KeyValue } // index is the revision

func newModel() *model { return &model{at: []map[string]*KeyValue{nil, {}}} }

func (m *model) next(change func(map[string]*KeyValue)) {
	last := m.at[len(m.at)-1]
	now := make(map[string]*KeyValue, len(last)+1)
	for k, v := range last {
		now[k] = v
	}
	change(now)
	m.at = append(m.at, now)
}

func (m *model) list(prefix, start string, revision int64) []*KeyValue {
	var kvs []*KeyValue
	for k, kv := range m.at[revision] {
		if strings.HasPrefix(k, prefix) && k >= start {
			kvs = append(kvs, kv)
		}
	}
	slices.SortFunc(kvs, func(a, b *KeyValue) int { return strings.Compare(a.Key, b.Key) })
	return kvs
}

var modelKeys = func() []string {
	keys := []string{"/r", "/r/pods", "/r/podz", "short", "", "/r/pods/"}
	for i := range 12 {
		keys = append(keys, fmt.Sprintf("/r/pods/ns%d/p%d", i%3, i), fmt.Sprintf("/r/nodes/n%d", i), fmt.Sprintf("/q/x/%d", i))
	}
	return keys
}()

var modelPrefixes = []string{"", "/", "/r", "/r/", "/r/p", "/r/pods/", "/r/pods/ns1/", "/r/pods/ns1/p4", "/r/nodes/", "/r/none/", "/q/x/", "/z", "s", "\xff"}

// step does one random thing to both.
func step(r *rand.Rand, s *State, m *model) {
	key := modelKeys[r.IntN(len(modelKeys))]
	if r.IntN(4) == 0 {
		if _, ok := s.Delete(key, AnyRevision); ok {
			m.next(func(now map[string]*KeyValue) { delete(now, key) })
		}
		return
	}
	kv, _, _ := s.Put(key, []byte(fmt.Sprint(r.IntN(1000))), AnyRevision, 0)
	m.next(func(now map[string]*KeyValue) { now[key] = kv })
}

// check compares a view with the model at one revision.
func check(t *testing.T, r *rand.Rand, v *View, m *model, revision int64) {
	t.Helper()
	prefix := modelPrefixes[r.IntN(len(modelPrefixes))]
	start := ""
	if r.IntN(2) == 0 {
		start = modelKeys[r.IntN(len(modelKeys))]
	}
	limit := r.IntN(8)
	want := m.list(prefix, start, revision)
	count := int64(len(want))
	more := limit > 0 && limit < len(want)
	if more {
		want = want[:limit]
	}
	got, err := v.Range(prefix, start, limit, revision)
	if err != nil {
		t.Fatalf("range %q at %d of %d: %v", prefix, revision, v.Revision(), err)
	}
	if !slices.Equal(got.KVs, want) || got.More != more || got.Count != count || got.Revision != v.Revision() {
		t.Fatalf("range %q from %q limit %d at %d of %d:\n got %s more %v count %d\nwant %s more %v count %d",
			prefix, start, limit, revision, v.Revision(), keys(got.KVs), got.More, got.Count, keys(want), more, count)
	}
	key := modelKeys[r.IntN(len(modelKeys))]
	if kv, err := v.Get(key, revision); err != nil || kv != m.at[revision][key] {
		t.Fatalf("get %q at %d: %+v, %v, want %+v", key, revision, kv, err, m.at[revision][key])
	}
}

func keys(kvs []*KeyValue) string {
	var names []string
	for _, kv := range kvs {
		names = append(names, fmt.Sprintf("%s@%d", kv.Key, kv.ModRevision))
	}
	return strings.Join(names, " ")
}

func TestReadsAtAnyRevisionMatchTheModel(t *testing.T) {
	t.Parallel()
	for seed := range uint64(6) {
		r := rand.New(rand.NewPCG(seed, 1))
		s, m := New(), newModel()
		var old []*View
		for range 6000 {
			step(r, s, m)
			if r.IntN(3) == 0 {
				s.Publish()
			}
			if r.IntN(1500) == 0 {
				old = append(old, s.View())
			}
			if r.IntN(2500) == 0 {
				v := s.Publish()
				if err := s.Compact(v.oldest() + r.Int64N(v.Revision()-v.oldest()+1)); err != nil {
					t.Fatal(err)
				}
			}
		}
		views := append(old, s.Publish())
		for _, v := range views {
			for range 400 {
				check(t, r, v, m, v.oldest()+r.Int64N(v.Revision()-v.oldest()+1))
			}
			for _, prefix := range modelPrefixes {
				count, size := v.Stats(prefix)
				var wantSize int64
				want := m.list(prefix, "", v.Revision())
				for _, kv := range want {
					wantSize += kv.size()
				}
				if count != int64(len(want)) || size != wantSize || v.Count(prefix) != count {
					t.Fatalf("stats %q: %d keys %d bytes, count %d, want %d keys %d bytes", prefix, count, size, v.Count(prefix), len(want), wantSize)
				}
			}
			if v.Keys() != int64(len(m.at[v.Revision()])) {
				t.Fatalf("%d keys, want %d", v.Keys(), len(m.at[v.Revision()]))
			}
		}
		if len(s.roots) > maxRoots+1 {
			t.Errorf("%d roots kept", len(s.roots))
		}
	}
}

// same compares two views by content, over their whole history.
func same(t *testing.T, got, want *View) {
	t.Helper()
	if got.revision != want.revision || got.compacted != want.compacted || got.keys != want.keys || got.bytes != want.bytes ||
		got.historyBytes > want.historyBytes || got.nextExpiry != want.nextExpiry {
		t.Fatalf("got %+v\nwant %+v", *got, *want)
	}
	for revision := want.oldest(); revision <= want.revision; revision++ {
		a, errA := got.Range("", "", 0, revision)
		b, errB := want.Range("", "", 0, revision)
		equal := func(x, y *KeyValue) bool { return fmt.Sprintf("%+v", *x) == fmt.Sprintf("%+v", *y) }
		if errA != nil || errB != nil || !slices.EqualFunc(a.KVs, b.KVs, equal) {
			t.Fatalf("at revision %d: %v %v\n got %s\nwant %s", revision, errA, errB, keys(a.KVs), keys(b.KVs))
		}
	}
	a, _, _ := got.Events(nil, "", want.oldest(), 1<<20)
	b, _, _ := want.Events(nil, "", want.oldest(), 1<<20)
	if len(a) != len(b) {
		t.Fatalf("%d events, want %d", len(a), len(b))
	}
	for i := range a {
		if x, y := fmt.Sprintf("%v %+v %+v", a[i].Type, a[i].KV, a[i].PrevKV), fmt.Sprintf("%v %+v %+v", b[i].Type, b[i].KV, b[i].PrevKV); x != y {
			t.Fatalf("event %d: %s, want %s", i, x, y)
		}
	}
}

func TestSnapshotRestoresEverything(t *testing.T) {
	t.Parallel()
	for seed := range uint64(8) {
		r := rand.New(rand.NewPCG(seed, 2))
		s, m := New(), newModel()
		for range 50 + r.IntN(700) {
			step(r, s, m)
		}
		if r.IntN(3) == 0 {
			s.Put("/r/leases/x", []byte("v"), AnyRevision, 77)
		}
		if r.IntN(2) == 0 {
			if err := s.Compact(1 + r.Int64N(s.revision)); err != nil {
				t.Fatal(err)
			}
		}
		want := s.Publish()
		encoded := encode(t, want)
		restored := New()
		restored.Put("/old/content/x", nil, 0, 5) // must vanish
		restored.Publish()
		if err := restored.Replace(bufio.NewReader(bytes.NewReader(encoded))); err != nil {
			t.Fatal(err)
		}
		same(t, restored.View(), want)
		if again := encode(t, restored.View()); !bytes.Equal(again, encoded) {
			t.Fatal("encoding the restored view gives other bytes")
		}
		// Both must go on alike.
		s.Put("/r/pods/after", nil, AnyRevision, 0)
		restored.Put("/r/pods/after", nil, AnyRevision, 0)
		same(t, restored.Publish(), s.Publish())
	}
}

func encode(t *testing.T, v *View) []byte {
	t.Helper()
	var b bytes.Buffer
	w := bufio.NewWriter(&b)
	if err := v.Encode(w); err != nil {
		t.Fatal(err)
	}
	if err := w.Flush(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestDamagedSnapshotIsAnError(t *testing.T) {
	t.Parallel()
	r := rand.New(rand.NewPCG(1, 3))
	s, m := New(), newModel()
	for range 200 {
		step(r, s, m)
	}
	before := s.Publish()
	encoded := encode(t, before)
	for cut := range len(encoded) {
		if err := s.Replace(bufio.NewReader(bytes.NewReader(encoded[:cut]))); err == nil {
			t.Fatalf("the first %d of %d bytes were taken for a snapshot", cut, len(encoded))
		}
	}
	if s.View() != before {
		t.Error("a failed restore changed the state")
	}
	// Flipped bits are found by the file's checksums; here they must only never
	// bring the process down.
	for i := range encoded {
		flipped := bytes.Clone(encoded)
		flipped[i] ^= 1 << r.IntN(8)
		_ = New().Replace(bufio.NewReader(bytes.NewReader(flipped)))
	}
}
