// Package inject names what tests may put in place of parts of a member, or
// attach to it: a file system that fails, listeners to what happens within,
// safeguards that are left out to see whether anybody notices. It is internal,
// so no program that uses the store can build a Parts and a production build
// cannot be changed through it.
package inject

import (
	"time"

	"github.com/hashicorp/raft"

	"github.com/skiff-run/skiff/raftstore/command"
	"github.com/skiff-run/skiff/raftstore/disk"
	"github.com/skiff-run/skiff/raftstore/mvcc"
)

// Parts replaces parts of one member; what is left nil stays as it is.
type Parts struct {
	// FS is where the member keeps its files.
	FS disk.FS
	// Now is the member's wall clock.
	Now func() time.Time
	// Raft is given the library's instance when it runs.
	Raft func(*raft.Raft)
	// Executed is told of each command entry of the log: what it was and what
	// came of its commands. It is called by the state machine's goroutine.
	Executed func(entry *raft.Log, results []command.Result)
	// Published is told of each state readers can see, by the same goroutine.
	Published func(*mvcc.View)
	// ExecuteTwice leaves out that a command which arrives a second time is only
	// answered again.
	ExecuteTwice bool
}
