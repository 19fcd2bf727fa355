// Package eviction ends pods when the machine runs short of memory, disk, inodes or process ids, and pods
// that take more of the disk than their limits say.
//
// Observations of the machine go in, thresholds come from the configuration; node conditions, and verdicts
// about pods come out. What to do is decided by pure functions; looking costs a few system calls, and the
// pods are measured only when there is something to decide about them.
package eviction
