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

func (f *file) enter(op string) (*Disk, error) {
	d := f.fs.enter()
	if f.closed {
		d.mu.Unlock()
		return nil, failed(op, f.path, os.ErrClosed)
	}
	return d, nil
}

func (f *file) Name() string { return f.path }

func (f *file) Size() (int64, error) {
	d, err := f.enter("stat")
	if err != nil {
		return 0, err
	}
	defer d.mu.Unlock()
	return int64(len(f.node.seen)), nil
}

func (f *file) ReadAt(p []byte, offset int64) (int, error) {
	d, err := f.enter("read")
	if err != nil {
		return 0, err
	}
	defer d.mu.Unlock()
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
	d, err := f.enter("write")
	if err != nil {
		return 0, err
	}
	defer d.mu.Unlock()
	d.counts.Writes++
	err = d.writable()
	if f.readOnly {
		err = os.ErrPermission
	}
	if err == nil && offset+int64(len(p)) > int64(len(f.node.seen)) {
		err = d.room()
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
	d, err := f.enter("allocate")
	if err != nil {
		return err
	}
	defer d.mu.Unlock()
	if size <= int64(len(f.node.seen)) {
		return nil
	}
	if err := d.room(); err != nil {
		return failed("allocate", f.path, err)
	}
	f.node.write(write{truncate: true, offset: size})
	return nil
}

func (f *file) Sync() error {
	f.fs.delay(f.path)
	d, err := f.enter("sync")
	if err != nil {
		return err
	}
	defer d.mu.Unlock()
	d.counts.Syncs++
	if err := d.writable(); err != nil {
		return failed("sync", f.path, err)
	}
	if err := d.faults.failSync; err != nil {
		d.faults.failSync = nil
		d.counts.Refused++
		f.node.pending = nil // clean pages to the kernel, never written
		return failed("sync", f.path, err)
	}
	if !d.lies(f.path) {
		f.node.sync()
	}
	return nil
}

func (f *file) Close() error {
	d, err := f.enter("close")
	if err != nil {
		return err
	}
	defer d.mu.Unlock()
	f.closed = true
	return nil
}
