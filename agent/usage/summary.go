package usage

import (
	"context"
	"path/filepath"
	"time"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	stats "k8s.io/kubelet/pkg/apis/stats/v1alpha1"

	"github.com/skiff-run/skiff/runtime"
	"github.com/skiff-run/skiff/runtime/cgroup"
)

// Summary is the answer of /stats/summary. With brief it has CPU and memory alone.
func (c *Collector) Summary(ctx context.Context, brief bool) *stats.Summary {
	pods := map[types.UID]*v1.Pod{}
	present := map[types.UID]bool{}
	for _, pod := range c.Pods.Pods() {
		pods[pod.UID], present[pod.UID] = pod, true
	}
	disks := c.disks(ctx, brief)
	s := &stats.Summary{Node: c.nodeStats(brief, disks), Pods: []stats.PodStats{}}
	for _, used := range c.Runtime.Usage(ctx, !brief) {
		s.Pods = append(s.Pods, c.podStats(used, pods[types.UID(used.UID)], brief, disks))
	}
	c.forget(present)
	return s
}

// disks are the file systems figures are given of; nil where one cannot be asked.
type disks struct {
	node, image *disk
	// images takes a part of image.
	imageBytes, imageInodes uint64
}

func (c *Collector) disks(ctx context.Context, brief bool) disks {
	var d disks
	if brief {
		return d
	}
	if fs, err := statfs(c.RootDir); err == nil {
		d.node = &fs
	}
	info, err := c.Runtime.ImageFsInfo(ctx)
	if err != nil || len(info.GetImageFilesystems()) == 0 {
		return d
	}
	image := info.GetImageFilesystems()[0]
	if fs, err := statfs(image.GetFsId().GetMountpoint()); err == nil {
		d.image = &fs
	}
	d.imageBytes, d.imageInodes = value(image.GetUsedBytes()), value(image.GetInodesUsed())
	return d
}

func value(v *runtimeapi.UInt64Value) uint64 { return v.GetValue() }

func (c *Collector) nodeStats(brief bool, disks disks) stats.NodeStats {
	n := c.nodeUsage()
	now := metav1.NewTime(n.at)
	available := n.memory - min(n.memory, n.workingSet)
	node := stats.NodeStats{
		NodeName: c.NodeName, StartTime: bootTime(), SystemContainers: c.systemContainers(now),
		CPU: &stats.CPUStats{Time: now, UsageCoreNanoSeconds: &n.cpu, PSI: pressure(cgroup.ReadPressure("/proc/pressure/cpu"))},
		Memory: &stats.MemoryStats{
			Time: now, AvailableBytes: &available, UsageBytes: &n.used, WorkingSetBytes: &n.workingSet, RSSBytes: &n.rss,
			PSI: pressure(cgroup.ReadPressure("/proc/pressure/memory")),
		},
		IO: &stats.IOStats{Time: now, PSI: pressure(cgroup.ReadPressure("/proc/pressure/io"))},
	}
	if n.window > 0 {
		node.CPU.UsageNanoCores = &n.nanoCores
	}
	swapFree := n.swap - n.swapUsed
	node.Swap = &stats.SwapStats{Time: now, SwapAvailableBytes: &swapFree, SwapUsageBytes: &n.swapUsed}
	if brief {
		node.IO = nil
		return node
	}
	node.Network = nodeNetwork(now)
	node.Rlimit = processIDs(now)
	if disks.node != nil {
		node.Fs = disks.node.stats(now)
	}
	if disks.image != nil {
		images := disks.image.part(now, disks.imageBytes, disks.imageInodes)
		node.Runtime = &stats.RuntimeStats{ImageFs: images, ContainerFs: images}
	}
	return node
}

func nodeNetwork(now metav1.Time) *stats.NetworkStats {
	network := &stats.NetworkStats{Time: now}
	first := defaultLink("/proc/self/net/route")
	for _, l := range links("/proc/self/net/dev") {
		one := stats.InterfaceStats{Name: l.name, RxBytes: &l.rxBytes, RxErrors: &l.rxErrors, TxBytes: &l.txBytes, TxErrors: &l.txErrors}
		if l.name == first {
			network.InterfaceStats = one
		}
		network.Interfaces = append(network.Interfaces, one)
	}
	return network
}

// systemContainers are the pods together and this agent.
func (c *Collector) systemContainers(now metav1.Time) []stats.ContainerStats {
	var list []stats.ContainerStats
	if used, err := c.tierUsage(c.Cgroups.Tiers()[0]); err == nil {
		list = append(list, stats.ContainerStats{Name: stats.SystemContainerPods, CPU: cpuStats(&used), Memory: memoryStats(&used)})
	}
	cpu := selfCPU()
	rate, window := c.self.Since(now.Time, cpu, c.started)
	resident, anonymous := selfMemory()
	self := stats.ContainerStats{
		Name: stats.SystemContainerKubelet, StartTime: metav1.NewTime(c.started), CPU: &stats.CPUStats{Time: now, UsageCoreNanoSeconds: &cpu},
		Memory: &stats.MemoryStats{Time: now, UsageBytes: &resident, WorkingSetBytes: &resident, RSSBytes: &anonymous},
	}
	if window > 0 {
		self.CPU.UsageNanoCores = &rate
	}
	return append(list, self)
}

