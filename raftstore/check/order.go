package check

import (
	"slices"
	"sort"
)

// Ordered checks that the whole store is strictly serializable in the order of
// its revisions. Because every answer carries a revision this needs no search:
//
//   - an answer never is older than what was answered anywhere before its call,
//   - an answer never includes a mutation that was called only after it,
//   - every answer is what a replay of the log says for its revision.
func Ordered(operations []*Operation, log *Log) error {
	if err := log.complete(); err != nil {
		return err
	}
	v := &violations{name: "order"}
	for _, o := range operations {
		if o.Return != Never {
			replayed(v, o, log)
		}
	}
	realTime(v, operations, log)
	return v.err()
}

// replayed compares one answer with the log.
func replayed(v *violations, o *Operation, log *Log) {
	if o.mutates() && o.Succeeded {
		e := log.event(o.Revision)
		if e == nil || e.Version.Key != o.Key || e.Delete != (o.Kind == Delete) || !e.Delete && e.Version.Value != o.Value {
			v.add("%v, but the log says %v", o, e)
			return
		}
		before := log.at(o.Key, o.Revision-1)
		if o.HasPrevious && !same(o.Previous, before) {
			v.add("%v, but before it was %v", o, before)
		}
		if o.Expect != AnyRevision && o.Expect != revisionOf(before) {
			v.add("%v succeeded on %v", o, before)
		}
		return
	}
	if o.Blind {
		return // Linearizable knows whether it had to succeed
	}
	at := o.Revision
	if at == 0 && o.Found != nil {
		at = o.Found.ModRevision
	} else if at == 0 {
		return
	}
	if o.At != 0 {
		at = o.At
		if o.At > o.Revision {
			v.add("%v read the future", o)
		}
	}
	if at-log.first > int64(len(log.events)) {
		v.add("%v, but the log ends at %d", o, log.first+int64(len(log.events)))
		return
	}
	if o.Kind == List {
		if want := log.list(o.Key, at); !slices.EqualFunc(o.Listed, want, same) {
			v.add("%v: it read %v, the log says %v", o, o.Listed, want)
		}
		return
	}
	now := log.at(o.Key, at)
	if !same(o.Found, now) {
		v.add("%v, but it was %v", o, now)
	}
	if o.mutates() && (o.Expect == AnyRevision && now != nil || o.Expect != AnyRevision && o.Expect == revisionOf(now)) && !(o.Kind == Delete && now == nil) {
		v.add("%v failed on %v", o, now)
	}
}

func revisionOf(v *Version) int64 {
	if v == nil {
		return 0
	}
	return v.ModRevision
}

// realTime checks that the order of revisions agrees with the order in which
// operations were called and answered.
func realTime(v *violations, operations []*Operation, log *Log) {
	var answered []*Operation // those with a place in the order
	for _, o := range operations {
		if o.Return != Never && o.At == 0 {
			answered = append(answered, o)
		}
	}
	byReturn := slices.Clone(answered)
	slices.SortFunc(byReturn, func(a, b *Operation) int { return compare(a.Return, b.Return) })
	slices.SortFunc(answered, func(a, b *Operation) int { return compare(a.Call, b.Call) })
	// called[i] is when the last of the mutations up to the i-th was called.
	called := make([]int64, len(log.events)+1)
	for _, o := range operations {
		if n := madeAt(o, log) - log.first; n > 0 && int(n) < len(called) {
			called[n] = max(called[n], o.Call)
		}
	}
	for i := 1; i < len(called); i++ {
		called[i] = max(called[i], called[i-1])
	}
	for _, o := range answered {
		if n := atLeast(o) - log.first; n > 0 && int(n) < len(called) && called[n] > o.Return {
			v.add("%v saw a mutation that was called only later", o)
		}
	}
	var newest *Operation
	next := 0
	for _, o := range answered {
		for ; next < len(byReturn) && byReturn[next].Return < o.Call; next++ {
			if newest == nil || atLeast(byReturn[next]) > atLeast(newest) {
				newest = byReturn[next]
			}
		}
		if newest == nil {
			continue
		}
		if atMost(o, log) < atLeast(newest) || o.mutates() && o.Succeeded && o.Revision == atLeast(newest) {
			v.add("%v is stale: it was called after the answer to %v", o, newest)
		}
	}
}

// atLeast is a revision that the store had when it answered.
func atLeast(o *Operation) int64 {
	if o.Revision == 0 && o.Found != nil {
		return o.Found.ModRevision
	}
	return o.Revision
}

// atMost is the last revision at which the store could give this answer.
func atMost(o *Operation, log *Log) int64 {
	if o.Revision != 0 {
		return o.Revision
	}
	if o.Blind || o.Found == nil {
		return Never // true at several times: only Linearizable can tell
	}
	for _, e := range log.keys[o.Key] {
		if e.Revision > o.Found.ModRevision {
			return e.Revision - 1
		}
	}
	return Never
}

// madeAt is the revision of a mutation, found in the log by its value if its
// client did not learn it; 0 if it was not made or is not known.
func madeAt(o *Operation, log *Log) int64 {
	if !o.mutates() {
		return 0
	}
	if o.Return != Never {
		if o.Succeeded {
			return o.Revision
		}
		return 0
	}
	if o.Kind == Put {
		if made := log.values[o.Value]; len(made) > 0 {
			return made[0].Revision
		}
	}
	return 0
}

func compare(a, b int64) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}

// Durable checks that what was acknowledged is in the log at its revision, that
// no request was executed twice, and that the log has nothing nobody asked for.
// expires says which keys the store may delete on its own.
func Durable(operations []*Operation, log *Log, expires func(key string) bool) error {
	if err := log.complete(); err != nil {
		return err
	}
	v := &violations{name: "durability"}
	puts := map[string]*Operation{}
	for _, o := range operations {
		switch {
		case !o.mutates():
		case o.Kind == Put:
			if other := puts[o.Value]; other != nil {
				v.add("the test wrote the value of %v twice: %v", o, other)
			}
			puts[o.Value] = o
		}
		if o.mutates() && o.Succeeded && o.Return != Never && log.event(o.Revision) == nil {
			v.add("%v was lost: the log ends at %d", o, log.first+int64(len(log.events)))
		}
	}
	for _, value := range sortedKeys(log.values) {
		made := log.values[value]
		o := puts[value]
		switch {
		case o == nil:
			v.add("%v was written by nobody", made[0])
		case len(made) > 1:
			v.add("%v was executed %d times: %v", o, len(made), made)
		case o.Return != Never && !o.Succeeded:
			v.add("%v was made all the same: %v", o, made[0])
		case o.Return != Never && o.Revision != made[0].Revision:
			v.add("%v is in the log as %v", o, made[0])
		}
	}
	_, orphans := attributed(operations, log, expires)
	for _, e := range orphans {
		v.add("%v was asked for by nobody", e)
	}
	return v.err()
}

func sortedKeys[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	sort.Strings(keys)
	return keys
}
