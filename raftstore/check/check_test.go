package check

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"
)

// world is a store that works, recording itself: what the tests below damage.
type world struct {
	history  History
	log      *Log
	keys     map[string]*Version
	revision int64
	events   []*Event
}

func newWorld() *world { return &world{log: NewLog(1), keys: map[string]*Version{}, revision: 1} }

func (w *world) commit(e *Event) {
	w.revision++
	w.events = append(w.events, e)
	w.log.Add("store", e)
}

func (w *world) put(key, value string, expect int64) *Operation {
	o := &Operation{Client: "c", Member: "m", Kind: Put, Key: key, Value: value, Expect: expect, Call: w.history.Now(), HasPrevious: true}
	before := w.keys[key]
	if expect != AnyRevision && expect != revisionOf(before) {
		o.Found, o.Revision = before, w.revision
	} else {
		v := &Version{Key: key, Value: value, ModRevision: w.revision + 1, CreateRevision: w.revision + 1}
		if before != nil {
			v.CreateRevision = before.CreateRevision
		}
		w.commit(&Event{Revision: w.revision + 1, Version: *v, Previous: before, HasPrevious: true, Created: before == nil, HasCreated: true})
		w.keys[key] = v
		o.Succeeded, o.Previous, o.Revision = true, before, w.revision
	}
	w.history.Add(o)
	return o
}

func (w *world) delete(key string) *Operation {
	o := &Operation{Client: "c", Member: "m", Kind: Delete, Key: key, Expect: AnyRevision, Call: w.history.Now(), HasPrevious: true, Revision: w.revision}
	if before := w.keys[key]; before != nil {
		w.commit(&Event{Revision: w.revision + 1, Delete: true, Version: Version{Key: key, ModRevision: w.revision + 1}, Previous: before, HasPrevious: true, HasCreated: true})
		delete(w.keys, key)
		o.Succeeded, o.Previous, o.Revision = true, before, w.revision
	}
	w.history.Add(o)
	return o
}

func (w *world) get(key string) *Operation {
	o := &Operation{Client: "r", Member: "m", Kind: Get, Key: key, Call: w.history.Now(), Found: w.keys[key], Revision: w.revision}
	w.history.Add(o)
	return o
}

// lived is a world in which something of each kind happened.
func lived() *world {
	w := newWorld()
	for i := range 5 {
		w.put("/a/x", fmt.Sprintf("x%d", i), AnyRevision)
		w.get("/a/x")
		w.put("/a/y", fmt.Sprintf("y%d", i), 0)
		w.get("/a/y")
		if i%2 == 1 {
			w.delete("/a/y")
			w.get("/a/y")
			w.delete("/a/y")
		}
		w.put("/b/z", fmt.Sprintf("z%d", i), revisionOf(w.keys["/b/z"]))
		w.put("/b/z", fmt.Sprintf("lost%d", i), 1)
	}
	list := &Operation{Client: "r", Member: "m", Kind: List, Key: "/a/", Call: w.history.Now(), Revision: w.revision}
	list.Listed = append(list.Listed, w.keys["/a/x"], w.keys["/a/y"])
	w.history.Add(list)
	old := &Operation{Client: "r", Member: "m", Kind: Get, Key: "/a/x", At: 2, Call: w.history.Now(), Revision: w.revision}
	old.Found = &Version{Key: "/a/x", Value: "x0", ModRevision: 2}
	w.history.Add(old)
	return w
}

func (w *world) watch(prefix string, after int64) *Watch {
	one := &Watch{Client: "w", Member: "m", Prefix: prefix, After: after}
	for i := 0; i < len(w.events); i += 3 {
		r := Response{}
		for _, e := range w.events[i:min(i+3, len(w.events))] {
			if one.wants(e) {
				r.Events = append(r.Events, e)
			}
			r.Progress = e.Revision
		}
		if r.Progress > after {
			one.Responses = append(one.Responses, r)
		}
	}
	return one
}

func (w *world) all() error {
	operations := w.history.Operations()
	never := func(string) bool { return false }
	return errors.Join(
		Ordered(operations, w.log), Durable(operations, w.log, never), Linearizable(operations, w.log, time.Minute),
		Watched([]*Watch{w.watch("/a/", 1), w.watch("", 4), w.watch("/b/", 7)}, w.log))
}

func TestAnHonestStorePasses(t *testing.T) {
	t.Parallel()
	w := lived()
	if err := w.all(); err != nil {
		t.Fatal(err)
	}
	// An API may tell less: no revision of a read, nothing of what made a write fail.
	w = lived()
	for _, o := range w.history.Operations() {
		if o.Kind == Get && o.At == 0 {
			o.Revision = 0
		}
		if o.mutates() && !o.Succeeded {
			o.Revision, o.Found, o.Blind = 0, nil, true
		}
	}
	if err := w.all(); err != nil {
		t.Fatal(err)
	}
	w = lived()
	// Unknown outcomes may have been made or not.
	w.history.Add(&Operation{Client: "c", Kind: Put, Key: "/a/x", Value: "never made", Expect: AnyRevision, Call: w.history.Now(), Return: Never})
	made := w.put("/a/x", "made", AnyRevision)
	made.Return, made.Succeeded, made.Revision = Never, false, 0
	w.get("/a/x")
	if err := w.all(); err != nil {
		t.Fatal(err)
	}
}

