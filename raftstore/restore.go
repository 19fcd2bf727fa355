package raftstore

import (
	"errors"
	"fmt"
	"io"
	"log/slog"

	"github.com/hashicorp/raft"

	"github.com/skiff-run/skiff/raftstore/disk"
)

// snapshotsKept is how many snapshots stay; the log is kept back to the oldest
// of them, so a damaged newest one costs nothing but time.
const snapshotsKept = 2

// restored is the state at the start, before raft replays the log.
type restored struct {
	fsm *fsm
	// index and term are the snapshot's last log entry, 0 without one.
	index, term uint64
}

// restoreNewest loads the newest snapshot that can be read completely. A
// damaged one is set aside, but only if the log still holds everything after
// the older one: state is never lost silently.
func restoreNewest(snapshots *disk.Snapshots, log *disk.Log, logger *slog.Logger) (restored, error) {
	ids, err := snapshots.IDs()
	if err != nil {
		return restored{}, err
	}
	found := restored{fsm: newFSM()}
	var damaged []string
	var firstDamage error
	for _, id := range ids {
		machine := newFSM()
		meta, err := restoreOne(snapshots, id, machine)
		if err == nil {
			found = restored{fsm: machine, index: meta.Index, term: meta.Term}
			break
		}
		if firstDamage == nil {
			firstDamage = &disk.DamageError{Path: snapshots.Path(id), Detail: "the snapshot cannot be read", Err: err}
		}
		damaged = append(damaged, id)
	}
	if err := covered(log, snapshots, found.index); err != nil {
		return restored{}, errors.Join(firstDamage, err)
	}
	for _, id := range damaged {
		logger.Warn("setting a damaged snapshot aside; the log still holds everything since the one before",
			"file", snapshots.Path(id), "restored", found.index, "error", firstDamage)
		if err := snapshots.SetAside(id); err != nil {
			return restored{}, err
		}
	}
	return found, nil
}

func restoreOne(snapshots *disk.Snapshots, id string, machine *fsm) (*raft.SnapshotMeta, error) {
	meta, source, err := snapshots.Open(id)
	if err != nil {
		return nil, err
	}
	err = machine.Restore(source)
	if err == nil {
		// What follows the state must be the end of the file.
		if _, extra := source.Read(make([]byte, 1)); !errors.Is(extra, io.EOF) {
			err = errors.New("bytes after the end of the state")
		}
	}
	return meta, errors.Join(err, source.Close())
}

// covered checks that the log continues where the snapshot ends; what is missing
// between is damage.
func covered(log *disk.Log, snapshots *disk.Snapshots, index uint64) error {
	first, last, err := log.Bounds()
	if err != nil {
		return err
	}
	if last > 0 && first > index+1 {
		return &disk.DamageError{Path: snapshots.Dir(), Detail: fmt.Sprintf(
			"the log begins at record %d, but the newest readable snapshot ends at %d: what lies between is lost", first, index)}
	}
	return nil
}
