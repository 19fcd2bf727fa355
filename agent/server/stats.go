package server

import (
	"bufio"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	stats "k8s.io/kubelet/pkg/apis/stats/v1alpha1"
	kubelettypes "k8s.io/kubelet/pkg/types"
)

// summary answers with what the node and its pods use.
func (s *Server) summary(w http.ResponseWriter, r *http.Request) {
	containers, err := s.Runtime.ListContainerStats(r.Context(), nil)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	now := metav1.NewTime(time.Now())
	summary := stats.Summary{Node: stats.NodeStats{NodeName: s.NodeName, CPU: nodeCPU(now), Memory: nodeMemory(now), Fs: fileSystem(s.RootDir, now)}}
	started := map[string]metav1.Time{}
	for _, pod := range s.Pods.Pods() {
		if pod.Status.StartTime != nil {
			started[string(pod.UID)] = *pod.Status.StartTime
		}
	}
	byPod := map[string]*stats.PodStats{}
	var order []string
	for _, c := range containers {
		labels := c.GetAttributes().GetLabels()
		uid := labels[kubelettypes.KubernetesPodUIDLabel]
		pod := byPod[uid]
		if pod == nil {
			pod = &stats.PodStats{
				PodRef:    stats.PodReference{Name: labels[kubelettypes.KubernetesPodNameLabel], Namespace: labels[kubelettypes.KubernetesPodNamespaceLabel], UID: uid},
				StartTime: started[uid], CPU: &stats.CPUStats{Time: now, UsageNanoCores: new(uint64), UsageCoreNanoSeconds: new(uint64)},
				Memory: &stats.MemoryStats{Time: now, WorkingSetBytes: new(uint64), UsageBytes: new(uint64), RSSBytes: new(uint64)},
			}
			byPod[uid] = pod
			order = append(order, uid)
		}
		one := containerStats(c)
		pod.Containers = append(pod.Containers, one)
		add(pod.CPU.UsageNanoCores, one.CPU.UsageNanoCores)
		add(pod.CPU.UsageCoreNanoSeconds, one.CPU.UsageCoreNanoSeconds)
		add(pod.Memory.WorkingSetBytes, one.Memory.WorkingSetBytes)
		add(pod.Memory.UsageBytes, one.Memory.UsageBytes)
		add(pod.Memory.RSSBytes, one.Memory.RSSBytes)
	}
	for _, uid := range order {
		summary.Pods = append(summary.Pods, *byPod[uid])
	}
	writeJSON(w, &summary)
}

func add(sum, part *uint64) {
	if part != nil {
		*sum += *part
	}
}

func containerStats(c *runtimeapi.ContainerStats) stats.ContainerStats {
	value := func(v *runtimeapi.UInt64Value) *uint64 {
		if v == nil {
			return nil
		}
		n := v.GetValue()
		return &n
	}
	return stats.ContainerStats{
		Name: c.GetAttributes().GetLabels()[kubelettypes.KubernetesContainerNameLabel],
		CPU: &stats.CPUStats{
			Time: metav1.NewTime(time.Unix(0, c.GetCpu().GetTimestamp())), UsageNanoCores: value(c.GetCpu().GetUsageNanoCores()),
			UsageCoreNanoSeconds: value(c.GetCpu().GetUsageCoreNanoSeconds()),
		},
		Memory: &stats.MemoryStats{
			Time: metav1.NewTime(time.Unix(0, c.GetMemory().GetTimestamp())), WorkingSetBytes: value(c.GetMemory().GetWorkingSetBytes()),
			UsageBytes: value(c.GetMemory().GetUsageBytes()), RSSBytes: value(c.GetMemory().GetRssBytes()), AvailableBytes: value(c.GetMemory().GetAvailableBytes()),
		},
		Rootfs: &stats.FsStats{UsedBytes: value(c.GetWritableLayer().GetUsedBytes()), InodesUsed: value(c.GetWritableLayer().GetInodesUsed())},
	}
}

// nodeCPU is the time all processors were busy, from /proc/stat.
func nodeCPU(now metav1.Time) *stats.CPUStats {
	data, err := os.ReadFile("/proc/stat")
	if err != nil {
		return nil
	}
	line, _, _ := strings.Cut(string(data), "\n")
	var busy uint64
	for i, field := range strings.Fields(line) {
		// user, nice, system, then irq, softirq, steal; idle and iowait are 4 and 5.
		if i == 0 || i == 4 || i == 5 || i > 8 {
			continue
		}
		if n, err := strconv.ParseUint(field, 10, 64); err == nil {
			busy += n
		}
	}
	const nanosPerTick = 1e9 / 100
	total := busy * nanosPerTick
	return &stats.CPUStats{Time: now, UsageCoreNanoSeconds: &total}
}

func nodeMemory(now metav1.Time) *stats.MemoryStats {
	f, err := os.Open("/proc/meminfo")
	if err != nil {
		return nil
	}
	defer f.Close()
	values := map[string]uint64{}
	scanner := bufio.NewScanner(f)
	for scanner.Scan() {
		if fields := strings.Fields(scanner.Text()); len(fields) >= 2 {
			if n, err := strconv.ParseUint(fields[1], 10, 64); err == nil {
				values[fields[0]] = n << 10
			}
		}
	}
	available := values["MemAvailable:"]
	used, working, rss := values["MemTotal:"]-values["MemFree:"], values["MemTotal:"]-available, values["AnonPages:"]
	return &stats.MemoryStats{Time: now, AvailableBytes: &available, UsageBytes: &used, WorkingSetBytes: &working, RSSBytes: &rss}
}

func fileSystem(dir string, now metav1.Time) *stats.FsStats {
	var disk unix.Statfs_t
	if err := unix.Statfs(dir, &disk); err != nil {
		return nil
	}
	size := uint64(disk.Bsize)
	available, capacity, used := disk.Bavail*size, disk.Blocks*size, (disk.Blocks-disk.Bfree)*size
	inodes, free := disk.Files, disk.Ffree
	inodesUsed := inodes - free
	return &stats.FsStats{Time: now, AvailableBytes: &available, CapacityBytes: &capacity, UsedBytes: &used, Inodes: &inodes, InodesFree: &free, InodesUsed: &inodesUsed}
}
