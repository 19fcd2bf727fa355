package disk

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
)

const (
	dirMode  os.FileMode = 0o700
	fileMode os.FileMode = 0o600
)

// MakeDir makes a directory only its owner can read, parents included.
func MakeDir(dir string) error {
	if err := os.MkdirAll(dir, dirMode); err != nil {
		return fmt.Errorf("make directory %s: %w", dir, err)
	}
	return nil
}

// WriteFile replaces a file atomically: after a crash at any moment it has the
// old content or the new, and after WriteFile returned it has the new.
func WriteFile(path string, content []byte) (err error) {
	temporary := path + ".tmp"
	f, err := os.OpenFile(temporary, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, fileMode)
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
		err = os.Rename(temporary, path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(temporary))
	}
	return syncDir(filepath.Dir(path))
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// Lock keeps a second process from opening the same directory.
type Lock struct{ f *os.File }

// LockDir takes the lock of a directory. The kernel drops it when the process
// ends, however it ends.
func LockDir(dir string) (*Lock, error) {
	path := filepath.Join(dir, "LOCK")
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, fileMode)
	if err != nil {
		return nil, fmt.Errorf("lock store directory: %w", err)
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		_ = f.Close()
		return nil, fmt.Errorf("%s is held by another process: stop it first (%w)", path, err)
	}
	return &Lock{f: f}, nil
}

// Unlock gives the directory free. Closing the file alone would not: a process
// being forked elsewhere in this program holds it too until its exec.
func (l *Lock) Unlock() error {
	return errors.Join(syscall.Flock(int(l.f.Fd()), syscall.LOCK_UN), l.f.Close())
}

// DamageError says which file is damaged and what to do about it.
type DamageError struct {
	Path   string
	Detail string
	Err    error
}

// Error names file, damage and remedy.
func (e *DamageError) Error() string {
	cause := ""
	if e.Err != nil {
		cause = ": " + e.Err.Error()
	}
	return fmt.Sprintf("%s is damaged: %s%s; the store does not start, because acknowledged writes would be lost silently. "+
		"Remedy: if other members are healthy, remove this member, empty its directory and let it join again; "+
		"otherwise restore the store's directory from a backup", e.Path, e.Detail, cause)
}

// Unwrap returns the cause, if any.
func (e *DamageError) Unwrap() error { return e.Err }
