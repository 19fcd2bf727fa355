package logs

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"
)

// Limits bound what the log of one container takes.
type Limits struct {
	// MaxBytes is the size at which the file is moved aside; no limit when zero.
	MaxBytes int64
	// MaxFiles counts the current file and those moved aside.
	MaxFiles int
}

// rotatedFormat is the suffix upstream's kubelet gives a log file that it moved
// aside; log collectors know it.
const rotatedFormat = "20060102-150405"

// file is the log file of one container, written by both of its streams.
type file struct {
	path   string
	limits Limits

	mu   sync.Mutex // guards what follows
	f    *os.File
	size int64
	last time.Time // of the newest record: timestamps never repeat
	buf  []byte
}

// openFile opens the log for appending, and cuts off a record that a killed process left half written.
func openFile(path string, limits Limits) (*file, error) {
	l := &file{path: path, limits: limits}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, fmt.Errorf("log file: %w", err)
	}
	if err := l.open(); err != nil {
		return nil, err
	}
	if err := l.repair(); err != nil {
		l.f.Close()
		return nil, fmt.Errorf("repair log file: %w", err)
	}
	return l, nil
}

func (l *file) open() error {
	// Readable too, for repair. Others may read: log collectors do not run as root.
	f, err := os.OpenFile(l.path, os.O_RDWR|os.O_APPEND|os.O_CREATE, 0o640)
	if err != nil {
		return fmt.Errorf("log file: %w", err)
	}
	info, err := f.Stat()
	if err != nil {
		f.Close()
		return fmt.Errorf("log file: %w", err)
	}
	l.f, l.size = f, info.Size()
	return nil
}

// tailSize is more than one append can be: a pipe's 64 KiB of empty lines, each with its prefix of 41 bytes.
const tailSize = 64 * 1024 * 48

func (l *file) tail() ([]byte, error) {
	start := max(0, l.size-tailSize)
	tail := make([]byte, l.size-start)
	n, err := l.f.ReadAt(tail, start)
	if n == len(tail) {
		err = nil
	}
	return tail[:n], err
}

func (l *file) repair() error {
	if l.size == 0 {
		return nil
	}
	var end [1]byte
	if _, err := l.f.ReadAt(end[:], l.size-1); err != nil {
		return err
	}
	if end[0] == '\n' {
		return nil
	}
	tail, err := l.tail()
	if err != nil {
		return err
	}
	l.size -= int64(len(tail) - bytes.LastIndexByte(tail, '\n') - 1)
	return l.f.Truncate(l.size)
}

// append writes data as records of one new timestamp. announce is called with it
// before the file changes.
func (l *file) append(stream string, data []byte, announce func(time.Time) error) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.f == nil {
		return fs.ErrClosed
	}
	now := time.Now()
	if !now.After(l.last) {
		now = l.last.Add(1)
	}
	l.last = now
	if l.limits.MaxBytes > 0 && l.size >= l.limits.MaxBytes {
		if err := l.rotate(now); err != nil {
			return err
		}
	}
	if err := announce(now); err != nil {
		return err
	}
	l.buf = appendRecords(l.buf[:0], now, stream, data)
	n, err := l.f.Write(l.buf)
	l.size += int64(n)
	if err != nil && n > 0 {
		// A half record would become part of the next one.
		if terr := l.f.Truncate(l.size - int64(n)); terr == nil {
			l.size -= int64(n)
		}
	}
	if cap(l.buf) > 16*1024 {
		l.buf = nil // one burst should not be paid for ever after
	}
	return err
}

// rotate moves the file aside and removes the oldest ones.
func (l *file) rotate(now time.Time) error {
	aside := l.path + "." + now.UTC().Format(rotatedFormat)
	for n := 1; ; n++ {
		if _, err := os.Lstat(aside); errors.Is(err, fs.ErrNotExist) {
			break
		}
		aside = fmt.Sprintf("%s.%s.%03d", l.path, now.UTC().Format(rotatedFormat), n)
	}
	if err := os.Rename(l.path, aside); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("rotate log file: %w", err)
	}
	if err := l.reopen(); err != nil {
		return err
	}
	old, err := rotated(l.path)
	if err != nil {
		return fmt.Errorf("list rotated log files: %w", err)
	}
	for len(old) > max(l.limits.MaxFiles-1, 0) {
		if err := os.Remove(old[0]); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("remove rotated log file: %w", err)
		}
		old = old[1:]
	}
	return nil
}

// rotated lists the files moved aside, oldest first.
func rotated(path string) ([]string, error) {
	entries, err := os.ReadDir(filepath.Dir(path))
	if err != nil {
		return nil, err
	}
	var names []string
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), filepath.Base(path)+".") {
			names = append(names, filepath.Join(filepath.Dir(path), e.Name()))
		}
	}
	slices.Sort(names)
	return names, nil
}

func (l *file) reopen() error {
	old := l.f
	if err := l.open(); err != nil {
		return err
	}
	if old != nil {
		old.Close()
	}
	return nil
}

func (l *file) close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.f != nil {
		l.f.Close()
		l.f = nil
	}
}
