package logs

import (
	"encoding/binary"
	"fmt"
	"os"
	"time"
)

// mark is the file that says which append is under way. It lies on the memory
// file system beside the pipe, so a write costs a microsecond and outlives the
// process, though not the machine; neither does the pipe.
type mark struct{ f *os.File }

// announcement is what a mark says.
type announcement struct {
	at        time.Time // timestamp of the records
	available uint32    // bytes in the pipe when they were looked at
}

const markSize = 13

func openMark(path string) (mark, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return mark{}, fmt.Errorf("log mark: %w", err)
	}
	return mark{f}, nil
}

// read returns the announcement of an append whose end was not noted.
func (m mark) read() (announcement, bool) {
	var b [markSize]byte
	if n, _ := m.f.ReadAt(b[:], 0); n < markSize || b[0] != 1 {
		return announcement{}, false
	}
	return announcement{
		at:        time.Unix(0, int64(binary.LittleEndian.Uint64(b[1:]))),
		available: binary.LittleEndian.Uint32(b[9:]),
	}, true
}

func (m mark) announce(a announcement) error {
	var b [markSize]byte
	b[0] = 1
	binary.LittleEndian.PutUint64(b[1:], uint64(a.at.UnixNano()))
	binary.LittleEndian.PutUint32(b[9:], a.available)
	_, err := m.f.WriteAt(b[:], 0)
	return err
}

func (m mark) done() error {
	_, err := m.f.WriteAt([]byte{0}, 0)
	return err
}
