package raftstore

import (
	"errors"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"
)

// snapshotPause is how long the archivist rests after a failed snapshot.
const snapshotPause = 30 * time.Second

// archivist takes snapshots and cuts the log behind them. Raft would do both by
// the clock and by the number of entries; here size counts too, and the log is
// kept back to the older snapshot.
type archivist struct {
	store *Store
	due   chan struct{}
	bytes atomic.Int64 // appended since the last snapshot
	// entries appended since the last snapshot.
	entries atomic.Int64
	// newest is the index of the newest snapshot; run only.
	newest uint64
}

func newArchivist(s *Store, r restored) *archivist {
	a := &archivist{store: s, due: make(chan struct{}, 1), newest: r.index}
	if _, last, err := s.wal.Bounds(); err == nil && last > r.index {
		a.entries.Store(int64(last - r.index))
	}
	return a
}

// appended is told by the log about each append.
func (a *archivist) appended(entries, bytes int) {
	e, b := a.entries.Add(int64(entries)), a.bytes.Add(int64(bytes))
	o := &a.store.options
	if e >= o.SnapshotEntries || b >= max(o.SnapshotBytes, a.store.state.View().Bytes()) {
		select {
		case a.due <- struct{}{}:
		default:
		}
	}
}

// run takes a snapshot whenever one is due.
func (a *archivist) run() {
	for {
		select {
		case <-a.due:
		case <-a.store.closing:
			return
		}
		if err := a.snapshot(); err != nil {
			a.store.log.Error("could not take a snapshot, the log keeps growing", "error", err)
			select {
			case <-time.After(snapshotPause):
			case <-a.store.closing:
				return
			}
		}
	}
}

func (a *archivist) snapshot() error {
	began := time.Now()
	a.entries.Store(0)
	a.bytes.Store(0)
	future := a.store.raft.Snapshot()
	if err := future.Error(); err != nil {
		if errors.Is(err, raft.ErrNothingNewToSnapshot) || errors.Is(err, raft.ErrRaftShutdown) {
			return nil
		}
		return err
	}
	list, err := a.store.snapshots.List()
	if err != nil || len(list) == 0 {
		return err
	}
	older := a.newest
	a.newest = list[0].Index
	a.store.log.Info("snapshot taken", "index", a.newest, "bytes", list[0].Size, "took", time.Since(began))
	return a.cut(older)
}

// cut removes the log up to index, the older snapshot's.
func (a *archivist) cut(index uint64) error {
	first, last, err := a.store.wal.Bounds()
	if err != nil {
		return err
	}
	if !a.store.alone() {
		index = min(index, last-min(last, uint64(a.store.options.TrailingEntries)))
	}
	if first == 0 || index < first {
		return nil
	}
	return a.store.wal.DeleteRange(first, index)
}
