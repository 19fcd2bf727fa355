package disk

import (
	"errors"
	"maps"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
	wal "github.com/hashicorp/raft-wal"
	walfs "github.com/hashicorp/raft-wal/fs"
	"github.com/hashicorp/raft-wal/segment"
	"github.com/hashicorp/raft-wal/types"
)

// The tests of this file show each defect of the libraries beside the wrapper
// which closes it: the bare library must misbehave, or the wrapper has become
// needless.

// crashing remembers what was durable after each write.
type crashing struct {
	values  map[string][]byte
	history []map[string][]byte
}

func (c *crashing) GetStable(key []byte) ([]byte, error) { return c.values[string(key)], nil }

func (c *crashing) SetAll(values map[string][]byte) error {
	c.values = maps.Clone(c.values)
	maps.Copy(c.values, values)
	c.history = append(c.history, c.values)
	return nil
}

// TestH2VoteIsAtomic: a crash between the two halves of a vote.
func TestH2VoteIsAtomic(t *testing.T) {
	t.Parallel()
	vote := func(setUint64 func([]byte, uint64) error, set func([]byte, []byte) error, term uint64, candidate string) {
		if err := errors.Join(setUint64([]byte(keyVoteTerm), term), set([]byte(keyVoteCandidate), []byte(candidate))); err != nil {
			t.Fatal(err)
		}
	}
	mixed := func(history []map[string][]byte) bool {
		for _, durable := range history {
			term, candidate := durable[keyVoteTerm], string(durable[keyVoteCandidate])
			if len(term) > 0 && (term[0] == 5) != (candidate == "five") {
				return true
			}
		}
		return false
	}
	bare := &crashing{values: map[string][]byte{}}
	bareUint64 := func(key []byte, v uint64) error { return bare.SetAll(map[string][]byte{string(key): {byte(v)}}) }
	bareSet := func(key, v []byte) error { return bare.SetAll(map[string][]byte{string(key): v}) }
	vote(bareUint64, bareSet, 4, "four")
	vote(bareUint64, bareSet, 5, "five")
	if !mixed(bare.history) {
		t.Error("two writes were never seen apart: this test proves nothing")
	}

	kept := &crashing{values: map[string][]byte{}}
	s := &Stable{values: kept, guard: testGuard(t)}
	vote(s.SetUint64, s.Set, 4, "four")
	vote(s.SetUint64, s.Set, 5, "five")
	if mixed(kept.history) {
		t.Errorf("a crash could mix votes: %v", kept.history)
	}
	if len(kept.history) != 2 {
		t.Errorf("%d writes for two votes", len(kept.history))
	}
	if term, err := s.GetUint64([]byte(keyVoteTerm)); err != nil || term != 5 {
		t.Errorf("term %d, %v", term, err)
	}
	if term, err := s.GetUint64([]byte("never set")); err != nil || term != 0 {
		t.Errorf("missing value %d, %v", term, err)
	}
}

// TestH4HangingDiskIsNoticed: raft would wait for the disk for ever, leading
// all the while.
func TestH4HangingDiskIsNoticed(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		told := make(chan error, 3)
		release := make(chan struct{})
		g := NewGuard(func(error) {}, func(err error) { told <- err }, 2*time.Second)
		done := make(chan error)
		go func() {
			done <- g.watch("write", func() error { <-release; return nil })
		}()
		time.Sleep(1900 * time.Millisecond)
		synctest.Wait()
		if len(told) != 0 {
			t.Fatalf("reported early: %v", <-told)
		}
		time.Sleep(200 * time.Millisecond)
		synctest.Wait()
		if len(told) != 1 || <-told == nil {
			t.Fatal("not reported")
		}
		close(release)
		if err := <-done; err != nil {
			t.Fatal(err)
		}
		if len(told) != 1 || <-told != nil {
			t.Fatal("the recovery was not reported")
		}
	})
}

// failingFS makes the file system below the log fail on demand.
type failingFS struct {
	types.VFS
	fail *atomic.Bool
}

