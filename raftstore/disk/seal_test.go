package disk

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"github.com/hashicorp/go-hclog"
	wal "github.com/hashicorp/raft-wal"
)

// TestTornSealIsForgotten: the write that fills a segment, and so ends with its
// index, is torn at each of many places. What was acknowledged before is there,
// the log goes on and opens again.
func TestTornSealIsForgotten(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	l := mustOpen(t, dir)
	first := segmentsOf(t, dir)[0]
	read := func(path string) []byte {
		content, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		return content
	}
	// Write until the first segment is full; keep what it was before the last
	// write to it.
	metadata := read(filepath.Join(dir, metaName))
	var before []byte
	after, acknowledged, last := read(first), uint64(0), uint64(0)
	for len(segmentsOf(t, dir)) == 1 {
		appendRecords(t, l, last+1, last+20)
		if content := read(first); !bytes.Equal(content, after) {
			before, after, acknowledged = after, content, last
		}
		last += 20
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	segments := segmentsOf(t, dir)
	before = append(before, make([]byte, len(after)-len(before))...) // the write may have made it longer
	begin, end := firstDifference(before, after), len(after)
	for end > begin && after[end-1] == before[end-1] {
		end--
	}
	torn := func(cut int) string {
		copied := copyDir(t, dir)
		writeFile(t, filepath.Join(copied, metaName), metadata)
		writeFile(t, filepath.Join(copied, markName), markAt(t, acknowledged))
		for _, later := range segments[1:] {
			remove(t, copied, filepath.Base(later))
		}
		content := append(append([]byte(nil), after[:cut]...), before[cut:]...)
		writeFile(t, filepath.Join(copied, filepath.Base(first)), content)
		return copied
	}
	// The last four bytes but a few are the commit's checksum: the index is there, its commit is not.
	bareDir := torn(end - 6)
	if bare, err := wal.Open(bareDir, wal.WithCodec(codec{}), wal.WithMetaStore(&meta{fs: OS}), wal.WithLogger(hclog.NewNullLogger()),
		wal.WithSegmentFiler(newSegments(OS, bareDir).inner)); err == nil {
		if err := bare.StoreLog(record(acknowledged + 1)); err == nil {
			t.Error("the bare log goes on by itself: is the library repaired?")
		}
		_ = bare.Close()
	}
	t.Logf("the write covers %d to %d of %d", begin, end, len(after))
	for cut := begin + 1; cut < end; cut += 47 {
		copied := torn(cut)
		l, err := open(t, copied)
		if err != nil {
			t.Fatalf("cut at %d of %d to %d: %v", cut, begin, end, err)
		}
		if err := intact(l, 1, acknowledged); err != nil {
			t.Errorf("cut at %d of %d to %d: %v", cut, begin, end, err)
		}
		appendRecords(t, l, acknowledged+1, acknowledged+45)
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		l = mustOpen(t, copied)
		if err := intact(l, 1, acknowledged+45); err != nil {
			t.Errorf("cut at %d of %d to %d, opened again: %v", cut, begin, end, err)
		}
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		if err := os.RemoveAll(copied); err != nil {
			t.Fatal(err)
		}
	}
}
