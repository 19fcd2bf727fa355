package disk

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/hashicorp/raft"
)

// Snapshots is raft's SnapshotStore: one self-contained file per snapshot.
//
//	magic | length, CRC-32C, JSON of the raft metadata | frames | payload size, CRC-32C
//
// A file gets its name only when it is complete and synced.
type Snapshots struct {
	fs     FS
	dir    string
	retain int
}

const (
	snapshotMagic  = "skiff-snapshot-1\n"
	snapshotSuffix = ".snap"
	damagedSuffix  = ".damaged"
	trailerLen     = 12
	maxHeader      = 1 << 20
)

// OpenSnapshots opens or makes the snapshot directory, which keeps the newest
// retain snapshots, and removes what a crash left half-written.
func OpenSnapshots(fs FS, dir string, retain int) (*Snapshots, error) {
	if err := MakeDir(fs, dir); err != nil {
		return nil, err
	}
	names, err := fs.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("read snapshot directory: %w", err)
	}
	for _, name := range names {
		if strings.HasSuffix(name, ".tmp") {
			if err := fs.Remove(filepath.Join(dir, name)); err != nil {
				return nil, fmt.Errorf("remove half-written snapshot: %w", err)
			}
		}
	}
	return &Snapshots{fs: fs, dir: dir, retain: retain}, nil
}

// Create implements raft.SnapshotStore.
func (s *Snapshots) Create(version raft.SnapshotVersion, index, term uint64, configuration raft.Configuration,
	configurationIndex uint64, _ raft.Transport,
) (raft.SnapshotSink, error) {
	// The name sorts by term and index; the time tells two of the same apart.
	id := fmt.Sprintf("%016x-%016x-%d", term, index, time.Now().UnixNano())
	meta := raft.SnapshotMeta{
		Version: version, ID: id, Index: index, Term: term,
		Configuration: configuration, ConfigurationIndex: configurationIndex,
	}
	path := filepath.Join(s.dir, id+snapshotSuffix)
	f, err := s.fs.OpenFile(path+".tmp", os.O_CREATE|os.O_EXCL|os.O_WRONLY)
	if err != nil {
		return nil, fmt.Errorf("create snapshot: %w", err)
	}
	sink := &snapshotSink{store: s, id: id, path: path, f: f, frames: newFrameWriter(f)}
	if err := writeSnapshotHeader(f, &meta); err != nil {
		return nil, errors.Join(fmt.Errorf("write snapshot %s: %w", path, err), sink.Cancel())
	}
	return sink, nil
}

func writeSnapshotHeader(w io.Writer, meta *raft.SnapshotMeta) error {
	body, err := json.Marshal(meta)
	if err != nil {
		return err
	}
	b := []byte(snapshotMagic)
	b = binary.LittleEndian.AppendUint32(b, uint32(len(body)))
	b = binary.LittleEndian.AppendUint32(b, crc32.Checksum(body, castagnoli))
	_, err = w.Write(append(b, body...))
	return err
}

func readSnapshotHeader(r io.Reader) (*raft.SnapshotMeta, error) {
	fixed := make([]byte, len(snapshotMagic)+8)
	if _, err := io.ReadFull(r, fixed); err != nil || string(fixed[:len(snapshotMagic)]) != snapshotMagic {
		return nil, fmt.Errorf("%w: it does not begin like a snapshot", ErrFrame)
	}
	n := binary.LittleEndian.Uint32(fixed[len(snapshotMagic):])
	sum := binary.LittleEndian.Uint32(fixed[len(snapshotMagic)+4:])
	if n > maxHeader {
		return nil, fmt.Errorf("%w: header has an impossible length", ErrFrame)
	}
	body := make([]byte, n)
	if _, err := io.ReadFull(r, body); err != nil || crc32.Checksum(body, castagnoli) != sum {
		return nil, fmt.Errorf("%w: header", ErrFrame)
	}
	meta := &raft.SnapshotMeta{}
	if err := json.Unmarshal(body, meta); err != nil {
		return nil, fmt.Errorf("%w: header: %w", ErrFrame, err)
	}
	return meta, nil
}

// snapshotSink receives one snapshot.
type snapshotSink struct {
	store  *Snapshots
	id     string
	path   string
	f      File
	frames *frameWriter
	done   bool
}

func (k *snapshotSink) ID() string { return k.id }

func (k *snapshotSink) Write(p []byte) (int, error) { return k.frames.Write(p) }

// Close completes the snapshot and makes it durable. Raft calls it again after
// the state machine did.
func (k *snapshotSink) Close() error {
	if k.done {
		return nil
	}
	if err := k.complete(); err != nil {
		return errors.Join(fmt.Errorf("write snapshot %s: %w", k.path, err), k.Cancel())
	}
	k.done = true
	return k.store.prune()
}

