package check

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/skiff-run/skiff/internal/operator"
)

const (
	// measureFor bounds the measurement of the store's disk.
	measureFor = 1500 * time.Millisecond
	// writeSize is about what one small object of the API takes in the log.
	writeSize = 2 << 10
	// Write times at the 99th percentile: up to quickWrite a disk is fit for a
	// store; beyond slowWrite the store itself calls it slow and gives leadership
	// away (raftstore's default of TardyWrite).
	quickWrite = 10 * time.Millisecond
	slowWrite  = 200 * time.Millisecond
	// leastFree and goodFree are the free bytes of the store's file system.
	leastFree = 512 * mebibyte
	goodFree  = 2048 * mebibyte
)

// space is how full a file system is.
type space struct {
	size, free int64
	// inodes is 0 where the file system makes them as it needs them.
	inodes, freeInodes int64
	readOnly           bool
}

func statfs(path string) (space, error) {
	var s unix.Statfs_t
	if err := unix.Statfs(path, &s); err != nil {
		return space{}, err
	}
	return space{
		size: int64(s.Blocks) * s.Bsize, free: int64(s.Bavail) * s.Bsize, inodes: int64(s.Files), freeInodes: int64(s.Ffree),
		readOnly: s.Flags&unix.ST_RDONLY != 0,
	}, nil
}

// folders of the machine whose file systems matter.
func (e *examination) folders() []folder {
	all := []folder{
		{"pods' volumes", e.agent.RootDir, 10, 5, "pods are evicted from this node"},
		{"pods' logs", e.agent.PodLogsDir, 10, 5, "pods are evicted from this node"},
		{"images", e.containerdRoot(), 15, 5, "images are removed, then pods are evicted from this node"},
	}
	if e.role == operator.Control {
		all = append([]folder{{name: "store", path: e.control.DataDir}}, all...)
	}
	return all
}

// folder is one, with the shares in percent below which the agent's defaults
// call for eviction.
type folder struct {
	name, path         string
	bytesPct, nodesPct int64
	low                string
}

// containerdRoot is where a containerd keeps images unless configured otherwise.
func (e *examination) containerdRoot() string {
	if e.Root != "/" {
		return filepath.Join(e.Root, "var/lib/containerd")
	}
	return "/var/lib/containerd"
}

// existing is the path or the nearest folder above it that is there already,
// on whose file system it will be made.
func (h *host) existing(path string) string {
	for !h.exists(path) && path != "/" {
		path = filepath.Dir(path)
	}
	return path
}

func checkDisk(ctx context.Context, e *examination) {
	told := map[string]bool{}
	for _, f := range e.folders() {
		there := e.existing(f.path)
		m := e.mountOf(there)
		if f.name == "store" {
			e.fileSystem(m)
		} else if told[m.point] {
			continue // one file system for several folders
		}
		told[m.point] = true
		s, err := e.space(e.path(there))
		if err != nil {
			if e.privileged || !errors.Is(err, os.ErrPermission) {
				e.warn(f.name, "its file system cannot be looked at: "+err.Error())
			}
			continue
		}
		e.fullness(f, m, s)
	}
	if e.role == operator.Control && e.rootOnly("the speed of the store's disk") {
		e.speed(ctx)
	}
}

func (e *examination) fullness(f folder, m mount, s space) {
	name := f.name + " space"
	where := fmt.Sprintf("%s free of %s at %s", size(s.free), size(s.size), m.point)
	remedy := fmt.Sprintf("du -xh --max-depth=2 %s | sort -h | tail   # what takes it", m.point)
	bytesLow := s.size > 0 && s.free*100 < s.size*f.bytesPct
	inodesLow := s.inodes > 0 && s.freeInodes*100 < s.inodes*f.nodesPct
	switch {
	case s.readOnly:
		e.fail(name, m.point+" is mounted read-only", "mount -o remount,rw "+m.point+"   # after a look into dmesg: a broken disk is made read-only by the kernel")
	case f.name == "store" && s.free < leastFree:
		e.fail(name, where+": the store ends its work when the disk is full", remedy)
	case f.name == "store" && s.inodes > 0 && s.freeInodes < 1000:
		e.fail(name, fmt.Sprintf("%d inodes free at %s: the store cannot make files", s.freeInodes, m.point), remedy)
	case f.name == "store" && s.free < goodFree:
		e.warn(name, where+": log, snapshots and what pods write need room", remedy)
	case bytesLow:
		e.fail(name, fmt.Sprintf("%s, less than %d %%: %s", where, f.bytesPct, f.low), remedy)
	case inodesLow:
		e.fail(name, fmt.Sprintf("%d of %d inodes free at %s: %s", s.freeInodes, s.inodes, m.point, f.low), remedy)
	case s.free < goodFree:
		e.warn(name, where+": little for images and what pods write", remedy)
	default:
		e.ok(name, "%s", where)
	}
}

