package disk

import (
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/hashicorp/raft-wal/types"
)

// finishRotation completes a change of segments which a crash interrupted.
//
// raft-wal seals a full segment in its file first and notes that in the
// metadata a moment later, from another goroutine. If the process dies in
// between, raft-wal 0.4.1 opens the sealed segment as the tail and refuses
// every append ("segment is sealed") from then on. So the metadata is brought
// up to date before raft-wal looks: the tail is sealed and a new one follows.
func finishRotation(dir string, m *meta, filer types.SegmentFiler, segmentSize int) error {
	state, err := m.Load(dir)
	if err != nil {
		return err
	}
	if len(state.Segments) == 0 {
		return nil
	}
	tail := &state.Segments[len(state.Segments)-1]
	if !tail.SealTime.IsZero() {
		return nil
	}
	w, err := filer.RecoverTail(*tail)
	if errors.Is(err, os.ErrNotExist) {
		return nil // raft-wal makes it
	}
	if err != nil {
		return fmt.Errorf("recover the last segment of the log: %w", err)
	}
	sealed, indexStart, err := w.Sealed()
	last := w.LastIndex()
	if err := errors.Join(err, w.Close()); err != nil || !sealed {
		return err
	}
	now := time.Now()
	tail.SealTime, tail.MaxIndex, tail.IndexStart = now, last, indexStart
	next := types.SegmentInfo{
		ID: state.NextSegmentID, BaseIndex: last + 1, MinIndex: last + 1,
		Codec: codecID, CreateTime: now, SizeLimit: uint32(segmentSize),
	}
	state.NextSegmentID++
	state.Segments = append(state.Segments, next)
	return m.CommitState(state)
}
