package raftstore

import (
	"bufio"
	"context"
	"encoding/hex"
	"fmt"
	"io"
	"time"

	"github.com/skiff-run/skiff/raftstore/disk"
)

// SnapshotInfo describes a snapshot file, as its header does.
type SnapshotInfo struct {
	// ClusterID and MemberID say where the snapshot was taken.
	ClusterID string `json:"clusterID"`
	MemberID  string `json:"memberID"`
	// Revision is the store's at the moment the snapshot shows; history back to
	// CompactRevision is in it.
	Revision        int64 `json:"revision"`
	CompactRevision int64 `json:"compactRevision"`
	// Time is when the snapshot was taken, on the clock of that member.
	Time time.Time `json:"time"`
	// Keys and Bytes are the live content, keys and values.
	Keys  int64 `json:"keys"`
	Bytes int64 `json:"bytes"`
	// SHA256 covers header and content, in hexadecimal. It is not in the header.
	SHA256 string `json:"sha256,omitempty"`
	// Restored is what RestoreSnapshot made of it.
	Restored *RestoredStore `json:"restored,omitempty"`
}

// RestoredStore is a store made from a snapshot.
type RestoredStore struct {
	ClusterID string `json:"clusterID"`
	MemberID  string `json:"memberID"`
	Address   string `json:"address"`
	// Revision is where the restored store starts. See revisionJump.
	Revision int64 `json:"revision"`
}

// SaveSnapshot writes the whole store to w as one file that verifies itself.
// It shows a moment after the call began: every write that was answered before
// the call is in it. Writes go on meanwhile. The file holds everything the
// store does, secrets too; w is only complete when SaveSnapshot returns nil.
func (s *Store) SaveSnapshot(ctx context.Context, w io.Writer) (SnapshotInfo, error) {
	if _, err := s.ReadIndex(ctx); err != nil {
		return SnapshotInfo{}, fmt.Errorf("save snapshot: %w", err)
	}
	v := s.state.View()
	info := SnapshotInfo{
		ClusterID: s.ClusterID(), MemberID: s.id.ID,
		Revision: v.Revision(), CompactRevision: v.CompactRevision(),
		Time: time.Now().UTC().Truncate(time.Second), Keys: v.Keys(), Bytes: v.Bytes(),
	}
	sum, err := disk.WriteBackup(w, info, func(w io.Writer) error {
		buffered := bufio.NewWriterSize(untilDone{ctx, w}, 64<<10)
		if err := v.Encode(buffered); err != nil {
			return err
		}
		return buffered.Flush()
	})
	if err != nil {
		return SnapshotInfo{}, fmt.Errorf("save snapshot: %w", err)
	}
	info.SHA256 = hex.EncodeToString(sum)
	return info, nil
}

// untilDone stops writing when the context ends.
type untilDone struct {
	ctx context.Context
	w   io.Writer
}

// Write implements io.Writer.
func (u untilDone) Write(p []byte) (int, error) {
	if err := u.ctx.Err(); err != nil {
		return 0, err
	}
	return u.w.Write(p)
}

// InspectSnapshot reads a snapshot file to its end, verifies every checksum in
// it and says what it holds.
func InspectSnapshot(r io.Reader) (SnapshotInfo, error) {
	var info SnapshotInfo
	sum, err := disk.ReadBackup(r, &info, nil)
	if err != nil {
		return SnapshotInfo{}, fmt.Errorf("inspect snapshot: %w", err)
	}
	info.SHA256 = hex.EncodeToString(sum)
	return info, nil
}
