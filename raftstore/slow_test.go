package raftstore

import (
	"bytes"
	"context"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/skiff-run/skiff/raftstore/disk"
	"github.com/skiff-run/skiff/raftstore/internal/inject"
)

// slowDisk is the real file system whose syncs of the log take their time.
type slowDisk struct {
	disk.FS
	delay *atomic.Int64 // nanoseconds
}

func newSlowDisk() slowDisk { return slowDisk{disk.OS, new(atomic.Int64)} }

func (d slowDisk) OpenFile(path string, flag int) (disk.File, error) {
	f, err := d.FS.OpenFile(path, flag)
	if err != nil || !strings.HasSuffix(path, ".wal") {
		return f, err
	}
	return slowFile{f, d.delay}, nil
}

type slowFile struct {
	disk.File
	delay *atomic.Int64
}

func (f slowFile) Sync() error {
	time.Sleep(time.Duration(f.delay.Load())) // this is the fault
	return f.File.Sync()
}

// lines is a log that tests read.
type lines struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

// onSlowDisks founds a cluster whose members' disks can be slowed down.
func onSlowDisks(t *testing.T, said *lines) (*cluster, map[string]slowDisk) {
	t.Helper()
	c := &cluster{t: t, hub: newHub(), members: map[string]*Store{}, dirs: map[string]string{},
		options: Options{SlowWrite: 150 * time.Millisecond, TardyWrite: 100 * time.Millisecond, StallTimeout: 5 * time.Second}}
	disks := map[string]slowDisk{}
	for i, id := range []string{"a", "b", "c"} {
		disks[id] = newSlowDisk()
		c.open(id, addressOf(id), i > 0, func(o *Options) {
			o.Inject = &inject.Parts{FS: disks[id]}
			o.Logger = slog.New(slog.NewTextHandler(said, nil))
		})
		if i > 0 {
			c.add(id)
		}
	}
	return c, disks
}

func TestSlowDiskHandsLeadershipOver(t *testing.T) {
	t.Parallel()
	var said lines
	c, disks := onSlowDisks(t, &said)
	first := c.leader()
	disks[first.id.ID].delay.Store(int64(300 * time.Millisecond))
	mustPut(t, first, "/r/a/k", "v", 0)
	c.eventually("another member leads", func() bool { return c.leader() != first })
	if problem := first.Status().Problem; !strings.Contains(problem, "the disk is slow") || !first.Status().SlowDisk {
		t.Errorf("the former leader says %q", problem)
	}
	if !strings.Contains(said.String(), "handing leadership over because of the disk") {
		t.Error("the log does not say why leadership moved")
	}
	c.eventually("it is counted", func() bool { return testutil.ToFloat64(first.metrics.slowHandovers) == 1 })
	mustPut(t, first, "/r/a/k", "w", AnyRevision) // it serves
	for _, m := range c.list() {
		if (m.Problem != "") != (m.ID == first.id.ID) {
			t.Errorf("member %+v", m)
		}
	}
	disks[first.id.ID].delay.Store(0)
	c.agree()
	if err := first.guard.Failed(); err != nil {
		t.Errorf("slowness ended the store: %v", err)
	}
}

func TestLeadershipStaysWhenAllDisksAreSlow(t *testing.T) {
	t.Parallel()
	var said lines
	c, disks := onSlowDisks(t, &said)
	for _, d := range disks {
		d.delay.Store(int64(200 * time.Millisecond))
	}
	first := c.leader()
	// Followers first: each write reaches them too.
	c.eventually("all disks count as slow", func() bool {
		mustPut(t, first, "/r/a/k", "v", AnyRevision)
		for _, s := range c.members {
			if !s.Status().SlowDisk {
				return false
			}
		}
		return true
	})
	c.eventually("the leader has looked for a better one", func() bool {
		return strings.Contains(said.String(), "no other voter is better off") || c.leader() != first
	})
	leader := c.leader()
	for range 5 {
		mustPut(t, leader, "/r/a/k", "v", AnyRevision)
	}
	if c.leader() != leader {
		t.Error("leadership goes round though all disks are slow")
	}
}

func TestHangingDiskEndsALeader(t *testing.T) {
	t.Parallel()
	c := &cluster{t: t, hub: newHub(), members: map[string]*Store{}, dirs: map[string]string{}, options: Options{StallTimeout: 300 * time.Millisecond}}
	slow := newSlowDisk()
	fatal := make(chan error, 1)
	for i, id := range []string{"a", "b", "c"} {
		c.open(id, addressOf(id), i > 0, func(o *Options) {
			if i == 0 {
				o.Inject = &inject.Parts{FS: slow}
				o.OnFatal = func(err error) { fatal <- err }
			}
		})
		if i > 0 {
			c.add(id)
		}
	}
	slow.delay.Store(int64(time.Minute)) // longer than anybody here waits
	ctx, cancel := context.WithCancel(t.Context())
	go func() { _, _ = c.members["a"].Put(ctx, PutRequest{Key: "/r/a/k"}) }()
	if err := <-fatal; !strings.Contains(err.Error(), "has not answered") {
		t.Errorf("ended by %v", err)
	}
	cancel()
	hung := c.members["a"]
	delete(c.members, "a")
	// The process lives on here, and still the others are not held up.
	mustPut(t, c.leader(), "/r/a/other", "v", AnyRevision)
	if err := hung.Close(); err == nil {
		t.Error("a failed store closes without a word")
	}
	if err := hung.Health(t.Context()); err == nil {
		t.Error("it calls itself healthy")
	}
}
