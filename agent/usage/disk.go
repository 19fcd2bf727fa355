package usage

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	stats "k8s.io/kubelet/pkg/apis/stats/v1alpha1"
)

// volumesAge is how old the sizes of volumes usually may be.
const volumesAge = time.Minute

// measuredVolumes are the volumes of a pod.
type measuredVolumes struct {
	at   time.Time
	list []stats.VolumeStats
	// ephemeralBytes and ephemeralInodes are those of the volumes on the node's own disk.
	ephemeralBytes, ephemeralInodes uint64
}

// volumeStats measures a pod's volumes, unless that was done a moment ago.
func (c *Collector) volumeStats(pod *v1.Pod) *measuredVolumes {
	c.mu.Lock()
	known := c.volumes[pod.UID]
	c.mu.Unlock()
	if known != nil && time.Since(known.at) < c.VolumesAge {
		return known
	}
	m := &measuredVolumes{at: time.Now()}
	now := metav1.NewTime(m.at)
	for i := range pod.Spec.Volumes {
		v := &pod.Spec.Volumes[i]
		// Folders of the node are no volumes of the pod's own.
		if v.HostPath != nil || v.Image != nil {
			continue
		}
		dir, ok := c.Volumes.Path(pod, v.Name)
		if !ok {
			continue
		}
		if one, bytes, inodes, ok := volumeOf(dir, v, now); ok {
			one.PVCRef = claim(pod, v)
			m.list = append(m.list, one)
			m.ephemeralBytes += bytes
			m.ephemeralInodes += inodes
		}
	}
	c.mu.Lock()
	c.volumes[pod.UID] = m
	c.mu.Unlock()
	return m
}

// volumeOf measures one volume; bytes and inodes are what it takes of the node's own disk.
func volumeOf(dir string, v *v1.Volume, now metav1.Time) (one stats.VolumeStats, bytes, inodes uint64, ok bool) {
	fs, err := statfs(dir)
	if err != nil {
		return one, 0, 0, false
	}
	one.Name = v.Name
	if v.PersistentVolumeClaim != nil || v.Ephemeral != nil || v.CSI != nil || v.NFS != nil || v.ISCSI != nil || inMemory(dir) {
		one.FsStats = *fs.stats(now)
		return one, 0, 0, true
	}
	bytes, inodes = treeSize(dir)
	one.FsStats = *fs.part(now, bytes, inodes)
	return one, bytes, inodes, true
}

func claim(pod *v1.Pod, v *v1.Volume) *stats.PVCReference {
	switch {
	case v.PersistentVolumeClaim != nil:
		return &stats.PVCReference{Name: v.PersistentVolumeClaim.ClaimName, Namespace: pod.Namespace}
	case v.Ephemeral != nil:
		return &stats.PVCReference{Name: pod.Name + "-" + v.Name, Namespace: pod.Namespace}
	}
	return nil
}

func inMemory(dir string) bool {
	var fs unix.Statfs_t
	return unix.Statfs(dir, &fs) == nil && (fs.Type == unix.TMPFS_MAGIC || fs.Type == unix.HUGETLBFS_MAGIC)
}

// forget drops what is known of pods that are gone.
func (c *Collector) forget(present map[types.UID]bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for uid := range c.volumes {
		if !present[uid] {
			delete(c.volumes, uid)
		}
	}
}

// treeSize is what the files below dir take on its disk. A file with several
// names counts once; what vanishes meanwhile, or is mounted there, does not count.
func treeSize(dir string) (bytes, inodes uint64) {
	var device uint64
	seen := map[uint64]bool{}
	_ = filepath.WalkDir(dir, func(_ string, entry fs.DirEntry, err error) error {
		if err != nil {
			if errors.Is(err, os.ErrNotExist) {
				return nil
			}
			return fs.SkipDir
		}
		info, err := entry.Info()
		if err != nil {
			return nil
		}
		s, ok := info.Sys().(*syscall.Stat_t)
		if !ok {
			return nil
		}
		if device == 0 {
			device = s.Dev
		}
		if s.Dev != device {
			if entry.IsDir() {
				return fs.SkipDir
			}
			return nil
		}
		if s.Nlink > 1 && !entry.IsDir() {
			if seen[s.Ino] {
				return nil
			}
			seen[s.Ino] = true
		}
		bytes += uint64(s.Blocks) * 512
		inodes++
		return nil
	})
	return bytes, inodes
}
