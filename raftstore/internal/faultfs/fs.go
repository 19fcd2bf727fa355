package faultfs

import (
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"

	"github.com/skiff-run/skiff/raftstore/disk"
)

// FS is a Disk as one process sees it until it dies. It implements disk.FS.
type FS struct {
	disk atomic.Pointer[Disk] // a copy of its own after the process' death
	dead chan struct{}        // closed at the process' death
}

var _ disk.FS = (*FS)(nil)

// enter takes the mutex of the process' disk.
func (f *FS) enter() *Disk {
	for {
		d := f.disk.Load()
		d.mu.Lock()
		if f.disk.Load() == d {
			return d
		}
		d.mu.Unlock() // the process died meanwhile
	}
}

// writable is asked before each change. The caller holds Disk.mu.
func (d *Disk) writable() error {
	if err := d.faults.failing; err != nil {
		d.counts.Refused++
		return err
	}
	return nil
}

func failed(op, path string, err error) error { return &os.PathError{Op: op, Path: path, Err: err} }

// MakeDir implements disk.FS. Directories are durable at once.
func (f *FS) MakeDir(dir string) error {
	d := f.enter()
	defer d.mu.Unlock()
	if err := d.writable(); err != nil {
		return failed("mkdir", dir, err)
	}
	for at := filepath.Clean(dir); d.dirs[at] == nil; at = filepath.Dir(at) {
		d.dirs[at] = newDirectory()
	}
	return nil
}

// ReadDir implements disk.FS.
func (f *FS) ReadDir(dir string) ([]string, error) {
	d := f.enter()
	defer d.mu.Unlock()
	found := d.dirs[filepath.Clean(dir)]
	if found == nil {
		return nil, failed("readdir", dir, os.ErrNotExist)
	}
	return sorted(found.seen), nil
}

// OpenFile implements disk.FS.
func (f *FS) OpenFile(path string, flag int) (disk.File, error) {
	d := f.enter()
	defer d.mu.Unlock()
	path = filepath.Clean(path)
	node, dir, err := d.find(path)
	if dir == nil {
		return nil, err
	}
	switch {
	case err == nil && flag&(os.O_CREATE|os.O_EXCL) == os.O_CREATE|os.O_EXCL:
		return nil, failed("open", path, os.ErrExist)
	case err != nil && flag&os.O_CREATE == 0:
		return nil, err
	case err != nil:
		if err := d.room(); err != nil {
			return nil, failed("open", path, err)
		}
		node = &inode{}
		d.change(dir, change{add: filepath.Base(path), node: node})
	}
	if flag&os.O_TRUNC != 0 && len(node.seen) > 0 {
		if err := d.writable(); err != nil {
			return nil, failed("open", path, err)
		}
		node.write(write{truncate: true})
	}
	return &file{fs: f, node: node, path: path, readOnly: flag&(os.O_WRONLY|os.O_RDWR) == 0}, nil
}

// room is asked before more of the disk is used. The caller holds Disk.mu.
func (d *Disk) room() error {
	if err := d.writable(); err != nil {
		return err
	}
	if d.faults.full {
		d.counts.Refused++
		return syscall.ENOSPC
	}
	return nil
}

// change changes names. The caller holds Disk.mu.
func (d *Disk) change(dir *directory, c change) {
	c.apply(dir.seen)
	dir.pending = append(dir.pending, c)
}

// Rename implements disk.FS, within one directory.
func (f *FS) Rename(from, to string) error {
	d := f.enter()
	defer d.mu.Unlock()
	if err := d.writable(); err != nil {
		return failed("rename", from, err)
	}
	node, dir, err := d.find(filepath.Clean(from))
	if err != nil {
		return err
	}
	if filepath.Dir(filepath.Clean(to)) != filepath.Dir(filepath.Clean(from)) {
		return failed("rename", from, syscall.EXDEV)
	}
	d.change(dir, change{remove: filepath.Base(from), add: filepath.Base(to), node: node})
	return nil
}

// Remove implements disk.FS.
func (f *FS) Remove(path string) error {
	d := f.enter()
	defer d.mu.Unlock()
	if err := d.writable(); err != nil {
		return failed("remove", path, err)
	}
	_, dir, err := d.find(filepath.Clean(path))
	if err != nil {
		return err
	}
	d.change(dir, change{remove: filepath.Base(path)})
	return nil
}

// SyncDir implements disk.FS.
func (f *FS) SyncDir(path string) error {
	d := f.enter()
	defer d.mu.Unlock()
	d.counts.Syncs++
	if err := d.writable(); err != nil {
		return failed("sync", path, err)
	}
	dir := d.dirs[filepath.Clean(path)]
	if dir == nil {
		return failed("sync", path, os.ErrNotExist)
	}
	if d.lies(path) {
		return nil
	}
	for _, c := range dir.pending {
		c.apply(dir.durable)
	}
	dir.pending = nil
	return nil
}

// lies says whether a sync of path does nothing. The caller holds mu.
func (d *Disk) lies(path string) bool {
	return d.faults.lying && strings.Contains(path, d.faults.lies)
}

// Lock implements disk.FS. The lock of a dead process is free.
func (f *FS) Lock(path string) (io.Closer, error) {
	d := f.enter()
	defer d.mu.Unlock()
	if d.locks[path] != nil {
		return nil, disk.ErrLocked
	}
	d.locks[path] = f
	return lock{fs: f, path: path}, nil
}

type lock struct {
	fs   *FS
	path string
}

func (l lock) Close() error {
	d := l.fs.enter()
	defer d.mu.Unlock()
	delete(d.locks, l.path)
	return nil
}