type failingFile struct {
	types.WritableFile
	fail *atomic.Bool
}

var errDisk = errors.New("input/output error")

func (f failingFS) Create(dir, name string, size uint64) (types.WritableFile, error) {
	w, err := f.VFS.Create(dir, name, size)
	return failingFile{w, f.fail}, err
}

func (f failingFile) Sync() error {
	if f.fail.Load() {
		return errDisk
	}
	return f.WritableFile.Sync()
}

// TestH7WriteErrorIsFatal: after a failed fsync the next one may lie, so the
// log must never take another write.
func TestH7WriteErrorIsFatal(t *testing.T) {
	t.Parallel()
	openFailing := func(dir string, fail *atomic.Bool) (*wal.WAL, *meta) {
		m := &meta{fs: OS}
		filer := &segments{inner: segment.NewFiler(dir, failingFS{walfs.New(), fail})}
		w, err := wal.Open(dir, wal.WithCodec(codec{}), wal.WithMetaStore(m), wal.WithSegmentFiler(filer), wal.WithLogger(hclog.NewNullLogger()))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = w.Close() })
		return w, m
	}

	var fail atomic.Bool
	bare, _ := openFailing(t.TempDir(), &fail)
	fail.Store(true)
	if err := bare.StoreLogs([]*raft.Log{record(1)}); !errors.Is(err, errDisk) {
		t.Fatalf("the fault did not arrive: %v", err)
	}
	fail.Store(false)
	if err := bare.StoreLogs([]*raft.Log{record(1)}); err != nil {
		t.Errorf("the bare log refuses further writes by itself: %v", err)
	}

	dir := t.TempDir()
	mark, err := openMark(OS, dir, true)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = mark.Close() })
	var fatal []error
	guard := NewGuard(func(err error) { fatal = append(fatal, err) }, func(error) {}, time.Minute)
	w, m := openFailing(dir, &fail)
	l := &Log{turn: make(chan struct{}, 1), dir: dir, wal: w, meta: m, mark: mark, guard: guard}
	if err := l.StoreLogs([]*raft.Log{record(1)}); err != nil {
		t.Fatal(err)
	}
	fail.Store(true)
	if err := l.StoreLogs([]*raft.Log{record(2)}); !errors.Is(err, errDisk) {
		t.Fatalf("write: %v", err)
	}
	if len(fatal) != 1 || !errors.Is(fatal[0], errDisk) {
		t.Fatalf("the process was not told to end: %v", fatal)
	}
	fail.Store(false)
	if err := l.StoreLogs([]*raft.Log{record(2)}); err == nil {
		t.Error("the log took a write after a failed one")
	}
	if err := l.DeleteRange(1, 1); err == nil {
		t.Error("the log was cut after a failed write")
	}
	if len(fatal) != 1 {
		t.Errorf("told %d times", len(fatal))
	}
	if mark.Index() != 1 {
		t.Errorf("the mark moved to %d over a failed write", mark.Index())
	}
}

// TestRecordsAreVerifiedOnEachRead: raft-wal's own codec hands out whatever it
// finds.
func TestRecordsAreVerifiedOnEachRead(t *testing.T) {
	t.Parallel()
	encoded := encodeRecord(t, codec{}, record(3))
	for at := range encoded {
		encoded[at] ^= 0x10
		var got raft.Log
		if err := (codec{}).Decode(encoded, &got); err == nil {
			t.Errorf("a flip at byte %d of %d was not noticed", at, len(encoded))
		}
		encoded[at] ^= 0x10
	}
	for cut := range encoded {
		var got raft.Log
		if err := (codec{}).Decode(encoded[:cut], &got); err == nil {
			t.Errorf("a record cut at %d was not noticed", cut)
		}
	}
	bare := encodeRecord(t, &wal.BinaryCodec{}, record(3))
	bare[10] ^= 0x10
	var got raft.Log
	if err := (&wal.BinaryCodec{}).Decode(bare, &got); err != nil {
		t.Errorf("the library's codec notices damage by itself: %v", err)
	}
}

