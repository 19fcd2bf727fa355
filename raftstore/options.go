package raftstore

import (
	"fmt"
	"log/slog"
	"os"
	"time"

	"github.com/skiff-run/skiff/raftstore/disk"
	"github.com/skiff-run/skiff/raftstore/internal/inject"
)

// Options say where a store lives and what bounds it. Only Dir is required.
type Options struct {
	// Dir holds everything the store keeps. It is made with mode 0700.
	Dir string
	// MemberID names this member for ever; generated and kept in Dir if empty.
	MemberID string
	// Logger, slog.Default() if nil.
	Logger *slog.Logger

	// Network connects this member to others. Without it the member is alone
	// and opens no socket. The store closes it.
	Network Network
	// Address is the host:port by which other members reach this one; needed
	// with a Network.
	Address string
	// Join: a member with an empty Dir waits to be added to a cluster instead
	// of founding one. It means nothing once Dir is not empty.
	Join bool

	// HeartbeatTimeout is how long a member hears nothing from its leader before
	// it wants another one by itself. Heartbeats are sent five to ten times as
	// often; the members agree on an outage after two fifths of it.
	HeartbeatTimeout time.Duration // default 1 s
	// LeaderLeaseTimeout is how long a leader hears nothing from a majority
	// before it gives up; not longer than HeartbeatTimeout.
	LeaderLeaseTimeout time.Duration // default half of HeartbeatTimeout

	// HistoryAge, HistoryEvents and HistoryBytes bound the events kept for
	// watches and reads in the past. The leader compacts when any is exceeded.
	HistoryAge    time.Duration // default 5 minutes
	HistoryEvents int64         // default 50,000
	HistoryBytes  int64         // default 32 MiB

	// SnapshotEntries and SnapshotBytes: a snapshot is taken when so many log
	// entries, or so many bytes and at least the size of the state, were written
	// since the last one.
	SnapshotEntries int64 // default 20,000
	SnapshotBytes   int64 // default 64 MiB
	// TrailingEntries stay in the log of a member of several after a snapshot, so
	// that a member which was away for a moment need not be sent the whole state.
	TrailingEntries int64 // default 20,000
	// SegmentSize is the size of one log file.
	SegmentSize int // default 32 MiB

	// StallTimeout is how long one write of the log may take. Beyond it a
	// member of several ends its process, so that another can lead; a lone
	// member reports itself unhealthy and waits.
	StallTimeout time.Duration // default 2 s

	// SlowWrite and TardyWrite say when a disk is slow: when one write of the log
	// takes longer than SlowWrite, or more than one in a hundred longer than
	// TardyWrite. A leader with a slow disk hands leadership over to a voter
	// without one.
	SlowWrite  time.Duration // default 1 s
	TardyWrite time.Duration // default 200 ms

	// OnRemoved is told that the cluster removed this member, which then serves
	// nothing any more; the process should end.
	OnRemoved func()
	// OnFatal is told once that the store cannot go on (a log write failed, a
	// record is damaged) and must end the process. The default logs the error
	// and exits with code 1.
	OnFatal func(error)

	// Inject replaces parts of the member with ones that fail on purpose. Its
	// type can only be named by this package and its tests' packages below it.
	Inject *inject.Parts
}

// fs is the file system the member lives on.
func (o *Options) fs() disk.FS {
	if o.Inject != nil && o.Inject.FS != nil {
		return o.Inject.FS
	}
	return disk.OS
}

// withDefaults fills in what was left out and refuses what makes no sense.
func (o Options) withDefaults() (Options, error) {
	if o.Dir == "" {
		return o, fmt.Errorf("Options.Dir is empty: name the directory the store shall live in")
	}
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
	if o.OnFatal == nil {
		logger := o.Logger
		o.OnFatal = func(err error) {
			logger.Error("the store cannot go on", "error", err)
			os.Exit(1)
		}
	}
	if (o.Network == nil) != (o.Address == "") {
		return o, fmt.Errorf("Options.Network and Options.Address go together: a member that others reach needs both, a lone one neither")
	}
	if o.Join && o.Network == nil {
		return o, fmt.Errorf("Options.Join needs a Network: without one nobody can add this member")
	}
	for _, d := range []struct {
		name  string
		value *int64
		def   int64
	}{
		{"HistoryEvents", &o.HistoryEvents, 50_000},
		{"HistoryBytes", &o.HistoryBytes, 32 << 20},
		{"SnapshotEntries", &o.SnapshotEntries, 20_000},
		{"SnapshotBytes", &o.SnapshotBytes, 64 << 20},
		{"TrailingEntries", &o.TrailingEntries, 20_000},
		{"HistoryAge", (*int64)(&o.HistoryAge), int64(5 * time.Minute)},
		{"StallTimeout", (*int64)(&o.StallTimeout), int64(2 * time.Second)},
		{"SlowWrite", (*int64)(&o.SlowWrite), int64(time.Second)},
		{"TardyWrite", (*int64)(&o.TardyWrite), int64(200 * time.Millisecond)},
		{"HeartbeatTimeout", (*int64)(&o.HeartbeatTimeout), int64(time.Second)},
	} {
		if *d.value < 0 {
			return o, fmt.Errorf("Options.%s is negative", d.name)
		}
		if *d.value == 0 {
			*d.value = d.def
		}
	}
	if o.LeaderLeaseTimeout == 0 {
		o.LeaderLeaseTimeout = o.HeartbeatTimeout / 2
	}
	if o.HeartbeatTimeout < 50*time.Millisecond {
		return o, fmt.Errorf("Options.HeartbeatTimeout is %s: it must be at least 50 ms", o.HeartbeatTimeout)
	}
	if o.LeaderLeaseTimeout < 5*time.Millisecond || o.LeaderLeaseTimeout > o.HeartbeatTimeout {
		return o, fmt.Errorf("Options.LeaderLeaseTimeout is %s: it must be at least 5 ms and at most HeartbeatTimeout (%s)", o.LeaderLeaseTimeout, o.HeartbeatTimeout)
	}
	if o.SegmentSize == 0 {
		o.SegmentSize = 32 << 20
	}
	if o.SegmentSize < 4<<10 || o.SegmentSize > 1<<30 {
		return o, fmt.Errorf("Options.SegmentSize is %d: it must be between 4 KiB and 1 GiB", o.SegmentSize)
	}
	return o, nil
}
