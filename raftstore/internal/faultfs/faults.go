package faultfs

import (
	"strings"
	"syscall"
	"time"
)

// faults is how the disk misbehaves at the moment.
type faults struct {
	full     bool
	failing  error // of every write and sync
	failSync error // of the next sync, whose data is then lost silently
	slow     time.Duration
	hung     chan struct{} // closed when the disk answers again, nil if it does
	lies     string        // syncs of paths that contain it do nothing
	lying    bool
}

// SetFull makes every write that needs more room fail with ENOSPC, or no
// longer.
func (d *Disk) SetFull(full bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.faults.full = full
}

// SetFailing makes every write and sync fail with EIO, or no longer.
func (d *Disk) SetFailing(failing bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.faults.failing = nil
	if failing {
		d.faults.failing = syscall.EIO
	}
}

// FailNextSync makes the next sync fail with EIO. As with a kernel that drops
// dirty pages after an error, what it should have made durable is lost with the
// power although later syncs succeed.
func (d *Disk) FailNextSync() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.faults.failSync = syscall.EIO
}

// SetSlow makes syncs of the log and of snapshots take so long.
func (d *Disk) SetSlow(by time.Duration) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.faults.slow = by
}

// SetHung makes syncs of the log and of snapshots wait until it is called with
// false or the process dies.
func (d *Disk) SetHung(hung bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	switch {
	case hung && d.faults.hung == nil:
		d.faults.hung = make(chan struct{})
	case !hung && d.faults.hung != nil:
		close(d.faults.hung)
		d.faults.hung = nil
	}
}

// SetLying makes syncs of files and directories whose path contains part report
// success and do nothing: what a checker must notice.
func (d *Disk) SetLying(lying bool, part string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.faults.lying, d.faults.lies = lying, part
}

// Heal ends all misbehaviour but lying.
func (d *Disk) Heal() {
	d.SetHung(false)
	d.mu.Lock()
	defer d.mu.Unlock()
	d.faults = faults{lying: d.faults.lying, lies: d.faults.lies}
}

// canWait says whose syncs may be slow or hang: files that are synced while
// nobody waits for a mutex of their writer. (Virtual time stands still while a
// goroutine waits for a mutex, so what sleeps under one would never wake.)
func canWait(path string) bool {
	return strings.HasSuffix(path, ".wal") || strings.HasSuffix(path, ".snap.tmp")
}

// delay waits as long as a sync of path takes now, or until the process dies.
func (f *FS) delay(path string) {
	if !canWait(path) {
		return
	}
	for {
		d := f.enter()
		slow, hung := d.faults.slow, d.faults.hung
		d.mu.Unlock()
		switch {
		case hung != nil:
			select {
			case <-hung: // it may be slow now
			case <-f.dead:
			}
		case slow > 0:
			timer := time.NewTimer(slow)
			defer timer.Stop()
			select {
			case <-timer.C:
			case <-f.dead:
			}
			return
		default:
			return
		}
	}
}
