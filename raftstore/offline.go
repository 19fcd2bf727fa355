package raftstore

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/hashicorp/raft"

	"github.com/skiff-run/skiff/raftstore/disk"
)

// Work on the directory of a member which does not run: RestoreSnapshot and
// Recover. Both begin a new cluster whose past may differ from what clients
// have seen, so both jump.

// minJump and jumpPerSecond size the jump of the revision. A cluster that goes
// on from an older moment gives out revisions which clients may have seen
// already, with another meaning: a watch or a continued list from such a
// revision would silently miss events. So the revision starts beyond whatever
// the lost past can have reached, and everything before counts as compacted:
// such clients are told so (410 Gone in Kubernetes) and list again. No cluster
// writes jumpPerSecond times a second for long.
const (
	minJump       = 1_000_000_000
	jumpPerSecond = 50_000
)

// revisionJump is by how much to jump if the past may go on since that time.
func revisionJump(since, now time.Time) int64 {
	if since.IsZero() || now.Before(since) {
		return minJump
	}
	return max(minJump, int64(now.Sub(since).Seconds())*jumpPerSecond)
}

// exclusive takes the lock of a directory for the time of f.
func exclusive(fs disk.FS, dir string, f func() error) (err error) {
	lock, err := disk.LockDir(fs, dir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, lock.Close()) }()
	return f()
}

// openLogOffline opens the log of a member that does not run. A failed write is
// an ordinary error there.
func openLogOffline(fs disk.FS, dir string, o Options) (*disk.Log, error) {
	guard := disk.NewGuard(func(error) {}, func(error) {}, time.Minute)
	guard.Offline = true
	return disk.OpenLog(fs, filepath.Join(dir, logDir), o.SegmentSize, guard, newHCLog(o.Logger))
}

// RestoreSnapshot makes, in an empty directory, a new store with the content of
// a snapshot file and one member: memberID (generated if empty), reached by the
// others at address. The file is read and verified completely before anything
// is written. If it is interrupted it can be run again.
//
// The store is a new cluster with an id of its own, so members of the cluster
// the snapshot came from do not talk to it; give every further member an empty
// directory and let it join. Content, modification revisions and times to live
// are those of the snapshot, but the store's revision has jumped and its
// history is gone: clients list again instead of continuing from a past that
// did not happen here.
func RestoreSnapshot(dir, memberID, address string, r io.Reader) (SnapshotInfo, error) {
	info, err := SnapshotInfo{}, noForeignFolders(dir)
	if err == nil {
		info, err = restoreSnapshot(disk.OS, dir, memberID, address, r)
	}
	if err != nil {
		return SnapshotInfo{}, fmt.Errorf("restore snapshot into %s: %w", dir, err)
	}
	return info, nil
}

// noForeignFolders refuses a directory with folders no store has.
func noForeignFolders(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("read directory: %w", err)
	}
	for _, e := range entries {
		if name := e.Name(); e.IsDir() && name != logDir && name != snapshotDir && name != "lost+found" {
			return fmt.Errorf("the directory is not empty, it holds %s: name another directory", name)
		}
	}
	return nil
}

func restoreSnapshot(fs disk.FS, dir, memberID, address string, r io.Reader) (SnapshotInfo, error) {
	info, machine, err := readSnapshot(r)
	if err != nil {
		return SnapshotInfo{}, err
	}
	machine.state.Jump(revisionJump(info.Time, time.Now()))
	machine.state.Publish()
	id := newIdentity(memberID)
	if err := disk.MakeDir(fs, dir); err != nil {
		return SnapshotInfo{}, err
	}
	if err := exclusive(fs, dir, func() error { return restoreInto(fs, dir, id, address, machine) }); err != nil {
		return SnapshotInfo{}, err
	}
	info.Restored = &RestoredStore{ClusterID: id.ClusterID, MemberID: id.ID, Address: address, Revision: machine.state.Revision()}
	return info, nil
}

