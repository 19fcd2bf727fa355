package disk

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"

	"github.com/hashicorp/raft-wal/segment"
	"github.com/hashicorp/raft-wal/types"
)

// segments is raft-wal's SegmentFiler with our codec's number in every header,
// see meta.Load.
type segments struct {
	inner *segment.Filer
	fs    FS
	dir   string
}

func newSegments(fs FS, dir string) *segments {
	return &segments{inner: segment.NewFiler(dir, files{fs}), fs: fs, dir: dir}
}

func (s *segments) Create(info types.SegmentInfo) (types.SegmentWriter, error) {
	info.Codec = codecID
	return s.inner.Create(info)
}

func (s *segments) RecoverTail(info types.SegmentInfo) (types.SegmentWriter, error) {
	info.Codec = codecID
	w, err := s.inner.RecoverTail(info)
	if err != nil {
		return nil, named(info, err)
	}
	torn, err := s.tornIndex(info, w)
	if err == nil && torn == 0 {
		return w, nil
	}
	if err := errors.Join(err, w.Close()); err != nil {
		return nil, named(info, err)
	}
	if err := s.wipe(info, torn); err != nil {
		return nil, named(info, err)
	}
	w, err = s.inner.RecoverTail(info)
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

// files is raft-wal's file system on ours. A tail is made durable when it is
// opened: after kill -9 its end may be only in the page cache, and raft takes
// what it finds in the log for durable.
type files struct{ fs FS }

func (f files) ListDir(dir string) ([]string, error) { return f.fs.ReadDir(dir) }

func (f files) Create(dir, name string, size uint64) (types.WritableFile, error) {
	if size > math.MaxInt32 {
		return nil, fmt.Errorf("a segment of %d bytes is too large", size)
	}
	path := filepath.Join(dir, name)
	w, err := f.fs.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_RDWR)
	if err != nil {
		return nil, err
	}
	if size > 0 {
		if err := w.Allocate(int64(size)); err != nil {
			return nil, errors.Join(fmt.Errorf("allocate %s: %w", path, err), w.Close())
		}
	}
	return &newSegment{File: w, fs: f.fs, dir: dir}, nil
}

func (f files) Delete(dir, name string) error {
	if err := f.fs.Remove(filepath.Join(dir, name)); err != nil {
		return err
	}
	return f.fs.SyncDir(dir)
}

func (f files) OpenReader(dir, name string) (types.ReadableFile, error) {
	return f.fs.OpenFile(filepath.Join(dir, name), os.O_RDONLY)
}

func (f files) OpenWriter(dir, name string) (types.WritableFile, error) {
	w, err := f.fs.OpenFile(filepath.Join(dir, name), os.O_RDWR)
	if err != nil {
		return nil, err
	}
	// The name too: the process may have died between the first sync of the
	// segment and that of its directory.
	if err := errors.Join(rewrite(w), w.Sync(), f.fs.SyncDir(dir)); err != nil {
		return nil, errors.Join(fmt.Errorf("sync %s: %w", name, err), w.Close())
	}
	return w, nil
}

// rewrite writes what a file has over itself. When a sync fails the kernel may
// take the pages for clean and keep them: the next process would read them, its
// sync would succeed, and they would be gone with the power. Only writing them
// again makes a sync mean them.
func rewrite(f File) error {
	buffer := make([]byte, 256<<10)
	for offset := int64(0); ; {
		n, err := f.ReadAt(buffer, offset)
		// Room that was never written is zeros and may stay unwritten.
		if used := bytes.TrimRight(buffer[:n], "\x00"); len(used) > 0 {
			if _, err := f.WriteAt(used, offset); err != nil {
				return err
			}
		}
		offset += int64(n)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// newSegment is a segment whose name is not durable yet: its first Sync syncs
// the directory too.
type newSegment struct {
	File
	fs    FS
	dir   string
	named bool // raft-wal has one writer at a time
}

func (s *newSegment) Sync() error {
	if err := s.File.Sync(); err != nil || s.named {
		return err
	}
	if err := s.fs.SyncDir(s.dir); err != nil {
		return err
	}
	s.named = true
	return nil
}
