package disk

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
)

func testGuard(t *testing.T) *Guard {
	t.Helper()
	return NewGuard(func(err error) { t.Logf("fatal: %v", err) }, func(error) {}, time.Minute)
}

func open(t *testing.T, dir string) (*Log, error) {
	t.Helper()
	return OpenLog(OS, dir, 64<<10, testGuard(t), hclog.NewNullLogger())
}

func mustOpen(t *testing.T, dir string) *Log {
	t.Helper()
	l, err := open(t, dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	return l
}

func record(i uint64) *raft.Log {
	return &raft.Log{
		Index: i, Term: 1 + i/10, Type: raft.LogCommand, AppendedAt: time.Unix(1, int64(i)),
		Data: bytes.Repeat([]byte{byte(i)}, int(20+i%50)), Extensions: []byte("x"),
	}
}

func appendRecords(t *testing.T, l *Log, from, to uint64) {
	t.Helper()
	for i := from; i <= to; {
		var batch []*raft.Log
		for ; i <= to && len(batch) < 20; i++ {
			batch = append(batch, record(i))
		}
		if err := l.StoreLogs(batch); err != nil {
			t.Fatal(err)
		}
	}
}

// intact checks that the log has exactly these records.
func intact(l *Log, from, to uint64) error {
	first, last, err := l.Bounds()
	if err != nil || first != from || last != to {
		return fmt.Errorf("log has records %d to %d (%v), want %d to %d", first, last, err, from, to)
	}
	for i := from; i <= to; i++ {
		var got raft.Log
		if err := l.GetLog(i, &got); err != nil {
			return err
		}
		want := record(i)
		if got.Term != want.Term || got.Type != want.Type || !bytes.Equal(got.Data, want.Data) ||
			!bytes.Equal(got.Extensions, want.Extensions) || !got.AppendedAt.Equal(want.AppendedAt) {
			return fmt.Errorf("record %d is %+v", i, got)
		}
	}
	return nil
}

// copyDir copies a closed log, so that many kinds of damage can be tried.
func copyDir(t *testing.T, from string) string {
	t.Helper()
	to := filepath.Join(t.TempDir(), "copy")
	if err := os.CopyFS(to, os.DirFS(from)); err != nil {
		t.Fatal(err)
	}
	return to
}

// closedLog makes a log of several segments.
func closedLog(t *testing.T, records uint64) string {
	t.Helper()
	dir := t.TempDir()
	l := mustOpen(t, dir)
	appendRecords(t, l, 1, records)
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	return dir
}

func segmentsOf(t *testing.T, dir string) []string {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(dir, "*.wal"))
	if err != nil || len(names) == 0 {
		t.Fatalf("no segments in %s: %v", dir, err)
	}
	return names
}