// readSnapshot loads a snapshot file into a state machine.
func readSnapshot(r io.Reader) (SnapshotInfo, *fsm, error) {
	machine := newFSM()
	var decodeErr error
	var info SnapshotInfo
	sum, err := disk.ReadBackup(r, &info, func(r io.Reader) error {
		decodeErr = machine.restoreState(r)
		return nil // a damaged file is better described by its checksums
	})
	if err = errors.Join(err, decodeErr); err != nil {
		return SnapshotInfo{}, nil, err
	}
	v := machine.state.View()
	if v.Revision() != info.Revision || v.Keys() != info.Keys || v.Bytes() != info.Bytes {
		return SnapshotInfo{}, nil, fmt.Errorf("%w: its header says revision %d, %d keys, %d bytes; it holds revision %d, %d keys, %d bytes",
			disk.ErrBackup, info.Revision, info.Keys, info.Bytes, v.Revision(), v.Keys(), v.Bytes())
	}
	info.SHA256 = fmt.Sprintf("%x", sum)
	return info, machine, nil
}

// restoreInto fills an empty directory. The marker stands from the first file
// to the last.
func restoreInto(fs disk.FS, dir string, id identity, address string, machine *fsm) error {
	if err := makeRoom(fs, dir); err != nil {
		return err
	}
	marker := filepath.Join(dir, restoringName)
	if err := disk.WriteFile(fs, marker, nil); err != nil {
		return fmt.Errorf("mark the directory: %w", err)
	}
	if err := id.keep(fs, dir); err != nil {
		return err
	}
	if err := writeFirstSnapshot(fs, dir, id, address, machine); err != nil {
		return err
	}
	if err := errors.Join(fs.Remove(marker), fs.SyncDir(dir)); err != nil {
		return fmt.Errorf("finish: %w", err)
	}
	return nil
}

// makeRoom refuses a directory which holds anything but the remains of a
// restore that was interrupted, and removes those.
func makeRoom(fs disk.FS, dir string) error {
	top, err := fs.ReadDir(dir)
	if err != nil {
		return fmt.Errorf("read directory: %w", err)
	}
	interrupted := slices.Contains(top, restoringName)
	for _, folder := range []string{dir, filepath.Join(dir, logDir), filepath.Join(dir, snapshotDir)} {
		names, err := fs.ReadDir(folder)
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("read directory: %w", err)
		}
		for _, name := range names {
			path := filepath.Join(folder, name)
			if folder == dir && (name == disk.LockName || name == restoringName || name == restoringName+".tmp") {
				continue
			}
			if !interrupted {
				return fmt.Errorf("the directory is not empty, it holds %s: a restore never replaces a store; move it away or name another directory", path)
			}
			if err := fs.Remove(path); err != nil {
				return fmt.Errorf("remove what an interrupted restore left: %w", err)
			}
		}
	}
	return nil
}

// firstTerm and firstIndex begin the log of a restored store: its snapshot
// stands for everything up to them.
const firstTerm, firstIndex = 1, 1

// writeFirstSnapshot makes log and snapshot of a store with one voter.
func writeFirstSnapshot(fs disk.FS, dir string, id identity, address string, machine *fsm) error {
	options, err := Options{Dir: dir}.withDefaults()
	if err != nil {
		return err
	}
	log, err := openLogOffline(fs, dir, options)
	if err != nil {
		return err
	}
	if err := errors.Join(log.Stable().SetUint64([]byte(keyCurrentTerm), firstTerm), log.Close()); err != nil {
		return err
	}
	snapshots, err := disk.OpenSnapshots(fs, filepath.Join(dir, snapshotDir), snapshotsKept)
	if err != nil {
		return err
	}
	sink, err := snapshots.Create(raft.SnapshotVersionMax, firstIndex, firstTerm, soleVoter(id.ID, address), firstIndex, nil)
	if err != nil {
		return err
	}
	captured, err := machine.Snapshot()
	if err != nil {
		return err
	}
	return captured.Persist(sink)
}

// soleVoter is the configuration of a cluster of one.
func soleVoter(id, address string) raft.Configuration {
	return raft.Configuration{Servers: []raft.Server{{Suffrage: raft.Voter, ID: raft.ServerID(id), Address: raft.ServerAddress(address)}}}
}
