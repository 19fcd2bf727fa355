package disk

import (
	"bytes"
	"io"
	"math/rand/v2"
	"os"
	"strings"
	"testing"

	"github.com/hashicorp/raft"
)

var snapshotVoters = raft.Configuration{Servers: []raft.Server{{ID: "a", Address: "member:a"}}}

func writeSnapshot(t *testing.T, s *Snapshots, index uint64, content []byte) string {
	t.Helper()
	sink, err := s.Create(raft.SnapshotVersionMax, index, 3, snapshotVoters, 1, nil)
	if err != nil {
		t.Fatal(err)
	}
	for rest := content; len(rest) > 0; {
		n := min(len(rest), 1000)
		if _, err := sink.Write(rest[:n]); err != nil {
			t.Fatal(err)
		}
		rest = rest[n:]
	}
	if err := sink.Close(); err != nil {
		t.Fatal(err)
	}
	return sink.ID()
}

func readSnapshot(s *Snapshots, id string) (*raft.SnapshotMeta, []byte, error) {
	meta, r, err := s.Open(id)
	if err != nil {
		return nil, nil, err
	}
	defer func() { _ = r.Close() }()
	content, err := io.ReadAll(r)
	return meta, content, err
}

func noise(n int) []byte {
	b := make([]byte, n)
	r := rand.New(rand.NewPCG(uint64(n), 0))
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	return b
}

func TestSnapshotRoundTrip(t *testing.T) {
	t.Parallel()
	for _, size := range []int{0, 1, frameSize - 1, frameSize, frameSize + 1, 5*frameSize + 17} {
		s, err := OpenSnapshots(OS, t.TempDir(), 2)
		if err != nil {
			t.Fatal(err)
		}
		want := noise(size)
		id := writeSnapshot(t, s, 7, want)
		meta, got, err := readSnapshot(s, id)
		if err != nil || !bytes.Equal(got, want) {
			t.Fatalf("%d bytes: got %d, %v", size, len(got), err)
		}
		if meta.Size != int64(size) || meta.Index != 7 || meta.Term != 3 || len(meta.Configuration.Servers) != 1 {
			t.Errorf("metadata %+v", meta)
		}
	}
}

func TestOnlyTheNewestSnapshotsStay(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s, err := OpenSnapshots(OS, dir, 2)
	if err != nil {
		t.Fatal(err)
	}
	for i := range uint64(5) {
		writeSnapshot(t, s, 10+i, noise(100))
	}
	cancelled, err := s.Create(raft.SnapshotVersionMax, 99, 3, snapshotVoters, 1, nil)
	if err != nil {
		t.Fatal(err)
	}
	list, err := s.List()
	if err != nil || len(list) != 2 || list[0].Index != 14 || list[1].Index != 13 {
		t.Fatalf("list %+v, %v", list, err)
	}
	if err := cancelled.Cancel(); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(s.Path("half")+".tmp", []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := OpenSnapshots(OS, dir, 2); err != nil {
		t.Fatal(err)
	}
	if entries, _ := os.ReadDir(dir); len(entries) != 2 {
		t.Errorf("%d files in the directory", len(entries))
	}
}

func TestDamagedSnapshotFileIsAnError(t *testing.T) {
	t.Parallel()
	s, err := OpenSnapshots(OS, t.TempDir(), 2)
	if err != nil {
		t.Fatal(err)
	}
	id := writeSnapshot(t, s, 7, noise(2*frameSize+500))
	whole, err := os.ReadFile(s.Path(id))
	if err != nil {
		t.Fatal(err)
	}
	fails := func(what string, at int, content []byte) {
		t.Helper()
		writeFile(t, s.Path(id), content)
		_, _, err := readSnapshot(s, id)
		if err == nil {
			t.Fatalf("%s at %d of %d was not noticed", what, at, len(whole))
		}
		if !strings.Contains(err.Error(), s.Path(id)) {
			t.Fatalf("%s at %d: the error does not name the file: %v", what, at, err)
		}
	}
	// Every byte of the header and trailer, and samples of the frames.
	for at := 0; at < len(whole); at++ {
		if at > 400 && at < len(whole)-40 && at%997 != 0 {
			continue
		}
		flipped := bytes.Clone(whole)
		flipped[at] ^= 1 << (at % 8)
		fails("a flipped bit", at, flipped)
		fails("a cut", at, whole[:at])
	}
	swapped := bytes.Clone(whole)
	frame := frameHeaderLen + frameSize
	begin := len(whole) - trailerLen - frameHeaderLen - (frameHeaderLen + 500) - 2*frame
	copy(swapped[begin:], whole[begin+frame:begin+2*frame])
	copy(swapped[begin+frame:], whole[begin:begin+frame])
	fails("two exchanged frames", begin, swapped)

	if err := s.SetAside(id); err != nil {
		t.Fatal(err)
	}
	if ids, _ := s.IDs(); len(ids) != 0 {
		t.Errorf("a snapshot set aside is still listed: %v", ids)
	}
}
