package raftstore

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/skiff-run/skiff/raftstore/disk"
)

// saved is a store's snapshot file and what the store held.
func saved(t *testing.T, s *Store) ([]byte, SnapshotInfo, RangeResult) {
	t.Helper()
	var file bytes.Buffer
	info, err := s.SaveSnapshot(t.Context(), &file)
	if err != nil {
		t.Fatal(err)
	}
	content, err := s.Range("", "", 0, 0)
	if err != nil {
		t.Fatal(err)
	}
	return file.Bytes(), info, content
}

func filledStore(t *testing.T, o Options) *Store {
	t.Helper()
	s := openStore(t, o)
	for i := range 300 {
		mustPut(t, s, fmt.Sprintf("/registry/pods/p%d", i%90), strings.Repeat("v", i), AnyRevision)
	}
	return s
}

// sameContent compares keys, values and revisions, not the store's revision.
func sameContent(t *testing.T, s *Store, want RangeResult) {
	t.Helper()
	got, err := s.Range("", "", 0, 0)
	if err != nil || len(got.KVs) != len(want.KVs) {
		t.Fatalf("%d keys, %v, want %d", len(got.KVs), err, len(want.KVs))
	}
	for i := range got.KVs {
		if fmt.Sprintf("%+v", *got.KVs[i]) != fmt.Sprintf("%+v", *want.KVs[i]) {
			t.Errorf("got %+v, want %+v", *got.KVs[i], *want.KVs[i])
		}
	}
}

func TestSnapshotIsRestoredAsANewCluster(t *testing.T) {
	t.Parallel()
	s := filledStore(t, Options{MemberID: "old"})
	file, info, content := saved(t, s)
	if info.ClusterID != s.ClusterID() || info.ClusterID == "" || info.Revision != 301 || info.Keys != 90 || info.MemberID != "old" {
		t.Errorf("info %+v", info)
	}
	inspected, err := InspectSnapshot(bytes.NewReader(file))
	if err != nil || inspected != info {
		t.Errorf("inspected %+v, %v, saved %+v", inspected, err, info)
	}
	// The old cluster goes on; clients see revisions the snapshot does not have.
	seen := mustPut(t, s, "/registry/pods/later", "", 0).Revision

	dir := filepath.Join(t.TempDir(), "restored")
	restored, err := RestoreSnapshot(dir, "", "10.0.0.9:6444", bytes.NewReader(file))
	if err != nil {
		t.Fatal(err)
	}
	if restored.Restored.ClusterID == info.ClusterID || restored.Restored.MemberID == "old" {
		t.Errorf("the restored store takes the old one's place: %+v", restored.Restored)
	}
	for range 2 { // also after a restart
		r := openStore(t, Options{Dir: dir})
		sameContent(t, r, content)
		if r.ClusterID() != restored.Restored.ClusterID || r.Status().MemberID != restored.Restored.MemberID {
			t.Errorf("cluster %s, member %s, told %+v", r.ClusterID(), r.Status().MemberID, restored.Restored)
		}
		if err := r.Close(); err != nil {
			t.Fatal(err)
		}
	}
	r := openStore(t, Options{Dir: dir})
	for _, old := range []int64{info.Revision, seen} {
		if _, err := r.Watch("", old); !errors.Is(err, ErrCompacted) {
			t.Errorf("a watch from revision %d goes on in another past: %v", old, err)
		}
		if _, err := r.Range("", "", 1, old); !errors.Is(err, ErrCompacted) {
			t.Errorf("a list at revision %d goes on in another past: %v", old, err)
		}
	}
	kv := content.KVs[0]
	if got := mustPut(t, r, kv.Key, "new", kv.ModRevision); !got.Succeeded || got.Revision != restored.Restored.Revision+1 || got.Revision <= seen {
		t.Errorf("put after the restore: %+v", got)
	}
	if w, err := r.Watch("", restored.Restored.Revision); err != nil {
		t.Error(err)
	} else if events, _, err := w.Next(t.Context()); err != nil || len(events) != 1 || string(events[0].KV.Value) != "new" {
		t.Errorf("watch after the restore: %v, %v", events, err)
	}
}