// tierUsage is what a group of pods uses.
func (c *Collector) tierUsage(name string) (runtime.Usage, error) {
	detail, err := c.Cgroups.Detail(name)
	if err != nil {
		return runtime.Usage{}, err
	}
	used := runtime.Usage{At: time.Now(), Detail: detail}
	used.NanoCores, used.Window = c.tiers[c.Cgroups.Path(name)].Since(used.At, detail.CPUNanoseconds, time.Time{})
	return used, nil
}

func cpuStats(u *runtime.Usage) *stats.CPUStats {
	s := &stats.CPUStats{Time: metav1.NewTime(u.At), UsageCoreNanoSeconds: &u.CPUNanoseconds, PSI: pressure(u.CPUPressure)}
	if u.Window > 0 {
		s.UsageNanoCores = &u.NanoCores
	}
	return s
}

func memoryStats(u *runtime.Usage) *stats.MemoryStats {
	s := &stats.MemoryStats{
		Time: metav1.NewTime(u.At), UsageBytes: &u.MemoryUsage, WorkingSetBytes: &u.WorkingSet, RSSBytes: &u.RSS,
		PageFaults: &u.PageFaults, MajorPageFaults: &u.MajorPageFaults, PSI: pressure(u.MemoryPressure),
	}
	if u.MemoryLimit > 0 {
		available := u.MemoryLimit - min(u.MemoryLimit, u.WorkingSet)
		s.AvailableBytes = &available
	}
	return s
}

func swapStats(u *runtime.Usage) *stats.SwapStats {
	s := &stats.SwapStats{Time: metav1.NewTime(u.At), SwapUsageBytes: &u.SwapUsage}
	if u.SwapLimit > 0 {
		available := u.SwapLimit - min(u.SwapLimit, u.SwapUsage)
		s.SwapAvailableBytes = &available
	}
	return s
}

func ioStats(u *runtime.Usage) *stats.IOStats {
	if u.IOPressure == nil {
		return nil
	}
	return &stats.IOStats{Time: metav1.NewTime(u.At), PSI: pressure(u.IOPressure)}
}

func (c *Collector) podStats(used runtime.PodUsage, pod *v1.Pod, brief bool, disks disks) stats.PodStats {
	at := metav1.NewTime(used.At)
	s := stats.PodStats{
		PodRef: stats.PodReference{Name: used.Name, Namespace: used.Namespace, UID: used.UID}, StartTime: metav1.NewTime(used.StartedAt), Containers: []stats.ContainerStats{},
	}
	if pod != nil && pod.Status.StartTime != nil {
		s.StartTime = *pod.Status.StartTime
	}
	if used.Cgroup != "" {
		s.CPU, s.Memory = cpuStats(&used.Usage), memoryStats(&used.Usage)
		if !brief {
			s.IO, s.Swap, s.ProcessStats = ioStats(&used.Usage), swapStats(&used.Usage), &stats.ProcessStats{ProcessCount: &used.Processes}
		}
	}
	var bytes, inodes uint64
	for i := range used.Containers {
		container := containerStats(&used.Containers[i], brief, disks)
		for _, part := range []*stats.FsStats{container.Rootfs, container.Logs} {
			if part != nil && part.UsedBytes != nil {
				bytes += *part.UsedBytes
				inodes += *part.InodesUsed
			}
		}
		s.Containers = append(s.Containers, container)
	}
	if brief {
		return s
	}
	if t := used.Traffic; t != nil {
		link := stats.InterfaceStats{Name: "eth0", RxBytes: &t.RxBytes, RxErrors: &t.RxErrors, TxBytes: &t.TxBytes, TxErrors: &t.TxErrors}
		s.Network = &stats.NetworkStats{Time: at, InterfaceStats: link, Interfaces: []stats.InterfaceStats{link}}
	}
	if pod != nil {
		volumes := c.volumeStats(pod)
		s.VolumeStats = volumes.list
		bytes += volumes.ephemeralBytes
		inodes += volumes.ephemeralInodes
	}
	if disks.node != nil {
		s.EphemeralStorage = disks.node.part(at, bytes, inodes)
	}
	return s
}

func containerStats(used *runtime.ContainerUsage, brief bool, disks disks) stats.ContainerStats {
	at := metav1.NewTime(used.At)
	s := stats.ContainerStats{Name: used.Name, StartTime: metav1.NewTime(used.StartedAt), CPU: cpuStats(&used.Usage), Memory: memoryStats(&used.Usage)}
	if brief {
		return s
	}
	s.IO, s.Swap = ioStats(&used.Usage), swapStats(&used.Usage)
	if disks.image != nil && !used.Layer.At.IsZero() {
		s.Rootfs = disks.image.part(metav1.NewTime(used.Layer.At), used.Layer.Bytes, used.Layer.Inodes)
	}
	if used.LogPath != "" {
		dir := filepath.Dir(used.LogPath)
		if fs, err := statfs(dir); err == nil {
			bytes, inodes := treeSize(dir)
			s.Logs = fs.part(at, bytes, inodes)
		}
	}
	return s
}
