// Package inject names what tests may put in place of parts of a member: a file
// system that fails, listeners to what happens within. It is internal, so no
// program that uses the store can build a Parts and a production build cannot
// be changed through it.
package inject

import "github.com/skiff-run/skiff/raftstore/disk"

// Parts replaces parts of one member; what is left nil stays as it is.
type Parts struct {
	// FS is where the member keeps its files.
	FS disk.FS
}