func TestLogSurvivesReopening(t *testing.T) {
	t.Parallel()
	dir := closedLog(t, 1500)
	if n := len(segmentsOf(t, dir)); n < 2 {
		t.Fatalf("%d segments, the test wants a rotation", n)
	}
	l := mustOpen(t, dir)
	if err := intact(l, 1, 1500); err != nil {
		t.Fatal(err)
	}
	if err := l.DeleteRange(1, 700); err != nil {
		t.Fatal(err)
	}
	if err := l.DeleteRange(1491, 1500); err != nil {
		t.Fatal(err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	l = mustOpen(t, dir)
	if err := intact(l, 701, 1490); err != nil {
		t.Fatal(err)
	}
	if err := l.DeleteRange(701, 1490); err != nil {
		t.Fatal(err)
	}
	appendRecords(t, l, 2000, 2010) // as after an installed snapshot
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if err := intact(mustOpen(t, dir), 2000, 2010); err != nil {
		t.Fatal(err)
	}
}

func TestFilesArePrivate(t *testing.T) {
	t.Parallel()
	dir := closedLog(t, 1500)
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		info, err := d.Info()
		if err == nil && info.Mode().Perm() != fileMode {
			t.Errorf("%s has mode %v", path, info.Mode())
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestTornLastWriteIsDropped(t *testing.T) {
	t.Parallel()
	// A write that was never acknowledged leaves the mark where it was.
	dir := closedLog(t, 20)
	tail := segmentsOf(t, dir)[0]
	before, err := os.ReadFile(filepath.Join(dir, markName))
	if err != nil {
		t.Fatal(err)
	}
	acknowledged, err := os.ReadFile(tail)
	if err != nil {
		t.Fatal(err)
	}
	l := mustOpen(t, dir)
	appendRecords(t, l, 21, 21)
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	full, err := os.ReadFile(tail)
	if err != nil {
		t.Fatal(err)
	}
	begin := firstDifference(acknowledged, full)
	for cut := begin; cut < begin+120; cut += 3 {
		damaged := copyDir(t, dir)
		torn := bytes.Clone(full)
		clear(torn[cut:])
		writeFile(t, filepath.Join(damaged, filepath.Base(tail)), torn)
		writeFile(t, filepath.Join(damaged, markName), before)
		l, err := open(t, damaged)
		if err != nil {
			t.Fatalf("cut at %d: %v", cut, err)
		}
		if intact(l, 1, 20) != nil && intact(l, 1, 21) != nil {
			t.Fatalf("cut at %d: %v", cut, intact(l, 1, 20))
		}
		_, last, _ := l.Bounds()
		appendRecords(t, l, last+1, 25)
		if err := errors.Join(intact(l, 1, 25), l.Close()); err != nil {
			t.Fatal(err)
		}
	}
}

func firstDifference(a, b []byte) int {
	for i := range a {
		if a[i] != b[i] {
			return i
		}
	}
	return len(a)
}

func writeFile(t *testing.T, path string, content []byte) {
	t.Helper()
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestFlippedBitIsNeverSilent(t *testing.T) {
	t.Parallel()
	dir := closedLog(t, 60)
	tail := segmentsOf(t, dir)[0]
	content, err := os.ReadFile(tail)
	if err != nil {
		t.Fatal(err)
	}
	used := len(bytes.TrimRight(content, "\x00"))
	harmless := 0
	for offset := 0; offset < used; offset += 5 {
		damaged := copyDir(t, dir)
		flipped := bytes.Clone(content)
		flipped[offset] ^= 1 << (offset % 8)
		writeFile(t, filepath.Join(damaged, filepath.Base(tail)), flipped)
		l, err := open(t, damaged)
		if err != nil {
			var damage *DamageError
			if !errors.As(err, &damage) || !strings.Contains(err.Error(), damaged) || !strings.Contains(err.Error(), "Remedy") {
				t.Fatalf("flip at %d: error without file or remedy: %v", offset, err)
			}
			continue
		}
		harmless++ // padding, or the sum of a batch that is not the last
		if err := errors.Join(intact(l, 1, 60), l.Close()); err != nil {
			t.Fatalf("flip at %d was not noticed: %v", offset, err)
		}
	}
	t.Logf("%d of %d flips changed nothing that matters", harmless, used/5)
}

func TestDamageIsNamed(t *testing.T) {
	t.Parallel()
	cases := []struct {
		name   string
		damage func(t *testing.T, dir string)
		want   string
	}{
		{"the metadata is missing", func(t *testing.T, dir string) { remove(t, dir, metaName) }, metaName},
		{"the metadata is cut", func(t *testing.T, dir string) { truncate(t, filepath.Join(dir, metaName), 30) }, metaName},
		{"the metadata is empty", func(t *testing.T, dir string) { truncate(t, filepath.Join(dir, metaName), 0) }, metaName},
		{"a bit of the metadata is flipped", func(t *testing.T, dir string) { flip(t, filepath.Join(dir, metaName), 60) }, metaName},
		{"the mark is missing", func(t *testing.T, dir string) { remove(t, dir, markName) }, markName},
		{"both slots of the mark are damaged", func(t *testing.T, dir string) {
			flip(t, filepath.Join(dir, markName), 10)
			flip(t, filepath.Join(dir, markName), 42)
		}, markName},
		{"a sealed segment is missing", func(t *testing.T, dir string) { remove(t, dir, filepath.Base(segmentsOf(t, dir)[0])) }, ".wal"},
		{"the tail segment is missing", func(t *testing.T, dir string) {
			s := segmentsOf(t, dir)
			remove(t, dir, filepath.Base(s[len(s)-1]))
		}, "ends at record"},
		{"the tail segment is empty", func(t *testing.T, dir string) {
			s := segmentsOf(t, dir)
			truncate(t, s[len(s)-1], 0)
		}, "ends at record"},
		{"a sealed segment is cut", func(t *testing.T, dir string) { truncate(t, segmentsOf(t, dir)[0], 5000) }, "record"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			dir := closedLog(t, 1500)
			c.damage(t, dir)
			l, err := open(t, dir)
			if err == nil {
				t.Fatalf("opened: %v", errors.Join(intact(l, 1, 1500), l.Close()))
			}
			if !strings.Contains(err.Error(), dir) || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), "Remedy") {
				t.Errorf("the error does not help: %v", err)
			}
		})
	}
}

func TestOneDamagedSlotOfTheMarkIsBridged(t *testing.T) {
	t.Parallel()
	for _, at := range []int64{10, 42} {
		dir := closedLog(t, 20)
		flip(t, filepath.Join(dir, markName), at)
		if err := intact(mustOpen(t, dir), 1, 20); err != nil {
			t.Error(err)
		}
	}
}

func remove(t *testing.T, dir, name string) {
	t.Helper()
	if err := os.Remove(filepath.Join(dir, name)); err != nil {
		t.Fatal(err)
	}
}

func truncate(t *testing.T, path string, size int64) {
	t.Helper()
	if err := os.Truncate(path, size); err != nil {
		t.Fatal(err)
	}
}

func flip(t *testing.T, path string, at int64) {
	t.Helper()
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	content[at] ^= 4
	writeFile(t, path, content)
}

func TestLockKeepsOthersOut(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	lock, err := LockDir(OS, dir)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := LockDir(OS, dir); err == nil || !strings.Contains(err.Error(), "another process") {
		t.Errorf("second lock: %v", err)
	}
	if err := lock.Close(); err != nil {
		t.Fatal(err)
	}
	again, err := LockDir(OS, dir)
	if err != nil {
		t.Fatal(err)
	}
	_ = again.Close()
}
