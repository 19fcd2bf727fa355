package disk

import (
	"errors"
	"fmt"
	"path/filepath"
	"runtime"
	"slices"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
	wal "github.com/hashicorp/raft-wal"
)

// Log is raft's LogStore on raft-wal.
type Log struct {
	fs    FS
	dir   string
	wal   *wal.WAL
	meta  *meta
	mark  *mark
	turn  chan struct{} // holds one: who writes
	guard *Guard
	// Appended, if set, is told of each durable append: entries and bytes of
	// record data.
	Appended func(entries, bytes int)
}

// OpenLog opens or makes the log in dir of fs. It reads every record, so that damage
// is found now and not when a record is needed, and it fails if the log is
// shorter than it once was.
func OpenLog(fs FS, dir string, segmentSize int, guard *Guard, logger hclog.Logger) (*Log, error) {
	if err := MakeDir(fs, dir); err != nil {
		return nil, err
	}
	names, err := fs.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("read log directory: %w", err)
	}
	isNew := !slices.Contains(names, metaName)
	if isNew {
		if err := missingMeta(filepath.Join(dir, metaName), names); err != nil {
			return nil, err
		}
	}
	l := &Log{fs: fs, dir: dir, meta: &meta{fs: fs}, guard: guard, turn: make(chan struct{}, 1)}
	if l.mark, err = openMark(fs, dir, isNew); err != nil {
		return nil, err
	}
	if err := l.openWAL(segmentSize, logger); err != nil {
		var damage *DamageError
		if !errors.As(err, &damage) {
			err = &DamageError{Path: dir, Detail: "the log cannot be opened", Err: err}
		}
		return nil, errors.Join(err, l.mark.Close())
	}
	if err := l.scan(); err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return l, nil
}

func (l *Log) openWAL(segmentSize int, logger hclog.Logger) error {
	filer := newSegments(l.fs, l.dir)
	if err := finishRotation(l.dir, l.meta, filer, segmentSize); err != nil {
		return err
	}
	var err error
	l.wal, err = wal.Open(l.dir, wal.WithCodec(codec{}), wal.WithMetaStore(l.meta), wal.WithSegmentFiler(filer),
		wal.WithSegmentSize(segmentSize), wal.WithLogger(logger))
	return err
}

// scan reads the whole log and compares its end with the mark.
func (l *Log) scan() error {
	first, last, err := l.Bounds()
	if err != nil {
		return err
	}
	if high := l.mark.Index(); last < high {
		return &DamageError{Path: l.dir, Detail: fmt.Sprintf("the log ends at record %d, but record %d was written and acknowledged", last, high)}
	}
	var entry raft.Log
	for i := first; i <= last && last > 0; i++ {
		if err := l.read(i, &entry); err != nil {
			return &DamageError{Path: l.dir, Detail: fmt.Sprintf("record %d of %d to %d cannot be read", i, first, last), Err: err}
		}
	}
	// Records beyond the mark are real too: the process died between the two
	// writes. From now on they count.
	return l.mark.Raise(last)
}

// Bounds are the first and last index, 0 and 0 for an empty log.
func (l *Log) Bounds() (first, last uint64, err error) {
	if first, err = l.wal.FirstIndex(); err != nil {
		return 0, 0, fmt.Errorf("find first record of %s: %w", l.dir, err)
	}
	if last, err = l.wal.LastIndex(); err != nil {
		return 0, 0, fmt.Errorf("find last record of %s: %w", l.dir, err)
	}
	return first, last, nil
}

// read gets a record and checks that it is the one asked for.
func (l *Log) read(index uint64, entry *raft.Log) error {
	if err := l.wal.GetLog(index, entry); err != nil {
		return err
	}
	if entry.Index != index {
		return fmt.Errorf("%w: it says it is record %d", ErrRecord, entry.Index)
	}
	return nil
}

// Stable is the part of the log's directory which holds term and vote.
func (l *Log) Stable() *Stable { return &Stable{values: l.meta, guard: l.guard} }

// FirstIndex implements raft.LogStore.
func (l *Log) FirstIndex() (uint64, error) { return l.wal.FirstIndex() }

// LastIndex implements raft.LogStore.
func (l *Log) LastIndex() (uint64, error) { return l.wal.LastIndex() }

// GetLog implements raft.LogStore.
func (l *Log) GetLog(index uint64, entry *raft.Log) error {
	err := l.read(index, entry)
	if err == nil || errors.Is(err, raft.ErrLogNotFound) || errors.Is(err, wal.ErrClosed) {
		return err
	}
	err = l.guard.hold(&DamageError{Path: l.dir, Detail: fmt.Sprintf("record %d cannot be read", index), Err: err})
	if err == nil {
		runtime.Goexit() // there is no record to go on with
	}
	return err
}

// write makes one change at a time. raft-wal would make the second writer wait
// for a mutex; here it is not yet under the watchdog while it waits for its turn.
func (l *Log) write(watch func(string, func() error) error, what string, change func() error) error {
	l.turn <- struct{}{}
	defer func() { <-l.turn }()
	return watch(what, change)
}

// StoreLog implements raft.LogStore.
func (l *Log) StoreLog(entry *raft.Log) error { return l.StoreLogs([]*raft.Log{entry}) }

// StoreLogs implements raft.LogStore. The records are durable when it returns.
func (l *Log) StoreLogs(entries []*raft.Log) error {
	if len(entries) == 0 {
		return nil
	}
	err := l.write(l.guard.watchAppend, "write the log", func() error {
		if err := l.wal.StoreLogs(entries); err != nil {
			return err
		}
		return l.mark.Raise(entries[len(entries)-1].Index)
	})
	if err == nil && l.Appended != nil {
		n := 0
		for _, e := range entries {
			n += len(e.Data)
		}
		l.Appended(len(entries), n)
	}
	return err
}

// DeleteRange implements raft.LogStore.
func (l *Log) DeleteRange(from, to uint64) error {
	return l.write(l.guard.watch, "cut the log", func() error {
		last, err := l.wal.LastIndex()
		if err != nil {
			return err
		}
		if to >= last && from <= last {
			first, err := l.wal.FirstIndex()
			if err != nil {
				return err
			}
			end := from - 1
			if from <= first {
				end = 0 // nothing remains
			}
			if err := l.mark.Lower(end); err != nil {
				return err
			}
		}
		return l.wal.DeleteRange(from, to)
	})
}

// IsMonotonic implements raft.MonotonicLogStore: the log has no gaps.
func (l *Log) IsMonotonic() bool { return true }

// Close closes the files.
func (l *Log) Close() error { return errors.Join(l.wal.Close(), l.mark.Close()) }
