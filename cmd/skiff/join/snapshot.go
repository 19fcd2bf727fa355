package join

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/skiff-run/skiff/raftstore"
)

// SaveSnapshot writes a snapshot of the store to a new file, complete and
// verified or not at all, readable by its owner only: it holds the cluster's secrets.
func (a *Administrator) SaveSnapshot(ctx context.Context, path string) (info raftstore.SnapshotInfo, err error) {
	if _, err := os.Stat(path); err == nil {
		return info, fmt.Errorf("%s is there already: name a new file", path)
	}
	file, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+"-")
	if err != nil {
		return info, fmt.Errorf("make a file beside %s: %w", path, err)
	}
	defer func() { err = errors.Join(err, file.Close(), removeIfThere(file.Name())) }()
	stream, err := a.Snapshot(ctx)
	if err != nil {
		return info, fmt.Errorf("ask for a snapshot: %w", err)
	}
	_, err = io.Copy(file, stream)
	if err = errors.Join(err, stream.Close()); err != nil {
		return info, fmt.Errorf("receive the snapshot: %w", err)
	}
	if _, err := file.Seek(0, io.SeekStart); err != nil {
		return info, fmt.Errorf("read the snapshot back: %w", err)
	}
	if info, err = raftstore.InspectSnapshot(file); err != nil {
		return info, err
	}
	if err := file.Sync(); err != nil {
		return info, fmt.Errorf("write %s: %w", path, err)
	}
	// Link, unlike rename, never replaces a file.
	if err := os.Link(file.Name(), path); err != nil {
		return info, fmt.Errorf("write %s: %w", path, err)
	}
	return info, nil
}

func removeIfThere(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}

// InspectSnapshot verifies a snapshot file and says what is in it.
func InspectSnapshot(path string) (raftstore.SnapshotInfo, error) {
	file, err := os.Open(path)
	if err != nil {
		return raftstore.SnapshotInfo{}, fmt.Errorf("open snapshot: %w", err)
	}
	defer file.Close()
	info, err := raftstore.InspectSnapshot(file)
	if err != nil {
		return info, fmt.Errorf("%s: %w", path, err)
	}
	return info, nil
}