func TestEveryDamageToASnapshotFileIsNoticed(t *testing.T) {
	t.Parallel()
	s := openStore(t, Options{})
	mustPut(t, s, "/r/a/k", "v", 0)
	file, _, _ := saved(t, s)
	like := openStore(t, Options{})
	mustPut(t, like, "/r/a/k", "w", 0)
	other, _, _ := saved(t, like)
	dir := filepath.Join(t.TempDir(), "restored")
	check := func(what string, content []byte) {
		t.Helper()
		if _, err := InspectSnapshot(bytes.NewReader(content)); !errors.Is(err, disk.ErrBackup) {
			t.Errorf("%s, inspected: %v", what, err)
		}
		if _, err := RestoreSnapshot(dir, "", "a:1", bytes.NewReader(content)); err == nil {
			t.Errorf("%s, restored", what)
		}
	}
	for at := range file {
		bad := bytes.Clone(file)
		bad[at] ^= 0x20
		check(fmt.Sprintf("byte %d of %d is flipped", at, len(file)), bad)
		check(fmt.Sprintf("it ends after %d of %d bytes", at, len(file)), file[:at])
	}
	check("something follows", append(bytes.Clone(file), 0))
	if len(file) != len(other) {
		t.Fatalf("the two files differ in size (%d, %d): the next check needs another cut", len(file), len(other))
	}
	// Parts of two good files: each frame is right where it is.
	header := bytes.Index(file, []byte("}")) + 1
	check("header and content are of different snapshots", append(bytes.Clone(other[:header]), file[header:]...))
	if _, err := os.Stat(dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("something was written before the file was verified: %v", err)
	}
}

func TestSavingStopsWithItsContext(t *testing.T) {
	t.Parallel()
	s := filledStore(t, Options{})
	ctx, cancel := context.WithCancel(t.Context())
	if _, err := s.SaveSnapshot(ctx, cancelling{cancel}); !errors.Is(err, context.Canceled) {
		t.Errorf("saved: %v", err)
	}
	failing := errors.New("no space left on device")
	if _, err := s.SaveSnapshot(t.Context(), failingWriter{failing}); !errors.Is(err, failing) {
		t.Errorf("saved: %v", err)
	}
}

type cancelling struct{ cancel func() }

func (c cancelling) Write(p []byte) (int, error) { c.cancel(); return len(p), nil }

type failingWriter struct{ err error }

func (f failingWriter) Write([]byte) (int, error) { return 0, f.err }

