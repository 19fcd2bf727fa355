package raftstore

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/skiff-run/skiff/raftstore/disk"
)

// snapshotFiles lists the snapshots in a store's directory, newest first.
func snapshotFiles(t *testing.T, dir string) []string {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(dir, "snapshots", "*.snap"))
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(names)
	slices.Reverse(names)
	return names
}

// storeWithSnapshots makes a closed store with two snapshots and log after
// them, and says what it holds.
func storeWithSnapshots(t *testing.T) (dir string, want RangeResult, history []Event) {
	t.Helper()
	dir = t.TempDir()
	s := openStore(t, Options{Dir: dir, SegmentSize: 8 << 10, SnapshotEntries: 1 << 40})
	write := func(n int) {
		for i := range n {
			mustPut(t, s, fmt.Sprintf("/r/pods/p%d", i%40), fmt.Sprint(i), AnyRevision)
		}
	}
	for range 3 {
		write(150)
		if err := s.archivist.snapshot(); err != nil {
			t.Fatal(err)
		}
	}
	write(70)
	if err := s.Compact(context.Background(), 100); err != nil {
		t.Fatal(err)
	}
	want, err := s.Range("", "", 0, 0)
	if err != nil {
		t.Fatal(err)
	}
	history, _, err = s.state.View().Events(nil, "", 100, 1<<20)
	if err := errors.Join(err, s.Close()); err != nil {
		t.Fatal(err)
	}
	if len(snapshotFiles(t, dir)) != 2 {
		t.Fatalf("snapshots: %v", snapshotFiles(t, dir))
	}
	return dir, want, history
}

// holds checks that the store in dir has exactly that content and history.
func holds(t *testing.T, s *Store, want RangeResult, history []Event) {
	t.Helper()
	got, err := s.Range("", "", 0, 0)
	if err != nil || got.Revision != want.Revision || len(got.KVs) != len(want.KVs) {
		t.Fatalf("revision %d with %d keys, %v, want %d with %d", got.Revision, len(got.KVs), err, want.Revision, len(want.KVs))
	}
	for i := range got.KVs {
		if fmt.Sprintf("%+v", *got.KVs[i]) != fmt.Sprintf("%+v", *want.KVs[i]) {
			t.Errorf("got %+v, want %+v", *got.KVs[i], *want.KVs[i])
		}
	}
	events, _, err := s.state.View().Events(nil, "", 100, 1<<20)
	if err != nil || len(events) != len(history) {
		t.Fatalf("%d events, %v, want %d", len(events), err, len(history))
	}
	for i := range events {
		if fmt.Sprintf("%+v %+v", events[i].KV, events[i].PrevKV) != fmt.Sprintf("%+v %+v", history[i].KV, history[i].PrevKV) {
			t.Errorf("event %d: %+v, want %+v", i, events[i], history[i])
		}
	}
}

func TestStoreRestartsFromSnapshotAndLog(t *testing.T) {
	t.Parallel()
	dir, want, history := storeWithSnapshots(t)
	holds(t, openStore(t, Options{Dir: dir}), want, history)
}

func damageFile(t *testing.T, path string) {
	t.Helper()
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	content[len(content)/2] ^= 1
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestDamagedNewestSnapshotCostsNothing(t *testing.T) {
	t.Parallel()
	dir, want, history := storeWithSnapshots(t)
	newest := snapshotFiles(t, dir)[0]
	damageFile(t, newest)
	s := openStore(t, Options{Dir: dir})
	holds(t, s, want, history)
	if _, err := os.Stat(newest + ".damaged"); err != nil {
		t.Errorf("the damaged file was not set aside: %v", err)
	}
	// The store goes on making snapshots.
	if err := s.archivist.snapshot(); err != nil {
		t.Error(err)
	}
}

func TestLostStateIsAnError(t *testing.T) {
	t.Parallel()
	cases := []struct {
		name   string
		damage func(t *testing.T, dir string)
		want   string
	}{
		{"both snapshots are damaged", func(t *testing.T, dir string) {
			for _, path := range snapshotFiles(t, dir) {
				damageFile(t, path)
			}
		}, ".snap"},
		{"both snapshots are missing", func(t *testing.T, dir string) {
			for _, path := range snapshotFiles(t, dir) {
				if err := os.Remove(path); err != nil {
					t.Fatal(err)
				}
			}
		}, "the log begins at record"},
		{"the identity is damaged", func(t *testing.T, dir string) {
			if err := os.WriteFile(filepath.Join(dir, "member.json"), []byte("{"), 0o600); err != nil {
				t.Fatal(err)
			}
		}, "member.json"},
		{"a bit of the identity is flipped", func(t *testing.T, dir string) {
			path := filepath.Join(dir, "member.json")
			content, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			content[bytes.Index(content, []byte("clusterID"))+14] ^= 1
			if err := os.WriteFile(path, content, 0o600); err != nil {
				t.Fatal(err)
			}
		}, "member.json"},
		{"the identity is missing", func(t *testing.T, dir string) {
			if err := os.Remove(filepath.Join(dir, "member.json")); err != nil {
				t.Fatal(err)
			}
		}, "member.json"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			dir, _, _ := storeWithSnapshots(t)
			c.damage(t, dir)
			_, err := Open(context.Background(), Options{Dir: dir, Logger: quiet()})
			if err == nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), "backup") {
				t.Errorf("the error does not help: %v", err)
			}
		})
	}
}

func TestInterruptedBootstrapIsFinished(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := newIdentity("").keep(disk.OS, dir); err != nil {
		t.Fatal(err)
	}
	log, err := disk.OpenLog(disk.OS, filepath.Join(dir, "log"), 64<<10, disk.NewGuard(func(err error) { t.Error(err) }, func(error) {}, time.Minute), newHCLog(quiet()))
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(log.Stable().SetUint64([]byte("CurrentTerm"), 1), log.Close()); err != nil {
		t.Fatal(err)
	}
	if r := mustPut(t, openStore(t, Options{Dir: dir}), "/r/a/k", "v", 0); r.Revision != 2 {
		t.Errorf("put: %+v", r)
	}
}

func TestLogIsCutBehindSnapshots(t *testing.T) {
	t.Parallel()
	s := openStore(t, Options{SnapshotEntries: 50, SegmentSize: 8 << 10})
	for range 1000 {
		mustPut(t, s, "/r/a/k", strings.Repeat("x", 100), AnyRevision)
	}
	if err := s.archivist.snapshot(); err != nil {
		t.Fatal(err)
	}
	first, last, err := s.wal.Bounds()
	if err != nil || last-first > 400 || first == 1 {
		t.Errorf("log still holds %d to %d, %v", first, last, err)
	}
	ids, err := s.snapshots.IDs()
	if err != nil || len(ids) != snapshotsKept {
		t.Errorf("snapshots %v, %v", ids, err)
	}
}