// fileSystem judges where the store will lie.
func (e *examination) fileSystem(m mount) {
	switch m.fileSystem {
	case "tmpfs", "ramfs":
		e.fail("store file system", fmt.Sprintf("%s at %s: the store is gone after a reboot", m.fileSystem, m.point), "umount "+m.point+"   # or mount a disk at "+e.control.DataDir)
	case "nfs", "nfs4", "cifs", "9p", "ceph", "fuse", "fuse.sshfs", "fuse.glusterfs", "vboxsf":
		e.warn("store file system", fmt.Sprintf("%s at %s: a network's delays become the store's, and such file systems do not always keep what they confirmed", m.fileSystem, m.point),
			"mkdir -p "+e.control.DataDir+" && mount /dev/DISK "+e.control.DataDir+"   # a local disk")
	case "overlay", "aufs":
		e.warn("store file system", fmt.Sprintf("%s at %s, as in a container: it is gone with that", m.fileSystem, m.point), "mount --bind /SOME/DISK "+e.control.DataDir)
	case "":
		return
	default:
		e.ok("store file system", "%s at %s", m.fileSystem, m.point)
	}
}

// speed measures what every write to the API waits for.
func (e *examination) speed(ctx context.Context) {
	there := e.existing(e.control.DataDir)
	took, err := e.syncs(ctx, e.path(there), measureFor)
	if err != nil || len(took) == 0 {
		e.warn("store disk speed", fmt.Sprintf("cannot be measured in %s: %v", there, err))
		return
	}
	slices.Sort(took)
	median, p99 := took[len(took)/2], took[(len(took)-1)*99/100]
	found := fmt.Sprintf("fdatasync takes %s, at most %s for 99 of 100, of %d in %s", round(median), round(p99), len(took), there)
	remedy := "iostat -x 2 5   # who writes; else give the store a disk of its own: mount it at " + e.control.DataDir
	switch {
	case p99 > slowWrite:
		e.fail("store disk speed", found+": too slow. Writes to the API wait that long, and a leader on this disk gives leadership away; with such disks on a majority of machines the store has no steady leader", remedy)
	case p99 > quickWrite:
		e.warn("store disk speed", found+": slow. The cluster works, and every write to the API waits that long; beyond "+slowWrite.String()+" leaders change", remedy)
	default:
		e.ok("store disk speed", "%s", found)
	}
}

func round(d time.Duration) time.Duration {
	if d > 10*time.Millisecond {
		return d.Round(time.Millisecond)
	}
	return d.Round(10 * time.Microsecond)
}

// measureSyncs writes to a file without a name, which is gone with the process
// that has it open, and waits after each write until the disk has it.
func measureSyncs(ctx context.Context, folder string, limit time.Duration) ([]time.Duration, error) {
	file, err := nameless(folder)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	const (
		most = 2000
		// whole is the file's size: the log's files are made in full before they
		// are written, so that a write changes data alone.
		whole = 1 << 20
	)
	if err := unix.Fallocate(int(file.Fd()), 0, 0, whole); err != nil && !errors.Is(err, unix.EOPNOTSUPP) {
		return nil, fmt.Errorf("make room: %w", err)
	}
	block := make([]byte, writeSize)
	for i := range block {
		block[i] = byte(i*7 + 1) // not zero, which some disks do not write
	}
	var took []time.Duration
	end := time.Now().Add(limit)
	for i := 0; i < most && ctx.Err() == nil && time.Now().Before(end); i++ {
		begin := time.Now()
		if _, err := file.WriteAt(block, int64(i*writeSize%whole)); err != nil {
			return took, fmt.Errorf("write: %w", err)
		}
		if err := unix.Fdatasync(int(file.Fd())); err != nil {
			return took, fmt.Errorf("fdatasync: %w", err)
		}
		took = append(took, time.Since(begin))
	}
	return took, nil
}

func nameless(folder string) (*os.File, error) {
	fd, err := unix.Open(folder, unix.O_TMPFILE|unix.O_RDWR|unix.O_CLOEXEC, 0o600)
	if err == nil {
		return os.NewFile(uintptr(fd), folder), nil
	}
	if !errors.Is(err, unix.EOPNOTSUPP) && !errors.Is(err, unix.EISDIR) {
		return nil, fmt.Errorf("make a file in %s: %w", folder, err)
	}
	// Some file systems know no files without names.
	file, err := os.CreateTemp(folder, ".skiff-check-")
	if err != nil {
		return nil, err
	}
	return file, os.Remove(file.Name())
}
