package disk

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/hashicorp/raft-wal/fs"
	"github.com/hashicorp/raft-wal/segment"
	"github.com/hashicorp/raft-wal/types"
)

// segments is raft-wal's SegmentFiler with our codec's number in every header,
// see meta.Load.
type segments struct{ inner *segment.Filer }

func newSegments(dir string) *segments {
	return &segments{inner: segment.NewFiler(dir, &files{FS: fs.New()})}
}

func (s *segments) Create(info types.SegmentInfo) (types.SegmentWriter, error) {
	info.Codec = codecID
	return s.inner.Create(info)
}

func (s *segments) RecoverTail(info types.SegmentInfo) (types.SegmentWriter, error) {
	info.Codec = codecID
	w, err := s.inner.RecoverTail(info)
	return w, named(info, err)
}

func (s *segments) Open(info types.SegmentInfo) (types.SegmentReader, error) {
	info.Codec = codecID
	r, err := s.inner.Open(info)
	return r, named(info, err)
}

func named(info types.SegmentInfo, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("segment %s: %w", segment.FileName(info), err)
}

func (s *segments) List() (map[uint64]uint64, error) { return s.inner.List() }

// Delete forgets a segment. One that is gone already is what was wanted: a
// crash may come between deleting and noting it.
func (s *segments) Delete(base, id uint64) error {
	err := s.inner.Delete(base, id)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	return err
}

// files is the file system below the segments: private files, and a tail that
// is synced when it is opened. After kill -9 the end of the tail may be only in
// the page cache; raft takes what it finds in the log for durable.
type files struct{ *fs.FS }

func (f *files) Create(dir, name string, size uint64) (types.WritableFile, error) {
	w, err := f.FS.Create(dir, name, size)
	if err != nil {
		return nil, err
	}
	if err := os.Chmod(filepath.Join(dir, name), fileMode); err != nil {
		return nil, errors.Join(err, w.Close())
	}
	return w, nil
}

func (f *files) OpenWriter(dir, name string) (types.WritableFile, error) {
	w, err := f.FS.OpenWriter(dir, name)
	if err != nil {
		return nil, err
	}
	if err := w.Sync(); err != nil {
		return nil, errors.Join(fmt.Errorf("sync %s: %w", name, err), w.Close())
	}
	return w, nil
}