func (k *snapshotSink) complete() error {
	if err := k.frames.finish(); err != nil {
		return err
	}
	trailer := binary.LittleEndian.AppendUint64(nil, uint64(k.frames.total))
	trailer = binary.LittleEndian.AppendUint32(trailer, crc32.Checksum(trailer, castagnoli))
	if _, err := k.f.Write(trailer); err != nil {
		return err
	}
	if err := k.f.Sync(); err != nil {
		return err
	}
	if err := k.f.Close(); err != nil {
		return err
	}
	if err := k.store.fs.Rename(k.path+".tmp", k.path); err != nil {
		return err
	}
	return k.store.fs.SyncDir(k.store.dir)
}

// Cancel drops an unfinished snapshot.
func (k *snapshotSink) Cancel() error {
	if k.done {
		return nil
	}
	k.done = true
	_ = k.f.Close() // it may be closed; what was written is dropped anyway
	if err := k.store.fs.Remove(k.path + ".tmp"); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("remove cancelled snapshot: %w", err)
	}
	return nil
}

// names returns the snapshot files, newest first.
func (s *Snapshots) names() ([]string, error) {
	files, err := s.fs.ReadDir(s.dir)
	if err != nil {
		return nil, fmt.Errorf("read snapshot directory: %w", err)
	}
	var names []string
	for _, name := range files {
		if strings.HasSuffix(name, snapshotSuffix) {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	slices.Reverse(names)
	return names, nil
}

// prune removes all but the newest snapshots.
func (s *Snapshots) prune() error {
	names, err := s.names()
	if err != nil {
		return err
	}
	for i := s.retain; i < len(names); i++ {
		if err := s.fs.Remove(filepath.Join(s.dir, names[i])); err != nil {
			return fmt.Errorf("remove old snapshot: %w", err)
		}
	}
	return nil
}

// List implements raft.SnapshotStore, newest first. Only headers and sizes are
// read; damage within shows when a snapshot is read.
func (s *Snapshots) List() ([]*raft.SnapshotMeta, error) {
	names, err := s.names()
	if err != nil {
		return nil, err
	}
	var list []*raft.SnapshotMeta
	for _, name := range names {
		f, meta, err := s.open(strings.TrimSuffix(name, snapshotSuffix))
		if err != nil {
			return nil, err
		}
		list = append(list, meta)
		if err := f.Close(); err != nil {
			return nil, err
		}
	}
	return list, nil
}

// Open implements raft.SnapshotStore.
func (s *Snapshots) Open(id string) (*raft.SnapshotMeta, io.ReadCloser, error) {
	f, meta, err := s.open(id)
	if err != nil {
		return nil, nil, err
	}
	return meta, &snapshotReader{f: f, frames: newFrameReader(f)}, nil
}

// open reads header and trailer and leaves the file at the first frame.
func (s *Snapshots) open(id string) (File, *raft.SnapshotMeta, error) {
	path := s.Path(id)
	f, err := s.fs.OpenFile(path, os.O_RDONLY)
	if err != nil {
		return nil, nil, fmt.Errorf("open snapshot: %w", err)
	}
	meta, err := readSnapshotHeader(f)
	if err == nil {
		meta.Size, err = readTrailer(f)
	}
	if err == nil && meta.ID != id {
		err = fmt.Errorf("%w: the file was written as %s", ErrFrame, meta.ID)
	}
	if err != nil {
		return nil, nil, errors.Join(fmt.Errorf("snapshot %s: %w", path, err), f.Close())
	}
	return f, meta, nil
}

func readTrailer(f File) (int64, error) {
	size, err := f.Size()
	if err != nil {
		return 0, err
	}
	var trailer [trailerLen]byte
	if _, err := f.ReadAt(trailer[:], max(0, size-trailerLen)); err != nil {
		return 0, fmt.Errorf("%w: trailer: %w", ErrFrame, err)
	}
	if crc32.Checksum(trailer[:8], castagnoli) != binary.LittleEndian.Uint32(trailer[8:]) {
		return 0, fmt.Errorf("%w: trailer", ErrFrame)
	}
	return int64(binary.LittleEndian.Uint64(trailer[:])), nil
}

type snapshotReader struct {
	f      File
	frames *frameReader
}

func (r *snapshotReader) Read(p []byte) (int, error) {
	n, err := r.frames.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		err = fmt.Errorf("snapshot %s: %w", r.f.Name(), err)
	}
	return n, err
}

func (r *snapshotReader) Close() error { return r.f.Close() }

// Dir is the directory of the snapshots.
func (s *Snapshots) Dir() string { return s.dir }

// Path is the file of a snapshot.
func (s *Snapshots) Path(id string) string { return filepath.Join(s.dir, id+snapshotSuffix) }

// IDs lists the snapshots, newest first, without opening them.
func (s *Snapshots) IDs() ([]string, error) {
	names, err := s.names()
	for i := range names {
		names[i] = strings.TrimSuffix(names[i], snapshotSuffix)
	}
	return names, err
}

// SetAside renames a damaged snapshot, so that raft does not see it and a
// person still can.
func (s *Snapshots) SetAside(id string) error {
	if err := s.fs.Rename(s.Path(id), s.Path(id)+damagedSuffix); err != nil {
		return fmt.Errorf("set damaged snapshot aside: %w", err)
	}
	return s.fs.SyncDir(s.dir)
}
