// Package faultfs is a disk in memory that fails the way disks fail: it forgets
// on a loss of power what was not synced, files and names alike, tears what was
// being written, flips bits, fills up, hangs, and lies about having synced.
//
// A Disk is the platter and outlives processes. A process mounts it and uses
// the FS it gets. In a test a process that was killed still has goroutines; from
// then on they have a copy of the disk for themselves, in good order, so that
// they can come to their end without anybody noticing.
package faultfs

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
)

// Disk is one machine's disk. Its methods may be called by any goroutine.
type Disk struct {
	mu      sync.Mutex // guards all below and every inode; never held while waiting
	dirs    map[string]*directory
	mounted *FS
	locks   map[string]*FS
	faults  faults
	counts  Counts
}

// Counts says what the disk was asked for, to see what a test did.
type Counts struct {
	Syncs, Writes, Refused, PowerLosses int
}

// directory has names as processes see them and as the platter has them.
type directory struct {
	seen, durable map[string]*inode
	pending       []change // what SyncDir has yet to make durable, in order
}

// change is one atomic change of names: a creation, a removal or a renaming.
type change struct {
	add, remove string
	node        *inode
}

func (c change) apply(names map[string]*inode) {
	if c.remove != "" {
		delete(names, c.remove)
	}
	if c.add != "" {
		names[c.add] = c.node
	}
}

// inode has a file's content as processes see it and as the platter has it.
type inode struct {
	seen, durable []byte
	pending       []write // what Sync has yet to make durable, in order
}

// write is one unsynced change of content: bytes at an offset, or a new length.
type write struct {
	offset   int64
	data     []byte
	truncate bool // the length becomes offset
}

func (w write) apply(content []byte) []byte {
	if w.truncate {
		return resized(content, w.offset)
	}
	if end := w.offset + int64(len(w.data)); end > int64(len(content)) {
		content = resized(content, end)
	}
	copy(content[w.offset:], w.data)
	return content
}

func resized(content []byte, size int64) []byte {
	if size <= int64(len(content)) {
		return content[:size:size]
	}
	return append(content, make([]byte, size-int64(len(content)))...)
}

// New makes an empty disk.
func New() *Disk {
	return &Disk{dirs: map[string]*directory{"/": newDirectory()}, locks: map[string]*FS{}}
}

func newDirectory() *directory {
	return &directory{seen: map[string]*inode{}, durable: map[string]*inode{}}
}

// Mount gives the disk to a process. One process at a time has it.
func (d *Disk) Mount() *FS {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.unmount()
	d.mounted = &FS{dead: make(chan struct{})}
	d.mounted.disk.Store(d)
	return d.mounted
}

// Kill ends the process that has the disk, as kill -9 does: what it wrote stays
// in the page cache, what it was syncing is synced some time later.
func (d *Disk) Kill() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.unmount()
}

// unmount takes the disk from its process, which keeps the inodes and names; the
// living get copies. The caller holds mu.
func (d *Disk) unmount() {
	if d.mounted == nil {
		return
	}
	copies := map[*inode]*inode{}
	for _, dir := range d.dirs {
		for _, n := range dir.inodes() {
			if copies[n] == nil {
				copies[n] = &inode{seen: slices.Clone(n.seen), durable: slices.Clone(n.durable), pending: slices.Clone(n.pending)}
			}
		}
	}
	dirs := map[string]*directory{}
	for path, dir := range d.dirs {
		fresh := newDirectory()
		for name, n := range dir.seen {
			fresh.seen[name] = copies[n]
		}
		for name, n := range dir.durable {
			fresh.durable[name] = copies[n]
		}
		for _, c := range dir.pending {
			fresh.pending = append(fresh.pending, change{add: c.add, remove: c.remove, node: copies[c.node]})
		}
		dirs[path] = fresh
	}
	d.mounted.disk.Store(&Disk{dirs: d.dirs, locks: d.locks})
	close(d.mounted.dead)
	d.mounted, d.dirs, d.locks = nil, dirs, map[string]*FS{}
}

