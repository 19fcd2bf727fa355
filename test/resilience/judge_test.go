package resilience

import (
	"fmt"
	"strings"
	"testing"

	"github.com/skiff-run/skiff/raftstore/check"
)

// story is a record of what an honest store would have answered: revisions
// with gaps between them, as other writers make them.
type story struct {
	*Record
	watch    *check.Watch
	revision int64
	current  map[string]*check.Version
}

func newStory() *story {
	s := &story{Record: NewRecord(), revision: 100, current: map[string]*check.Version{}}
	s.watch = &check.Watch{Client: "watcher", Member: "m", Prefix: "/n/k-", After: 100}
	s.watching(s.watch, false)
	return s
}

func (s *story) put(key, value string) *check.Operation {
	o := &check.Operation{Client: "c", Member: "m", Kind: check.Put, Key: key, Value: value, Expect: revisionOf(s.current[key]), Call: s.History.Now()}
	s.revision += 7
	v := &check.Version{Key: key, Value: value, ModRevision: s.revision}
	s.saw(s.watch, &check.Event{Revision: s.revision, Version: *v, HasCreated: true, Created: s.current[key] == nil})
	s.current[key] = v
	o.Succeeded, o.Revision = true, s.revision
	s.History.Add(o)
	return o
}

func (s *story) remove(key string) *check.Operation {
	o := &check.Operation{Client: "c", Member: "m", Kind: check.Delete, Key: key, Expect: revisionOf(s.current[key]), Call: s.History.Now()}
	s.revision += 7
	s.saw(s.watch, &check.Event{Revision: s.revision, Delete: true, Version: check.Version{Key: key, ModRevision: s.revision}})
	delete(s.current, key)
	o.Succeeded = true
	s.History.Add(o)
	return o
}

func (s *story) get(key string) *check.Operation {
	o := &check.Operation{Client: "r", Member: "m", Kind: check.Get, Key: key, Call: s.History.Now(), Found: s.current[key]}
	s.History.Add(o)
	return o
}

func (s *story) list() *check.Operation {
	o := &check.Operation{Client: "r", Member: "m", Kind: check.List, Key: "/n/k-", Call: s.History.Now(), Revision: s.revision + 3}
	for _, key := range []string{"/n/k-1", "/n/k-2"} {
		if v := s.current[key]; v != nil {
			o.Listed = append(o.Listed, v)
		}
	}
	s.History.Add(o)
	return o
}

func told() *story {
	s := newStory()
	s.get("/n/k-1")
	for i := range 4 {
		s.put("/n/k-1", fmt.Sprintf("one-%d", i))
		s.get("/n/k-1")
		s.put("/n/k-2", fmt.Sprintf("two-%d", i))
		s.list()
		s.progressed(s.watch, s.revision+2)
		if i == 1 {
			s.remove("/n/k-1")
			s.get("/n/k-1")
		}
	}
	return s
}

func TestAnHonestRecordPasses(t *testing.T) {
	t.Parallel()
	s := told()
	unknown := s.put("/n/k-1", "made, though its client never heard")
	unknown.Return, unknown.Succeeded, unknown.Revision = check.Never, false, 0
	s.History.Add(&check.Operation{Client: "c", Kind: check.Put, Key: "/n/k-1", Value: "never made", Expect: unknown.Expect, Call: s.History.Now(), Return: check.Never})
	s.History.Add(&check.Operation{Client: "c", Kind: check.Delete, Key: "/n/k-1", Expect: unknown.Expect, Call: s.History.Now(), Return: check.Never})
	s.History.Add(&check.Operation{Client: "c", Kind: check.Put, Key: "/n/k-1", Value: "in conflict", Expect: unknown.Expect, Call: s.History.Now(), Blind: true})
	if err := s.Judge(); err != nil {
		t.Fatal(err)
	}
}

func TestEachBrokenPromiseIsFoundInARecord(t *testing.T) {
	t.Parallel()
	cases := []struct {
		promise string
		violate func(s *story)
		want    string
	}{
		{"an acknowledged write stays", func(s *story) {
			o := s.put("/n/k-1", "lost")
			delete(s.events, o.Revision)
			s.watch.Responses = s.watch.Responses[:len(s.watch.Responses)-1]
		}, "acknowledged, but no watch ever saw it"},
		{"a deletion is acknowledged once", func(s *story) {
			o := *s.remove("/n/k-1")
			s.History.Add(&o)
		}, "two writes were acknowledged for one revision"},
		{"a read shows the newest version", func(s *story) {
			old := s.current["/n/k-1"]
			s.put("/n/k-1", "newer")
			s.get("/n/k-1").Found = old
		}, "is stale"},
		{"a list shows everything", func(s *story) {
			o := s.list()
			o.Listed = o.Listed[:1]
		}, "order: "},
		{"an old list shows what was there then", func(s *story) {
			o := s.list()
			o.At = 107
		}, "order: "},
		{"watches agree", func(s *story) {
			other := &check.Watch{Client: "other", Member: "m", Prefix: "/n/k-", After: 100}
			s.watching(other, false)
			s.saw(other, &check.Event{Revision: 107, Version: check.Version{Key: "/n/k-1", Value: "another", ModRevision: 107}})
		}, "another watch saw"},
		{"a resumed watch misses nothing", func(s *story) {
			other := &check.Watch{Client: "other", Member: "m", Prefix: "/n/k-", After: 107}
			s.watching(other, true)
			s.saw(other, s.events[121])
		}, "watch guarantee resumable"},
		{"a bookmark comes after what it stands for", func(s *story) {
			other := &check.Watch{Client: "other", Member: "m", Prefix: "/n/k-", After: 107}
			s.watching(other, true)
			s.progressed(other, 116)
		}, "watch guarantee bookmarkable"},
		{"a conflict is one", func(s *story) {
			o := s.put("/n/k-1", "refused for nothing")
			o.Succeeded, o.Revision, o.Blind = false, 0, true
		}, "was made all the same"},
	}
	for _, c := range cases {
		t.Run(c.promise, func(t *testing.T) {
			t.Parallel()
			s := told()
			c.violate(s)
			if err := s.Judge(); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("want %q in: %v", c.want, err)
			}
		})
	}
}