// pick finds an operation to damage: the n-th that fits, from the end if n < 0.
func (w *world) pick(n int, fits func(*Operation) bool) *Operation {
	var found []*Operation
	for _, o := range w.history.Operations() {
		if fits(o) {
			found = append(found, o)
		}
	}
	return found[(n+len(found))%len(found)]
}

func succeeded(kind Kind) func(*Operation) bool {
	return func(o *Operation) bool { return o.Kind == kind && o.Succeeded }
}

func reads(key string) func(*Operation) bool {
	return func(o *Operation) bool { return o.Kind == Get && o.Key == key && o.At == 0 }
}

func TestEachLieIsNoticed(t *testing.T) {
	t.Parallel()
	cases := []struct {
		name string
		lie  func(w *world)
		want []string // checkers that must notice
	}{
		{"a read of an older state, honest about its revision", func(w *world) {
			first, last := w.pick(0, reads("/a/x")), w.pick(-1, reads("/a/x"))
			last.Found, last.Revision = first.Found, first.Revision
		}, []string{"order: ", "is stale", "linearizability: "}},
		{"a read of an older value", func(w *world) {
			w.pick(-1, reads("/a/x")).Found = w.pick(0, reads("/a/x")).Found
		}, []string{"order: ", "linearizability: "}},
		{"a read of an older state, silent about its revision", func(w *world) {
			first, last := w.pick(0, reads("/a/x")), w.pick(-1, reads("/a/x"))
			last.Found, last.Revision = first.Found, 0
		}, []string{"order: ", "is stale", "linearizability: "}},
		{"a silent read of what never was", func(w *world) {
			o := w.pick(-1, reads("/a/x"))
			o.Found, o.Revision = &Version{Key: "/a/x", Value: "never", ModRevision: o.Found.ModRevision}, 0
		}, []string{"order: ", "linearizability: "}},
		{"a blind failure of a compare on what it expected", func(w *world) {
			o := w.put("/a/x", "lost", 1)
			o.Expect, o.Found, o.Revision, o.Blind = o.Found.ModRevision, nil, 0, true
		}, []string{"linearizability: "}},
		{"a read that misses a key", func(w *world) { w.pick(-1, reads("/a/x")).Found = nil }, []string{"order: ", "linearizability: "}},
		{"a read of the future", func(w *world) {
			first, last := w.pick(0, reads("/a/x")), w.pick(-1, reads("/a/x"))
			first.Found, first.Revision = last.Found, last.Revision
		}, []string{"called only later", "linearizability: "}},
		{"a list that misses a key", func(w *world) {
			o := w.pick(0, func(o *Operation) bool { return o.Kind == List })
			o.Listed = o.Listed[:1]
		}, []string{"order: "}},
		{"a read at an old revision that shows the newest", func(w *world) {
			w.pick(0, func(o *Operation) bool { return o.At != 0 }).Found = w.keys["/a/x"]
		}, []string{"order: "}},
		{"an acknowledged write that is not in the log", func(w *world) {
			w.history.Add(&Operation{Client: "c", Kind: Put, Key: "/a/x", Value: "lost", Expect: AnyRevision, Call: w.history.Now(), Succeeded: true, Revision: w.revision + 1})
		}, []string{"durability: ", "was lost"}},
		{"an acknowledged write that another took the place of", func(w *world) {
			w.pick(2, succeeded(Put)).Value = "replaced"
		}, []string{"order: ", "durability: "}},
		{"a write executed twice", func(w *world) {
			o := w.put("/a/x", "twice", AnyRevision)
			w.put("/a/x", "twice", AnyRevision)
			w.history.operations = w.history.operations[:len(w.history.operations)-1]
			o.Return = Never
		}, []string{"was executed 2 times"}},
		{"a write that was refused and made all the same", func(w *world) {
			o := w.put("/a/x", "refused", AnyRevision)
			o.Succeeded, o.Expect = false, 1
		}, []string{"was made all the same"}},
		{"a compare that failed on what it expected", func(w *world) {
			o := w.put("/a/x", "lost", 1)
			o.Expect = o.Found.ModRevision
		}, []string{"order: ", "linearizability: "}},
		{"a compare that succeeded on something else", func(w *world) { w.pick(3, succeeded(Put)).Expect = 99 }, []string{"order: ", "linearizability: "}},
		{"a wrong previous version", func(w *world) { w.pick(5, succeeded(Put)).Previous = w.keys["/a/x"] }, []string{"order: "}},
		{"a mutation nobody asked for", func(w *world) {
			w.put("/a/x", "phantom", AnyRevision)
			w.history.operations = w.history.operations[:len(w.history.operations)-1]
		}, []string{"was written by nobody"}},
		{"a deletion nobody asked for", func(w *world) {
			w.delete("/a/x")
			w.history.operations = w.history.operations[:len(w.history.operations)-1]
		}, []string{"was asked for by nobody"}},
		{"a log with a gap", func(w *world) {
			w.log.Add("store", &Event{Revision: w.revision + 5, Version: Version{Key: "/a/x", Value: "v", ModRevision: w.revision + 5}})
		}, []string{"nobody saw revision"}},
		{"two witnesses that disagree", func(w *world) {
			w.log.Add("other", &Event{Revision: 3, Version: Version{Key: "/a/x", Value: "other", ModRevision: 3}})
		}, []string{"agreement on the log"}},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			w := lived()
			c.lie(w)
			found := fmt.Sprint(w.all())
			for _, want := range c.want {
				if !strings.Contains(found, want) {
					t.Errorf("want %q in:\n%s", want, found)
				}
			}
		})
	}
}

