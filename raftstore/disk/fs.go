package disk

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"syscall"
)

const (
	dirMode  os.FileMode = 0o700
	fileMode os.FileMode = 0o600
)

// FS is the file system below everything a member keeps. There are two: OS, and
// one in memory which fails the way disks fail, for tests. Paths are absolute
// or relative as the operating system takes them; errors wrap those of package
// os (os.ErrNotExist, os.ErrExist). Its methods may be called by any goroutine.
type FS interface {
	// MakeDir makes a directory that only its owner can read, parents included.
	// Their names are durable when it returns.
	MakeDir(dir string) error
	// ReadDir lists the names of the files in dir, sorted; directories are left
	// out.
	ReadDir(dir string) ([]string, error)
	// OpenFile opens a file as os.OpenFile does; a new one is private.
	OpenFile(path string, flag int) (File, error)
	// Rename and Remove are durable only after SyncDir.
	Rename(from, to string) error
	Remove(path string) error
	// SyncDir makes the names in dir durable.
	SyncDir(dir string) error
	// Lock takes the lock of a file, making the file if necessary. It fails with
	// ErrLocked when another process has it.
	Lock(path string) (io.Closer, error)
}

// File is an open file of an FS.
type File interface {
	io.Reader
	io.Writer
	io.ReaderAt
	io.WriterAt
	io.Closer
	// Name is the path it was opened by.
	Name() string
	// Size is its length in bytes.
	Size() (int64, error)
	// Allocate extends the file to size bytes of zeros and takes the room for
	// them, where the file system can.
	Allocate(size int64) error
	// Sync makes the content durable, but not the name of a new file.
	Sync() error
}

// ErrLocked is returned by FS.Lock when another process has the lock.
var ErrLocked = errors.New("held by another process")

// OS is the file system of the operating system.
var OS FS = osFS{}

type osFS struct{}

func (o osFS) MakeDir(dir string) error {
	parent := filepath.Dir(dir)
	err := os.Mkdir(dir, dirMode)
	switch {
	case errors.Is(err, os.ErrNotExist) && parent != dir:
		if err := o.MakeDir(parent); err != nil {
			return err
		}
		return o.MakeDir(dir)
	case errors.Is(err, os.ErrExist):
		info, statErr := os.Stat(dir)
		if statErr != nil {
			return statErr
		}
		if !info.IsDir() {
			return err
		}
	case err != nil:
		return err
	}
	// Also of one that was there: whoever made it may have died before this.
	return o.SyncDir(parent)
}

func (osFS) ReadDir(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	names := make([]string, 0, len(entries))
	for _, e := range entries {
		if !e.IsDir() {
			names = append(names, e.Name())
		}
	}
	slices.Sort(names)
	return names, nil
}

func (osFS) OpenFile(path string, flag int) (File, error) {
	f, err := os.OpenFile(path, flag, fileMode)
	if err != nil {
		return nil, err
	}
	return osFile{f}, nil
}

func (osFS) Rename(from, to string) error { return os.Rename(from, to) }

func (osFS) Remove(path string) error { return os.Remove(path) }

func (osFS) SyncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

func (osFS) Lock(path string) (io.Closer, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, fileMode)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		if errors.Is(err, syscall.EWOULDBLOCK) {
			err = ErrLocked
		}
		return nil, errors.Join(err, f.Close())
	}
	return osLock{f}, nil
}

// osLock is a lock the kernel drops when the process ends, however it ends.
type osLock struct{ f *os.File }

// Close gives the lock free. Closing the file alone would not: a process being
// forked elsewhere in this program holds it too until its exec.
func (l osLock) Close() error {
	return errors.Join(syscall.Flock(int(l.f.Fd()), syscall.LOCK_UN), l.f.Close())
}

type osFile struct{ *os.File }

func (f osFile) Size() (int64, error) {
	info, err := f.Stat()
	if err != nil {
		return 0, err
	}
	return info.Size(), nil
}

func (f osFile) Allocate(size int64) error {
	err := syscall.Fallocate(int(f.Fd()), 0, 0, size)
	if errors.Is(err, syscall.ENOTSUP) || errors.Is(err, syscall.EINTR) || errors.Is(err, syscall.ENOSYS) {
		return f.Truncate(size)
	}
	return err
}

// ReadFile reads a whole file.
func ReadFile(fs FS, path string) ([]byte, error) {
	f, err := fs.OpenFile(path, os.O_RDONLY)
	if err != nil {
		return nil, err
	}
	content, err := io.ReadAll(f)
	return content, errors.Join(err, f.Close())
}

// WriteFile replaces a file atomically: after a crash at any moment it has the
// old content or the new, and after WriteFile returned it has the new.
func WriteFile(fs FS, path string, content []byte) (err error) {
	temporary := path + ".tmp"
	f, err := fs.OpenFile(temporary, os.O_CREATE|os.O_WRONLY|os.O_TRUNC)
	if err != nil {
		return err
	}
	_, err = f.Write(content)
	if err == nil {
		err = f.Sync()
	}
	if closeErr := f.Close(); err == nil {
		err = closeErr
	}
	if err == nil {
		err = fs.Rename(temporary, path)
	}
	if err != nil {
		return errors.Join(err, fs.Remove(temporary))
	}
	return fs.SyncDir(filepath.Dir(path))
}

// MakeDir makes a directory only its owner can read, parents included.
func MakeDir(fs FS, dir string) error {
	if err := fs.MakeDir(dir); err != nil {
		return fmt.Errorf("make directory %s: %w", dir, err)
	}
	return nil
}

// LockName is the file in a directory that LockDir locks.
const LockName = "LOCK"

// LockDir takes the lock of a store's directory, which keeps a second process
// from opening it. Close gives it free.
func LockDir(fs FS, dir string) (io.Closer, error) {
	path := filepath.Join(dir, LockName)
	lock, err := fs.Lock(path)
	if errors.Is(err, ErrLocked) {
		return nil, fmt.Errorf("%s is held by another process: stop it first (%w)", path, err)
	}
	if err != nil {
		return nil, fmt.Errorf("lock store directory: %w", err)
	}
	return lock, nil
}
