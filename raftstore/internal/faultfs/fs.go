package faultfs

import (
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/skiff-run/skiff/raftstore/disk"
)

// FS is a Disk as one process sees it until it dies. It implements disk.FS.
type FS struct {
	disk *Disk
	dead chan struct{} // closed at the process' death
}

var _ disk.FS = (*FS)(nil)

// enter takes the disk's mutex for a process that lives.
func (f *FS) enter() error {
	f.disk.mu.Lock()
	select {
	case <-f.dead:
		f.disk.mu.Unlock()
		return ErrDead
	default:
		return nil
	}
}

// writable is asked before each change. The caller holds Disk.mu.
func (f *FS) writable() error {
	if err := f.disk.faults.failing; err != nil {
		f.disk.counts.Refused++
		return err
	}
	return nil
}

func failed(op, path string, err error) error { return &os.PathError{Op: op, Path: path, Err: err} }

// MakeDir implements disk.FS. Directories are durable at once.
func (f *FS) MakeDir(dir string) error {
	if err := f.enter(); err != nil {
		return failed("mkdir", dir, err)
	}
	defer f.disk.mu.Unlock()
	if err := f.writable(); err != nil {
		return failed("mkdir", dir, err)
	}
	for at := filepath.Clean(dir); f.disk.dirs[at] == nil; at = filepath.Dir(at) {
		f.disk.dirs[at] = newDirectory()
	}
	return nil
}

// ReadDir implements disk.FS.
func (f *FS) ReadDir(dir string) ([]string, error) {
	if err := f.enter(); err != nil {
		return nil, failed("readdir", dir, err)
	}
	defer f.disk.mu.Unlock()
	found := f.disk.dirs[filepath.Clean(dir)]
	if found == nil {
		return nil, failed("readdir", dir, os.ErrNotExist)
	}
	return sorted(found.seen), nil
}

// OpenFile implements disk.FS.
func (f *FS) OpenFile(path string, flag int) (disk.File, error) {
	if err := f.enter(); err != nil {
		return nil, failed("open", path, err)
	}
	defer f.disk.mu.Unlock()
	path = filepath.Clean(path)
	node, dir, err := f.disk.find(path)
	if dir == nil {
		return nil, err
	}
	switch {
	case err == nil && flag&(os.O_CREATE|os.O_EXCL) == os.O_CREATE|os.O_EXCL:
		return nil, failed("open", path, os.ErrExist)
	case err != nil && flag&os.O_CREATE == 0:
		return nil, err
	case err != nil:
		if err := f.room(); err != nil {
			return nil, failed("open", path, err)
		}
		node = &inode{}
		f.change(dir, change{add: filepath.Base(path), node: node})
	}
	if flag&os.O_TRUNC != 0 && len(node.seen) > 0 {
		if err := f.writable(); err != nil {
			return nil, failed("open", path, err)
		}
		node.write(write{truncate: true})
	}
	return &file{fs: f, node: node, path: path, readOnly: flag&(os.O_WRONLY|os.O_RDWR) == 0}, nil
}

// room is asked before more of the disk is used. The caller holds Disk.mu.
func (f *FS) room() error {
	if err := f.writable(); err != nil {
		return err
	}
	if f.disk.faults.full {
		f.disk.counts.Refused++
		return syscall.ENOSPC
	}
	return nil
}

// change changes names. The caller holds Disk.mu.
func (f *FS) change(dir *directory, c change) {
	c.apply(dir.seen)
	dir.pending = append(dir.pending, c)
}

// Rename implements disk.FS, within one directory.
func (f *FS) Rename(from, to string) error {
	if err := f.enter(); err != nil {
		return failed("rename", from, err)
	}
	defer f.disk.mu.Unlock()
	if err := f.writable(); err != nil {
		return failed("rename", from, err)
	}
	node, dir, err := f.disk.find(filepath.Clean(from))
	if err != nil {
		return err
	}
	if filepath.Dir(filepath.Clean(to)) != filepath.Dir(filepath.Clean(from)) {
		return failed("rename", from, syscall.EXDEV)
	}
	f.change(dir, change{remove: filepath.Base(from), add: filepath.Base(to), node: node})
	return nil
}

// Remove implements disk.FS.
func (f *FS) Remove(path string) error {
	if err := f.enter(); err != nil {
		return failed("remove", path, err)
	}
	defer f.disk.mu.Unlock()
	if err := f.writable(); err != nil {
		return failed("remove", path, err)
	}
	_, dir, err := f.disk.find(filepath.Clean(path))
	if err != nil {
		return err
	}
	f.change(dir, change{remove: filepath.Base(path)})
	return nil
}

// SyncDir implements disk.FS.
func (f *FS) SyncDir(path string) error {
	if err := f.enter(); err != nil {
		return failed("sync", path, err)
	}
	defer f.disk.mu.Unlock()
	f.disk.counts.Syncs++
	if err := f.writable(); err != nil {
		return failed("sync", path, err)
	}
	dir := f.disk.dirs[filepath.Clean(path)]
	if dir == nil {
		return failed("sync", path, os.ErrNotExist)
	}
	if f.disk.lies(path) {
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
	if err := f.enter(); err != nil {
		return nil, failed("lock", path, err)
	}
	defer f.disk.mu.Unlock()
	if f.disk.locks[path] != nil {
		return nil, disk.ErrLocked
	}
	f.disk.locks[path] = f
	return lock{fs: f, path: path}, nil
}

type lock struct {
	fs   *FS
	path string
}

func (l lock) Close() error {
	if err := l.fs.enter(); err != nil {
		return err
	}
	defer l.fs.disk.mu.Unlock()
	delete(l.fs.disk.locks, l.path)
	return nil
}
