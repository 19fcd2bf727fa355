package containerlog

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/fsnotify/fsnotify"
	v1 "k8s.io/api/core/v1"
)

// pollRunning is how often a quiet container is asked whether it still runs.
const pollRunning = time.Second

// Options of a read.
type Options struct {
	// Tail is how many lines from the end; negative for all.
	Tail int64
	// Limit of bytes written; negative for none.
	Limit int64
	// Since leaves out older lines, unless zero.
	Since      time.Time
	Timestamps bool
	Follow     bool
}

// NewOptions translates the API's options.
func NewOptions(o *v1.PodLogOptions, now time.Time) Options {
	out := Options{Tail: -1, Limit: -1, Timestamps: o.Timestamps, Follow: o.Follow}
	if o.TailLines != nil {
		out.Tail = *o.TailLines
	}
	if o.LimitBytes != nil {
		out.Limit = *o.LimitBytes
	}
	if o.SinceSeconds != nil {
		out.Since = now.Add(-time.Duration(*o.SinceSeconds) * time.Second)
	}
	if o.SinceTime != nil && o.SinceTime.After(out.Since) {
		out.Since = o.SinceTime.Time
	}
	return out
}

// errLimit ends a read whose byte limit is reached.
var errLimit = errors.New("byte limit reached")

// Read writes the log at path to the writers, nil for a stream nobody wants.
// When following it returns after the container stopped and all was read.
func Read(ctx context.Context, path string, o Options, stdout, stderr io.Writer, running func(context.Context) bool) error {
	f, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("open the log: %w", err)
	}
	r := &reader{path: path, options: o, file: f, stdout: stdout, stderr: stderr, left: o.Limit}
	defer func() { r.file.Close() }()
	if o.Tail >= 0 {
		offset, err := tailOffset(f, o.Tail)
		if err != nil {
			return fmt.Errorf("find the end of the log: %w", err)
		}
		if _, err := f.Seek(offset, io.SeekStart); err != nil {
			return fmt.Errorf("find the end of the log: %w", err)
		}
	}
	r.buffer = bufio.NewReader(f)
	if o.Follow {
		err = r.follow(ctx, running)
	} else {
		err = r.drain()
	}
	if errors.Is(err, errLimit) || (o.Follow && ctx.Err() != nil) {
		return nil
	}
	return err
}

type reader struct {
	path           string
	options        Options
	file           *os.File
	buffer         *bufio.Reader
	stdout, stderr io.Writer
	// left bytes may be written; negative for any number.
	left int64
	// half is a record whose newline is not written yet.
	half []byte
	// inside: the last record was a part of a longer line.
	inside bool
}

// drain writes every complete record there is.
func (r *reader) drain() error {
	for {
		chunk, err := r.buffer.ReadSlice('\n')
		r.half = append(r.half, chunk...)
		switch {
		case errors.Is(err, bufio.ErrBufferFull):
			continue
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return fmt.Errorf("read the log: %w", err)
		}
		record := bytes.TrimSuffix(r.half, []byte{'\n'})
		if err := r.write(record); err != nil {
			return err
		}
		r.half = r.half[:0]
	}
}

func (r *reader) write(record []byte) error {
	l, err := parse(record)
	if err != nil {
		// A torn record of a crashed writer must not hide the rest.
		return nil
	}
	if !r.options.Since.IsZero() && l.time.Before(r.options.Since) {
		return nil
	}
	out := r.stdout
	if l.stderr {
		out = r.stderr
	}
	if out == nil {
		return nil
	}
	var text []byte
	if r.options.Timestamps && !r.inside {
		text = append(append(text, l.stamp...), ' ')
	}
	text = append(text, l.text...)
	if !l.partial {
		text = append(text, '\n')
	}
	r.inside = l.partial
	limited := r.left >= 0 && int64(len(text)) >= r.left
	if limited {
		text = text[:r.left]
	}
	if _, err := out.Write(text); err != nil {
		return err
	}
	if limited {
		return errLimit
	}
	if r.left >= 0 {
		r.left -= int64(len(text))
	}
	return nil
}

