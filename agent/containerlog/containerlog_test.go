package containerlog

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/skiff-run/skiff/internal/testenv"
)

const sample = `2026-01-01T00:00:00.000000001Z stdout F one
2026-01-01T00:00:01.000000001Z stderr F two
2026-01-01T00:00:02.000000001Z stdout P thr
2026-01-01T00:00:02.000000002Z stdout F ee
torn
2026-01-01T00:00:03.000000001Z stdout F four
`

func stopped(context.Context) bool { return false }

func TestRead(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "0.log")
	if err := os.WriteFile(path, []byte(sample), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct {
		options     Options
		out, errors string
	}{
		"everything":            {Options{Tail: -1, Limit: -1}, "one\nthree\nfour\n", "two\n"},
		"the last line":         {Options{Tail: 1, Limit: -1}, "four\n", ""},
		"no line":               {Options{Tail: 0, Limit: -1}, "", ""},
		"more lines than there": {Options{Tail: 99, Limit: -1}, "one\nthree\nfour\n", "two\n"},
		"a number of bytes":     {Options{Tail: -1, Limit: 6}, "one\n", "tw"},
		"since a time":          {Options{Tail: -1, Limit: -1, Since: time.Date(2026, 1, 1, 0, 0, 2, 0, time.UTC)}, "three\nfour\n", ""},
		"with time stamps":      {Options{Tail: 1, Limit: -1, Timestamps: true}, "2026-01-01T00:00:03.000000001Z four\n", ""},
		"following what ended":  {Options{Tail: 1, Limit: -1, Follow: true}, "four\n", ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var out, errors bytes.Buffer
			if err := Read(t.Context(), path, test.options, &out, &errors, stopped); err != nil {
				t.Fatal(err)
			}
			if out.String() != test.out || errors.String() != test.errors {
				t.Errorf("%q and %q, want %q and %q", out.String(), errors.String(), test.out, test.errors)
			}
		})
	}
}

// shared is a buffer two goroutines use.
type shared struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *shared) Write(p []byte) (int, error) { s.mu.Lock(); defer s.mu.Unlock(); return s.b.Write(p) }
func (s *shared) String() string              { s.mu.Lock(); defer s.mu.Unlock(); return s.b.String() }

func TestFollowGoesOnAcrossRotationAndEndsWithTheContainer(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "0.log")
	add := func(text string) {
		t.Helper()
		f, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		if _, err := fmt.Fprintf(f, "2026-01-01T00:00:00Z stdout F %s\n", text); err != nil {
			t.Fatal(err)
		}
	}
	add("a")
	var out shared
	var running atomic.Bool
	running.Store(true)
	done := make(chan error, 1)
	go func() {
		done <- Read(t.Context(), path, Options{Tail: -1, Limit: -1, Follow: true}, &out, nil, func(context.Context) bool { return running.Load() })
	}()
	expect := func(want string) {
		t.Helper()
		testenv.Eventually(t, 5*time.Second, func() bool { return out.String() == want }, "the reader got %q", want)
	}
	expect("a\n")
	add("b")
	expect("a\nb\n")
	add("c")
	if err := os.Rename(path, path+".1"); err != nil {
		t.Fatal(err)
	}
	add("d")
	expect("a\nb\nc\nd\n")
	running.Store(false)
	add("e")
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	expect("a\nb\nc\nd\ne\n")
}

// slow is a client that takes the first line and then nothing until it is told.
type slow struct {
	shared
	first chan struct{}
	goOn  chan struct{}
}

func (s *slow) Write(p []byte) (int, error) {
	n, err := s.shared.Write(p)
	select {
	case <-s.first:
	default:
		close(s.first)
		<-s.goOn
	}
	return n, err
}

func TestNoRotationIsMissedByASlowReader(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "0.log")
	add := func(text string) {
		t.Helper()
		if err := os.WriteFile(path, fmt.Appendf(nil, "2026-01-01T00:00:00Z stdout F %s\n", text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	aside := func(name string) {
		t.Helper()
		if err := os.Rename(path, path+"."+name); err != nil {
			t.Fatal(err)
		}
	}
	for name, oldestGone := range map[string]bool{"all files are there": false, "the file being read was removed": true} {
		add("a")
		out := &slow{first: make(chan struct{}), goOn: make(chan struct{})}
		var running atomic.Bool
		running.Store(true)
		done := make(chan error, 1)
		go func() {
			done <- Read(t.Context(), path, Options{Tail: -1, Limit: -1, Follow: true}, out, nil, func(context.Context) bool { return running.Load() })
		}()
		<-out.first
		for i, text := range []string{"b", "c", "d"} {
			aside(fmt.Sprintf("20260101-00000%d", i))
			add(text)
		}
		if oldestGone {
			if err := os.Remove(path + ".20260101-000000"); err != nil {
				t.Fatal(err)
			}
		}
		close(out.goOn)
		testenv.Eventually(t, 5*time.Second, func() bool { return out.String() == "a\nb\nc\nd\n" }, "%s: the reader got %q", name, out.String())
		running.Store(false)
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		for _, i := range []string{"0", "1", "2"} {
			_ = os.Remove(path + ".20260101-00000" + i)
		}
	}
}