func encodeRecord(t *testing.T, c wal.Codec, l *raft.Log) []byte {
	t.Helper()
	var b writeBuffer
	if err := c.Encode(l, &b); err != nil {
		t.Fatal(err)
	}
	return b
}

type writeBuffer []byte

func (b *writeBuffer) Write(p []byte) (int, error) { *b = append(*b, p...); return len(p), nil }

// TestHighWaterMarkNoticesTheLibraryDroppingRecords: a flipped bit in the
// middle of the tail makes raft-wal forget everything after it without a word.
func TestHighWaterMarkNoticesTheLibraryDroppingRecords(t *testing.T) {
	t.Parallel()
	dir := closedLog(t, 60)
	tail := segmentsOf(t, dir)[0]
	// Find a byte whose damage shortens the bare log.
	for at := int64(400); at < 1200; at++ {
		damaged := copyDir(t, dir)
		flip(t, damaged+"/"+segmentName(tail), at)
		w, err := wal.Open(damaged, wal.WithCodec(codec{}), wal.WithMetaStore(&meta{fs: OS}), wal.WithSegmentFiler(newSegments(OS, damaged)), wal.WithLogger(hclog.NewNullLogger()))
		if err != nil {
			continue
		}
		last, _ := w.LastIndex()
		_ = w.Close()
		if last == 60 {
			continue
		}
		if l, err := open(t, damaged); err == nil {
			_ = l.Close()
			t.Fatalf("the log lost the records after %d and opened", last)
		}
		return
	}
	t.Error("no damage shortened the bare log: the mark would be needless")
}

func segmentName(path string) string {
	return path[len(path)-len("00000000000000000001-0000000000000000.wal"):]
}

// TestCrashBetweenSealAndMetadata: raft-wal seals a full segment before it says
// so in its metadata, and cannot go on from between.
func TestCrashBetweenSealAndMetadata(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	l := mustOpen(t, dir)
	metadata := func() []byte {
		content, err := os.ReadFile(filepath.Join(dir, metaName))
		if err != nil {
			t.Fatal(err)
		}
		return content
	}
	// Write until the first segment is full; keep the metadata from before.
	before, last := metadata(), uint64(0)
	for len(segmentsOf(t, dir)) == 1 {
		last++
		appendRecords(t, l, last, last)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	segments := segmentsOf(t, dir)
	crashed := func() string {
		copied := copyDir(t, dir)
		writeFile(t, filepath.Join(copied, metaName), before)
		remove(t, copied, filepath.Base(segments[1]))
		return copied
	}

	bareDir := crashed()
	bare, err := wal.Open(bareDir, wal.WithCodec(codec{}), wal.WithMetaStore(&meta{fs: OS}), wal.WithSegmentFiler(newSegments(OS, bareDir)), wal.WithLogger(hclog.NewNullLogger()))
	if err != nil {
		t.Fatal(err)
	}
	lastInFile, _ := bare.LastIndex()
	if err := bare.StoreLog(record(lastInFile + 1)); !errors.Is(err, wal.ErrSealed) {
		t.Errorf("the bare log goes on by itself: %v", err)
	}
	_ = bare.Close()

	ours := crashed()
	writeFile(t, filepath.Join(ours, markName), markAt(t, lastInFile))
	l = mustOpen(t, ours)
	appendRecords(t, l, lastInFile+1, lastInFile+30)
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if err := intact(mustOpen(t, ours), 1, lastInFile+30); err != nil {
		t.Error(err)
	}
}

// markAt is the content of a mark which stands at index.
func markAt(t *testing.T, index uint64) []byte {
	t.Helper()
	dir := t.TempDir()
	m, err := openMark(OS, dir, true)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(m.Raise(index), m.Close()); err != nil {
		t.Fatal(err)
	}
	content, err := os.ReadFile(filepath.Join(dir, markName))
	if err != nil {
		t.Fatal(err)
	}
	return content
}
