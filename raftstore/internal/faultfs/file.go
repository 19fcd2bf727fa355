package faultfs

import (
	"io"
	"os"
)

// file is an open file of one process.
type file struct {
	fs       *FS
	node     *inode
	path     string
	readOnly bool
	offset   int64 // of Read and Write; one goroutine uses those
	closed   bool  // guarded by Disk.mu
}

// write changes the content as processes see it. The caller holds Disk.mu.
func (n *inode) write(w write) {
	n.seen = w.apply(n.seen)
	n.pending = append(n.pending, w)
}

func (f *file) enter(op string) error {
	if err := f.fs.enter(); err != nil {
		return failed(op, f.path, err)
	}
	if f.closed {
		f.fs.disk.mu.Unlock()
		return failed(op, f.path, os.ErrClosed)
	}
	return nil
}

func (f *file) Name() string { return f.path }

func (f *file) Size() (int64, error) {
	if err := f.enter("stat"); err != nil {
		return 0, err
	}
	defer f.fs.disk.mu.Unlock()
	return int64(len(f.node.seen)), nil
}

func (f *file) ReadAt(p []byte, offset int64) (int, error) {
	f.fs.disk.mu.Lock() // a dead process reads what it had open
	defer f.fs.disk.mu.Unlock()
	if f.closed {
		return 0, failed("read", f.path, os.ErrClosed)
	}
	if offset >= int64(len(f.node.seen)) {
		return 0, io.EOF
	}
	n := copy(p, f.node.seen[offset:])
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

func (f *file) Read(p []byte) (int, error) {
	n, err := f.ReadAt(p, f.offset)
	f.offset += int64(n)
	if n > 0 && err == io.EOF {
		err = nil
	}
	return n, err
}

func (f *file) WriteAt(p []byte, offset int64) (int, error) {
	if err := f.enter("write"); err != nil {
		return 0, err
	}
	defer f.fs.disk.mu.Unlock()
	f.fs.disk.counts.Writes++
	err := f.fs.writable()
	if f.readOnly {
		err = os.ErrPermission
	}
	if err == nil && offset+int64(len(p)) > int64(len(f.node.seen)) {
		err = f.fs.room()
	}
	if err != nil {
		return 0, failed("write", f.path, err)
	}
	f.node.write(write{offset: offset, data: append([]byte(nil), p...)})
	return len(p), nil
}

func (f *file) Write(p []byte) (int, error) {
	n, err := f.WriteAt(p, f.offset)
	f.offset += int64(n)
	return n, err
}

func (f *file) Allocate(size int64) error {
	if err := f.enter("allocate"); err != nil {
		return err
	}
	defer f.fs.disk.mu.Unlock()
	if size <= int64(len(f.node.seen)) {
		return nil
	}
	if err := f.fs.room(); err != nil {
		return failed("allocate", f.path, err)
	}
	f.node.write(write{truncate: true, offset: size})
	return nil
}

func (f *file) Sync() error {
	if err := f.fs.delay(f.path); err != nil {
		return failed("sync", f.path, err)
	}
	if err := f.enter("sync"); err != nil {
		return err
	}
	defer f.fs.disk.mu.Unlock()
	f.fs.disk.counts.Syncs++
	if err := f.fs.writable(); err != nil {
		return failed("sync", f.path, err)
	}
	if err := f.fs.disk.faults.failSync; err != nil {
		f.fs.disk.faults.failSync = nil
		f.fs.disk.counts.Refused++
		f.node.pending = nil // clean pages to the kernel, never written
		return failed("sync", f.path, err)
	}
	if !f.fs.disk.lies(f.path) {
		f.node.sync()
	}
	return nil
}

func (f *file) Close() error {
	f.fs.disk.mu.Lock()
	defer f.fs.disk.mu.Unlock()
	if f.closed {
		return failed("close", f.path, os.ErrClosed)
	}
	f.closed = true
	return nil
}