func TestEachWatchGuaranteeIsChecked(t *testing.T) {
	t.Parallel()
	changed := func(e *Event, change func(*Event)) *Event {
		c := *e
		change(&c)
		return &c
	}
	cases := []struct {
		guarantee string
		lie       func(w *Watch)
	}{
		{"filter", func(w *Watch) { w.Prefix = "/a/x" }},
		{"filter", func(w *Watch) { w.After = 3 }},
		{"ordered", func(w *Watch) {
			e := w.Responses[0].Events
			e[0], e[1] = e[1], e[0]
		}},
		{"unique", func(w *Watch) { w.Responses[0].Events = append(w.Responses[0].Events, w.Responses[0].Events[1]) }},
		{"atomic", func(w *Watch) {
			e := w.Responses[0].Events
			w.Responses[1].Events = append([]*Event{e[len(e)-1]}, w.Responses[1].Events...)
		}},
		{"bookmarkable", func(w *Watch) {
			e := w.Responses[0].Events
			w.Responses[0].Events, w.Responses[1].Events = e[:1], append([]*Event{e[1]}, w.Responses[1].Events...)
		}},
		{"bookmarkable", func(w *Watch) {
			last := &w.Responses[len(w.Responses)-1]
			last.Events = last.Events[:len(last.Events)-1]
		}},
		{"bookmarkable", func(w *Watch) { w.Responses[2].Progress = w.Responses[0].Progress }},
		{"resumable", func(w *Watch) { w.Responses[0].Events = w.Responses[0].Events[1:] }},
		{"reliable", func(w *Watch) {
			r := &w.Responses[2]
			r.Events = r.Events[1:]
		}},
		{"reliable", func(w *Watch) {
			w.Responses[0].Events[0] = changed(w.Responses[0].Events[0], func(e *Event) { e.Version.Value = "other" })
		}},
		{"prevKV", func(w *Watch) {
			w.Responses[2].Events[0] = changed(w.Responses[2].Events[0], func(e *Event) { e.Previous = &Version{Key: "/a/x", Value: "other"} })
		}},
		{"isCreate", func(w *Watch) {
			w.Responses[0].Events[0] = changed(w.Responses[0].Events[0], func(e *Event) { e.Created = !e.Created })
		}},
	}
	for i, c := range cases {
		w := lived()
		watch := w.watch("/a/", 1)
		if err := Watched([]*Watch{watch}, w.log); err != nil {
			t.Fatal(err)
		}
		c.lie(watch)
		if err := Watched([]*Watch{watch}, w.log); err == nil || !strings.Contains(err.Error(), "guarantee "+c.guarantee) {
			t.Errorf("case %d, %s: %v", i, c.guarantee, err)
		}
	}
}

func TestAgreement(t *testing.T) {
	t.Parallel()
	cases := []struct {
		want string
		lie  func(a *Agreement)
	}{
		{"", func(a *Agreement) {}},
		{"two leaders", func(a *Agreement) { a.Leader(7, "m2") }},
		{"entry 4", func(a *Agreement) { a.Applied("m2", 4, "y") }},
		{"state 4", func(a *Agreement) { a.State("m2", 4, "t") }},
		{"went back", func(a *Agreement) { a.Revision("m1 run 1", 9) }},
		{"was answered before", func(a *Agreement) { a.Leads("m2", 9, a.AnsweredSoFar()) }},
		{"its oldest is 6", func(a *Agreement) { a.Refused("m1", 6, 6) }},
		{"only 6 was compacted", func(a *Agreement) { a.Refused("m1", 6, 7) }},
	}
	for _, c := range cases {
		a := NewAgreement()
		a.Leader(7, "m1")
		a.Leader(8, "m2")
		a.Applied("m1", 4, "x")
		a.Applied("m2", 4, "x")
		a.State("m1", 4, "s")
		a.Revision("m1 run 1", 10)
		a.Revision("m1 run 2", 8)
		a.Answered(10)
		a.Leads("m2", 10, a.AnsweredSoFar())
		a.Compacting(6)
		a.Refused("m1", 5, 6)
		c.lie(a)
		if err := a.Err(); (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("want %q: %v", c.want, err)
		}
	}
}