// follow reads what is there, then what comes. The directory is watched, not
// the file, because rotation puts a new file in its place.
func (r *reader) follow(ctx context.Context, running func(context.Context) bool) error {
	watcher, err := fsnotify.NewWatcher()
	if err != nil {
		return fmt.Errorf("watch the log: %w", err)
	}
	defer watcher.Close()
	if err := watcher.Add(filepath.Dir(r.path)); err != nil {
		return fmt.Errorf("watch the log: %w", err)
	}
	timer := time.NewTimer(pollRunning)
	defer timer.Stop()
	for {
		// Asked first: what is written before the container ends is read after.
		alive := running(ctx)
		if err := r.drain(); err != nil {
			return err
		}
		if err := r.reopen(); err != nil {
			return err
		}
		if !alive {
			return r.drain()
		}
		timer.Reset(pollRunning)
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-timer.C:
		case e, ok := <-watcher.Events:
			for ok && e.Name != r.path {
				select {
				case e, ok = <-watcher.Events:
					continue
				case <-timer.C:
				case <-ctx.Done():
					return ctx.Err()
				}
				break
			}
		case err := <-watcher.Errors:
			return fmt.Errorf("watch the log: %w", err)
		}
	}
}

// reopen goes on with the next file after a rotation, when the old one is read,
// until the newest is: there may have been several rotations since the last look.
func (r *reader) reopen() error {
	for {
		next, err := r.successor()
		if err != nil || next == "" {
			return err
		}
		// The writer may have added to the old file between reading and rotation.
		if err := r.drain(); err != nil {
			return err
		}
		file, err := os.Open(next)
		if errors.Is(err, os.ErrNotExist) {
			continue // moved aside or removed at this moment
		}
		if err != nil {
			return fmt.Errorf("open the log after rotation: %w", err)
		}
		r.file.Close()
		r.file = file
		r.buffer.Reset(file)
		r.half = r.half[:0]
		if err := r.drain(); err != nil {
			return err
		}
	}
}

// successor is the file that the writer began when it moved the one being read
// aside; empty while that is the newest. When ours is not there any more it is the
// oldest that is.
func (r *reader) successor() (string, error) {
	have, err := r.file.Stat()
	if err != nil {
		return "", fmt.Errorf("look at the open log: %w", err)
	}
	now, err := os.Stat(r.path)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return "", fmt.Errorf("look at the log: %w", err)
	}
	if err != nil || os.SameFile(now, have) {
		return "", nil
	}
	// Their names end with the time at which they were moved, so they sort.
	aside, err := filepath.Glob(r.path + ".*")
	if err != nil {
		return "", fmt.Errorf("look for rotated logs: %w", err)
	}
	slices.Sort(aside)
	files := append(aside, r.path)
	for i, name := range files {
		if info, err := os.Stat(name); err == nil && os.SameFile(info, have) {
			return files[min(i+1, len(files)-1)], nil
		}
	}
	return files[0], nil
}

// tailOffset finds where the last n lines begin.
func tailOffset(f *os.File, n int64) (int64, error) {
	const block = 64 << 10
	size, err := f.Seek(0, io.SeekEnd)
	if err != nil || n == 0 {
		return size, err
	}
	buffer := make([]byte, block)
	seen := int64(0)
	for end := size; end > 0; {
		begin := max(0, end-block)
		part := buffer[:end-begin]
		if _, err := f.ReadAt(part, begin); err != nil && !errors.Is(err, io.EOF) {
			return 0, err
		}
		for i := len(part) - 1; i >= 0; i-- {
			// The newline that ends the file begins no line.
			if part[i] != '\n' || begin+int64(i) == size-1 {
				continue
			}
			if seen++; seen == n {
				return begin + int64(i) + 1, nil
			}
		}
		end = begin
	}
	return 0, nil
}