// inodes are all files a directory knows of.
func (dir *directory) inodes() []*inode {
	var all []*inode
	for _, n := range dir.seen {
		all = append(all, n)
	}
	for _, n := range dir.durable {
		all = append(all, n)
	}
	for _, c := range dir.pending {
		if c.node != nil {
			all = append(all, c.node)
		}
	}
	return all
}

// PowerLoss ends the process and forgets what was not synced. Of the unsynced
// writes and names some survive, whole or torn in sectors, as a disk's cache
// would have it; r decides which.
func (d *Disk) PowerLoss(r *rand.Rand) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.unmount()
	d.counts.PowerLosses++
	luck := r.IntN(4) // in quarters, how much of what was not synced survives
	for _, path := range sorted(d.dirs) {
		dir := d.dirs[path]
		for _, c := range dir.pending {
			if r.IntN(4) < luck {
				c.apply(dir.durable)
			}
		}
		dir.pending = nil
		dir.seen = map[string]*inode{}
		for _, name := range sorted(dir.durable) {
			node := dir.durable[name]
			node.lose(r, luck)
			dir.seen[name] = node
		}
	}
}

const sector = 512

func (n *inode) lose(r *rand.Rand, luck int) {
	for _, w := range n.pending {
		switch {
		case r.IntN(4) < luck:
			n.durable = w.apply(n.durable)
		case w.truncate || luck == 0 || r.IntN(2) == 0:
		default: // torn: any of its sectors
			for at := 0; at < len(w.data); at += sector {
				if r.IntN(2) == 0 {
					piece := write{offset: w.offset + int64(at), data: w.data[at:min(at+sector, len(w.data))]}
					n.durable = piece.apply(n.durable)
				}
			}
		}
	}
	n.pending = nil
	n.seen = slices.Clone(n.durable)
}

// sync makes the content durable. The caller holds Disk.mu.
func (n *inode) sync() {
	for _, w := range n.pending {
		n.durable = w.apply(n.durable)
	}
	n.pending = nil
}

// Wipe empties the disk, as a person does before a member joins again. No
// process may have it.
func (d *Disk) Wipe() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.unmount()
	d.dirs = map[string]*directory{"/": newDirectory()}
}

// Files lists the paths of the files whose path contains part, sorted.
func (d *Disk) Files(part string) []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	var paths []string
	for path, dir := range d.dirs {
		for name := range dir.seen {
			if full := filepath.Join(path, name); strings.Contains(full, part) {
				paths = append(paths, full)
			}
		}
	}
	slices.Sort(paths)
	return paths
}

// FlipBit flips one bit within the part of a file that has content (trailing
// zeros are room, not content), on the platter and in the page cache.
func (d *Disk) FlipBit(r *rand.Rand, path string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	node, _, err := d.find(path)
	if err != nil {
		return err
	}
	used := len(node.seen)
	for used > 0 && node.seen[used-1] == 0 {
		used--
	}
	if used == 0 {
		return fmt.Errorf("flip a bit of %s: it is empty", path)
	}
	node.sync()
	at := r.IntN(used)
	node.durable[at] ^= 1 << r.IntN(8)
	node.seen = slices.Clone(node.durable)
	return nil
}

// Delete removes a file behind its owner's back.
func (d *Disk) Delete(path string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	_, dir, err := d.find(path)
	if err != nil {
		return err
	}
	name := filepath.Base(path)
	delete(dir.seen, name)
	delete(dir.durable, name)
	return nil
}

// find looks a file up as processes see it. The caller holds mu.
func (d *Disk) find(path string) (*inode, *directory, error) {
	dir := d.dirs[filepath.Dir(path)]
	if dir == nil || dir.seen[filepath.Base(path)] == nil {
		return nil, dir, &os.PathError{Op: "open", Path: path, Err: os.ErrNotExist}
	}
	return dir.seen[filepath.Base(path)], dir, nil
}

// Counts says what was asked so far.
func (d *Disk) Counts() Counts {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.counts
}

func sorted[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}
