package pki

import (
	"os"
	"syscall"
	"time"
)

// Stamp tells one content of a file from the next: files are replaced by
// renaming, so the inode differs even within the clock's resolution.
type Stamp struct {
	inode uint64
	size  int64
	time  time.Time
}

// StampOf returns the stamp of the file now.
func StampOf(path string) (Stamp, error) {
	info, err := os.Stat(path)
	if err != nil {
		return Stamp{}, err
	}
	s := Stamp{size: info.Size(), time: info.ModTime()}
	if system, ok := info.Sys().(*syscall.Stat_t); ok {
		s.inode = system.Ino
	}
	return s, nil
}