func TestRestoreNeverReplacesAStore(t *testing.T) {
	t.Parallel()
	s := openStore(t, Options{})
	file, _, _ := saved(t, s)
	if _, err := RestoreSnapshot(s.options.Dir, "", "a:1", bytes.NewReader(file)); err == nil || !strings.Contains(err.Error(), "another process") {
		t.Errorf("into a running store: %v", err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := RestoreSnapshot(s.options.Dir, "", "a:1", bytes.NewReader(file)); err == nil || !strings.Contains(err.Error(), "not empty") {
		t.Errorf("into a store: %v", err)
	}
	openStore(t, Options{Dir: s.options.Dir})
	foreign := t.TempDir()
	if err := os.Mkdir(filepath.Join(foreign, "photos"), 0o700); err != nil {
		t.Fatal(err)
	}
	if _, err := RestoreSnapshot(foreign, "", "a:1", bytes.NewReader(file)); err == nil || !strings.Contains(err.Error(), "photos") {
		t.Errorf("into somebody's directory: %v", err)
	}
}

var errKilled = errors.New("killed")

// dyingFS fails every change after a number of them, as if the process had been
// killed: what was done stays, nothing more is done.
type dyingFS struct {
	disk.FS
	left *int
}

func (d dyingFS) step() error {
	if *d.left == 0 {
		return errKilled
	}
	*d.left--
	return nil
}

func (d dyingFS) OpenFile(path string, flag int) (disk.File, error) {
	if flag&(os.O_CREATE|os.O_WRONLY|os.O_RDWR) == 0 {
		return d.FS.OpenFile(path, flag)
	}
	if err := d.step(); err != nil {
		return nil, err
	}
	f, err := d.FS.OpenFile(path, flag)
	return dyingFile{f, d}, err
}

func (d dyingFS) Rename(from, to string) error {
	if err := d.step(); err != nil {
		return err
	}
	return d.FS.Rename(from, to)
}

func (d dyingFS) Remove(path string) error {
	if err := d.step(); err != nil {
		return err
	}
	return d.FS.Remove(path)
}

type dyingFile struct {
	disk.File
	fs dyingFS
}

func (d dyingFile) Write(p []byte) (int, error) {
	if err := d.fs.step(); err != nil {
		return 0, err
	}
	return d.File.Write(p)
}

func (d dyingFile) WriteAt(p []byte, at int64) (int, error) {
	if err := d.fs.step(); err != nil {
		return 0, err
	}
	return d.File.WriteAt(p, at)
}

func (d dyingFile) Sync() error {
	if err := d.fs.step(); err != nil {
		return err
	}
	return d.File.Sync()
}

// killEverywhere runs f again and again, killing it one step later each time,
// until it is not killed any more, and calls after each kill.
func killEverywhere(t *testing.T, f func(fs disk.FS, round int) error, after func(round int)) {
	t.Helper()
	for steps := 0; ; steps++ {
		left := steps
		err := f(dyingFS{disk.OS, &left}, steps)
		if err == nil {
			if steps < 10 {
				t.Fatalf("only %d steps: the faults do not arrive", steps)
			}
			t.Logf("killed at each of %d steps", steps)
			return
		}
		if left != 0 {
			t.Fatalf("step %d: %v", steps, err)
		}
		after(steps)
	}
}

func TestInterruptedRestoreIsRunAgain(t *testing.T) {
	t.Parallel()
	file, _, content := saved(t, filledStore(t, Options{}))
	root := t.TempDir()
	dir := func(round int) string { return filepath.Join(root, fmt.Sprint(round)) }
	killEverywhere(t, func(fs disk.FS, round int) error {
		_, err := restoreSnapshot(fs, dir(round), "me", "a:1", bytes.NewReader(file))
		return err
	}, func(round int) {
		// A store opened now is either refused, complete, or was never begun.
		s, err := Open(context.Background(), Options{Dir: dir(round), Logger: quiet()})
		switch {
		case err == nil && s.Revision() == 1:
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			return
		case err == nil:
			sameContent(t, s, content)
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			return
		case !strings.Contains(err.Error(), "restore"):
			t.Errorf("killed at step %d: %v", round, err)
		}
		if _, err := RestoreSnapshot(dir(round), "me", "a:1", bytes.NewReader(file)); err != nil {
			t.Fatalf("again after step %d: %v", round, err)
		}
		s = openStore(t, Options{Dir: dir(round)})
		sameContent(t, s, content)
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	})
}

func TestRevisionJump(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 11, 30, 0, 0, 0, 0, time.UTC)
	cases := []struct {
		name  string
		since time.Time
		want  int64
	}{
		{"of an unknown time", time.Time{}, minJump},
		{"of a clock that ran ahead", now.Add(time.Hour), minJump},
		{"of a moment ago", now.Add(-time.Minute), minJump},
		{"of a month ago", now.Add(-30 * 24 * time.Hour), 30 * 86400 * jumpPerSecond},
	}
	for _, c := range cases {
		if got := revisionJump(c.since, now); got != c.want {
			t.Errorf("%s: %d, want %d", c.name, got, c.want)
		}
	}
}
