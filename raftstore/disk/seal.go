package disk

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/hashicorp/raft-wal/segment"
	"github.com/hashicorp/raft-wal/types"
)

// The header of raft-wal's frames: their type in the first byte, their length
// in the last four.
const frameHeaderSize = 8

// tornIndex is where the frame of an index begins that a crash left behind, 0
// if there is none.
//
// The append that fills a segment writes its records, an index of all records
// and a commit in one piece. If a crash tears that piece, raft-wal 0.4.1 drops
// the records, but having seen the index it takes the segment for sealed, and
// then reads an index that fits nothing. An index that was not committed names
// more records than the segment has.
func (s *segments) tornIndex(info types.SegmentInfo, w types.SegmentWriter) (offset int64, err error) {
	sealed, start, err := w.Sealed()
	if err != nil || !sealed {
		return 0, err
	}
	f, err := s.fs.OpenFile(filepath.Join(s.dir, segment.FileName(info)), os.O_RDONLY)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	offset = int64(start) - frameHeaderSize
	var header [frameHeaderSize]byte
	if _, err := f.ReadAt(header[:], offset); err != nil {
		return 0, fmt.Errorf("read the index: %w", err)
	}
	records := uint64(0)
	if last := w.LastIndex(); last > 0 {
		records = last - info.BaseIndex + 1
	}
	if uint64(binary.LittleEndian.Uint32(header[4:])) == 4*records {
		return 0, nil
	}
	return offset, nil
}

// wipe overwrites with zeros what a segment holds from the offset on, as if it
// had not been written.
func (s *segments) wipe(info types.SegmentInfo, offset int64) error {
	f, err := s.fs.OpenFile(filepath.Join(s.dir, segment.FileName(info)), os.O_RDWR)
	if err != nil {
		return err
	}
	buffer := make([]byte, 64<<10)
	for {
		n, err := f.ReadAt(buffer, offset)
		if used := len(bytes.TrimRight(buffer[:n], "\x00")); used > 0 {
			if _, err := f.WriteAt(make([]byte, used), offset); err != nil {
				return errors.Join(err, f.Close())
			}
		}
		offset += int64(n)
		if errors.Is(err, io.EOF) {
			return errors.Join(f.Sync(), f.Close())
		}
		if err != nil {
			return errors.Join(err, f.Close())
		}
	}
}
