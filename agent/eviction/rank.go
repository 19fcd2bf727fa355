package eviction

import (
	"cmp"
	"slices"

	v1 "k8s.io/api/core/v1"
	resourcehelper "k8s.io/component-helpers/resource"
	stats "k8s.io/kubelet/pkg/apis/stats/v1alpha1"
)

// parts of a pod's disk usage.
type parts struct{ root, logs, volumes bool }

// partsOf tells which of a pod's files are on the file system a signal is about.
func partsOf(signal string, dedicatedImageFs bool) parts {
	switch {
	case !dedicatedImageFs:
		return parts{root: true, logs: true, volumes: true}
	case signal == nodefsAvailable || signal == nodefsInodes:
		return parts{logs: true, volumes: true}
	}
	return parts{root: true}
}

// rank orders pods by who is evicted first: who uses more than it asked for, then the lowest priority, then
// the most beyond what it asked for. A pod that could not be measured comes first.
func rank(pods []*v1.Pod, used map[string]*stats.PodStats, signal string, dedicatedImageFs bool) {
	type standing struct {
		unknown, exceeds int
		priority         int32
		beyond           int64
	}
	flag := func(b bool) int {
		if b {
			return 0
		}
		return 1
	}
	of := map[*v1.Pod]standing{}
	for _, pod := range pods {
		s := standing{priority: priority(pod)}
		u, known := used[string(pod.UID)]
		s.unknown = flag(!known)
		if known {
			amount := usageOf(pod, u, signal, dedicatedImageFs)
			request := requestOf(pod, signal)
			s.exceeds, s.beyond = flag(amount > request), amount-request
			if signal == pidAvailable {
				s.exceeds = 0
			}
		}
		of[pod] = s
	}
	slices.SortStableFunc(pods, func(a, b *v1.Pod) int {
		x, y := of[a], of[b]
		return cmp.Or(x.unknown-y.unknown, x.exceeds-y.exceeds, cmp.Compare(x.priority, y.priority), cmp.Compare(y.beyond, x.beyond))
	})
}

// requestOf is what the pod asked for of what a signal is about. Nobody asks for inodes or process ids.
func requestOf(pod *v1.Pod, signal string) int64 {
	name := resourceOf(signal)
	if name != v1.ResourceMemory && name != v1.ResourceEphemeralStorage {
		return 0
	}
	requests := resourcehelper.PodRequests(pod, resourcehelper.PodResourcesOptions{})
	q := requests[name]
	return q.Value()
}

func usageOf(pod *v1.Pod, u *stats.PodStats, signal string, dedicatedImageFs bool) int64 {
	switch resourceOf(signal) {
	case v1.ResourceMemory:
		if u.Memory == nil {
			return 0
		}
		return number(u.Memory.WorkingSetBytes)
	case resourcePids:
		if u.ProcessStats == nil {
			return 0
		}
		return number(u.ProcessStats.ProcessCount)
	case resourceInodes:
		_, inodes := diskOf(pod, u, partsOf(signal, dedicatedImageFs))
		return inodes
	}
	bytes, _ := diskOf(pod, u, partsOf(signal, dedicatedImageFs))
	return bytes
}

// diskOf adds up what a pod has on a file system.
func diskOf(pod *v1.Pod, u *stats.PodStats, p parts) (bytes, inodes int64) {
	add := func(fs *stats.FsStats) {
		if fs != nil {
			bytes += number(fs.UsedBytes)
			inodes += number(fs.InodesUsed)
		}
	}
	for i := range u.Containers {
		if p.root {
			add(u.Containers[i].Rootfs)
		}
		if p.logs {
			add(u.Containers[i].Logs)
		}
	}
	if !p.volumes {
		return bytes, inodes
	}
	for i := range u.VolumeStats {
		if local(pod, u.VolumeStats[i].Name) {
			add(&u.VolumeStats[i].FsStats)
		}
	}
	return bytes, inodes
}

// local reports whether a volume is kept on the node's own disk.
func local(pod *v1.Pod, name string) bool {
	for i := range pod.Spec.Volumes {
		if v := &pod.Spec.Volumes[i]; v.Name == name {
			return v.HostPath != nil || v.ConfigMap != nil || v.Secret != nil || v.DownwardAPI != nil || v.Projected != nil ||
				(v.EmptyDir != nil && v.EmptyDir.Medium == v1.StorageMediumDefault)
		}
	}
	return false
}

func priority(pod *v1.Pod) int32 {
	if pod.Spec.Priority == nil {
		return 0
	}
	return *pod.Spec.Priority
}

func number(n *uint64) int64 {
	if n == nil {
		return 0
	}
	return int64(*n)
}
