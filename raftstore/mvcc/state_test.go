package mvcc

import (
	"errors"
	"testing"
)

func TestCompare(t *testing.T) {
	t.Parallel()
	// Every case starts with /r/a/old at revision 2, current revision 2.
	cases := []struct {
		name     string
		do       func(s *State) bool
		want     bool
		revision int64
	}{
		{"a create of a missing key succeeds", func(s *State) bool { _, _, ok := s.Put("/r/a/new", nil, 0, 0); return ok }, true, 3},
		{"a create of an existing key fails and consumes no revision", func(s *State) bool { _, _, ok := s.Put("/r/a/old", nil, 0, 0); return ok }, false, 2},
		{"an update with the right revision succeeds", func(s *State) bool { _, _, ok := s.Put("/r/a/old", nil, 2, 0); return ok }, true, 3},
		{"an update with a wrong revision fails", func(s *State) bool { _, _, ok := s.Put("/r/a/old", nil, 1, 0); return ok }, false, 2},
		{"an update of a missing key fails", func(s *State) bool { _, _, ok := s.Put("/r/a/new", nil, 2, 0); return ok }, false, 2},
		{"an unconditional put of a missing key succeeds", func(s *State) bool { _, _, ok := s.Put("/r/a/new", nil, AnyRevision, 0); return ok }, true, 3},
		{"an unconditional put of an existing key succeeds", func(s *State) bool { _, _, ok := s.Put("/r/a/old", nil, AnyRevision, 0); return ok }, true, 3},
		{"a delete with the right revision succeeds", func(s *State) bool { _, ok := s.Delete("/r/a/old", 2); return ok }, true, 3},
		{"a delete with a wrong revision fails", func(s *State) bool { _, ok := s.Delete("/r/a/old", 1); return ok }, false, 2},
		{"a delete that expects no key fails", func(s *State) bool { _, ok := s.Delete("/r/a/old", 0); return ok }, false, 2},
		{"an unconditional delete succeeds", func(s *State) bool { _, ok := s.Delete("/r/a/old", AnyRevision); return ok }, true, 3},
		{"a delete of a missing key fails", func(s *State) bool { _, ok := s.Delete("/r/a/new", AnyRevision); return ok }, false, 2},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			s := New()
			s.Put("/r/a/old", []byte("v"), 0, 0)
			if got := c.do(s); got != c.want {
				t.Errorf("succeeded = %v, want %v", got, c.want)
			}
			v := s.Publish()
			if v.Revision() != c.revision {
				t.Errorf("revision %d, want %d", v.Revision(), c.revision)
			}
		})
	}
}

func TestVersionsOfAKey(t *testing.T) {
	t.Parallel()
	s := New()
	s.Put("/r/a/k", []byte("1"), 0, 0)
	second, first, _ := s.Put("/r/a/k", []byte("2"), 2, 0)
	if second.CreateRevision != 2 || second.ModRevision != 3 || second.Version != 2 || first.Version != 1 {
		t.Errorf("second %+v after first %+v", second, first)
	}
	s.Delete("/r/a/k", 3)
	third, prev, _ := s.Put("/r/a/k", []byte("3"), 0, 0)
	if third.CreateRevision != 5 || third.Version != 1 || prev != nil {
		t.Errorf("recreated %+v after %+v", third, prev)
	}
	v := s.Publish()
	events, progress, err := v.Events(nil, "/r/", 0, 10)
	if err != nil || progress != 5 || len(events) != 4 {
		t.Fatalf("events %v, progress %d, %v", events, progress, err)
	}
	deleted := events[2]
	if deleted.Type != Delete || deleted.KV.ModRevision != 4 || deleted.KV.Value != nil || deleted.PrevKV != second {
		t.Errorf("delete event %+v", deleted)
	}
	if events[3].PrevKV != nil {
		t.Errorf("a recreated key has a predecessor: %+v", events[3])
	}
}

func TestRevisionsThatCannotBeRead(t *testing.T) {
	t.Parallel()
	s := New()
	for range 10 {
		s.Put("/r/a/k", nil, AnyRevision, 0)
	}
	if err := s.Compact(6); err != nil {
		t.Fatal(err)
	}
	v := s.Publish()
	cases := []struct {
		name     string
		revision int64
		want     error
	}{
		{"before the compaction", 5, ErrCompacted},
		{"at the compaction", 6, nil},
		{"the newest", 11, nil},
		{"zero means newest", 0, nil},
		{"the future", 12, ErrFutureRevision},
		{"negative", -1, ErrCompacted},
	}
	for _, c := range cases {
		if _, err := v.Get("/r/a/k", c.revision); !errors.Is(err, c.want) {
			t.Errorf("get %s: %v, want %v", c.name, err, c.want)
		}
		if _, err := v.Range("/r/", "", 0, c.revision); !errors.Is(err, c.want) {
			t.Errorf("range %s: %v, want %v", c.name, err, c.want)
		}
	}
	if _, err := s.Watch("/r/", 5); !errors.Is(err, ErrCompacted) {
		t.Errorf("watch from before the compaction: %v", err)
	}
	if _, err := s.Watch("/r/", 6); err != nil {
		t.Errorf("watch from the compaction: %v", err)
	}
	if err := s.Compact(6); err != nil {
		t.Errorf("compact again: %v", err)
	}
	if err := s.Compact(5); !errors.Is(err, ErrCompacted) {
		t.Errorf("compact backwards: %v", err)
	}
	if err := s.Compact(12); !errors.Is(err, ErrFutureRevision) {
		t.Errorf("compact the future: %v", err)
	}
	if v.Revision() != 11 {
		t.Errorf("compaction consumed a revision: %d", v.Revision())
	}
}

func TestExpiry(t *testing.T) {
	t.Parallel()
	s := New()
	s.Put("/r/a/b", nil, 0, 20)
	s.Put("/r/a/a", nil, 0, 20)
	s.Put("/r/a/later", nil, 0, 30)
	s.Put("/r/a/renewed", nil, 0, 10)
	s.Put("/r/a/renewed", nil, AnyRevision, 40)
	s.Put("/r/a/kept", nil, 0, 10)
	s.Put("/r/a/kept", nil, AnyRevision, 0)
	if next := s.Publish().NextExpiry(); next != 20 {
		t.Fatalf("next expiry %d, want 20", next)
	}
	if n := s.Expire(19, 10); n != 0 {
		t.Errorf("%d keys expired early", n)
	}
	if n := s.Expire(20, 1); n != 1 {
		t.Errorf("%d keys expired, the limit was 1", n)
	}
	if n := s.Expire(20, 10); n != 1 {
		t.Errorf("%d keys expired, 1 was left", n)
	}
	v := s.Publish()
	events, _, _ := v.Events(nil, "", 8, 10)
	if len(events) != 2 || events[0].KV.Key != "/r/a/a" || events[1].KV.Key != "/r/a/b" || events[1].Revision != 10 {
		t.Errorf("expiry events %+v", events)
	}
	if v.Count("/r/") != 3 || v.NextExpiry() != 30 {
		t.Errorf("%d keys left, next expiry %d", v.Count("/r/"), v.NextExpiry())
	}
}

func TestDirectory(t *testing.T) {
	t.Parallel()
	for key, want := range map[string]string{
		"/registry/pods/default/web": "/registry/pods/",
		"/registry/nodes/n1":         "/registry/nodes/",
		"/registry/nodes/":           "/registry/nodes/",
		"/registry/nodes":            "",
		"/short":                     "",
		"":                           "",
		"no/slash/first":             "",
		"//x/y":                      "//x/",
	} {
		if got := directory(key); got != want {
			t.Errorf("directory(%q) = %q, want %q", key, got, want)
		}
	}
}
