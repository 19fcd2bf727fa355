package runtime

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/containerd/containerd/v2/core/snapshots"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/skiff-run/skiff/runtime/cgroup"
)

// sample is what was measured last, for rates and because measuring the layer walks its files.
type sample struct {
	at      time.Time
	cpu     uint64
	rate    uint64 // nanoseconds of CPU per second
	layerAt time.Time
	layer   snapshots.Usage
}

const (
	// minRate is the shortest time over which a rate is computed.
	minRate = time.Second
	// layerAge is how old the measure of the writable layer may be.
	layerAge = 30 * time.Second
)

// ContainerStats returns what a running container uses.
func (r *Runtime) ContainerStats(ctx context.Context, containerID string) (*runtimeapi.ContainerStats, error) {
	c, err := r.container(containerID)
	if err != nil {
		return nil, err
	}
	if c.currentState() != runtimeapi.ContainerState_CONTAINER_RUNNING {
		return nil, fmt.Errorf("stats of container %s: %w", c.id, ErrNotRunning)
	}
	return r.containerStats(ctx, c)
}

func (r *Runtime) containerStats(ctx context.Context, c *container) (*runtimeapi.ContainerStats, error) {
	used, err := r.cgroups.ContainerStats(c.facts.CgroupsPath)
	if err != nil {
		return nil, fmt.Errorf("stats of container %s: %w", c.id, err)
	}
	now := time.Now()
	c.mu.Lock()
	s := c.sample
	c.mu.Unlock()
	if passed := now.Sub(s.at); !s.at.IsZero() && passed >= minRate && used.CPUNanoseconds >= s.cpu {
		s.rate = uint64(float64(used.CPUNanoseconds-s.cpu) / passed.Seconds())
	}
	if s.at.IsZero() || now.Sub(s.at) >= minRate {
		s.at, s.cpu = now, used.CPUNanoseconds
	}
	if now.Sub(s.layerAt) > layerAge {
		// A layer that cannot be measured now keeps its last figure.
		if usage, err := r.client.SnapshotService(r.options.Snapshotter).Usage(ctx, c.id); err == nil {
			s.layer, s.layerAt = usage, now
		}
	}
	c.mu.Lock()
	c.sample = s
	c.mu.Unlock()
	stats := &runtimeapi.ContainerStats{
		Attributes: &runtimeapi.ContainerAttributes{
			Id: c.id, Metadata: c.facts.config.GetMetadata(), Labels: c.facts.config.GetLabels(), Annotations: c.facts.config.GetAnnotations(),
		},
		Cpu:    cpuUsage(now, used, s.rate),
		Memory: memoryUsage(now, used),
		Swap:   &runtimeapi.SwapUsage{Timestamp: now.UnixNano(), SwapUsageBytes: count(used.SwapUsage)},
	}
	if !s.layerAt.IsZero() {
		stats.WritableLayer = &runtimeapi.FilesystemUsage{
			Timestamp: s.layerAt.UnixNano(), FsId: &runtimeapi.FilesystemIdentifier{Mountpoint: r.imageFs},
			UsedBytes: count(uint64(s.layer.Size)), InodesUsed: count(uint64(s.layer.Inodes)),
		}
	}
	return stats, nil
}

func count(n uint64) *runtimeapi.UInt64Value { return &runtimeapi.UInt64Value{Value: n} }

func cpuUsage(now time.Time, s cgroup.Stats, rate uint64) *runtimeapi.CpuUsage {
	usage := &runtimeapi.CpuUsage{Timestamp: now.UnixNano(), UsageCoreNanoSeconds: count(s.CPUNanoseconds)}
	if rate > 0 {
		usage.UsageNanoCores = count(rate)
	}
	return usage
}

func memoryUsage(now time.Time, s cgroup.Stats) *runtimeapi.MemoryUsage {
	usage := &runtimeapi.MemoryUsage{
		Timestamp: now.UnixNano(), WorkingSetBytes: count(s.WorkingSet), UsageBytes: count(s.MemoryUsage), RssBytes: count(s.RSS),
		PageFaults: count(s.PageFaults), MajorPageFaults: count(s.MajorPageFaults),
	}
	if s.MemoryLimit > 0 {
		usage.AvailableBytes = count(s.MemoryLimit - min(s.MemoryLimit, s.WorkingSet))
	}
	return usage
}

// ListContainerStats returns what the running containers that match the filter use.
func (r *Runtime) ListContainerStats(ctx context.Context, filter *runtimeapi.ContainerStatsFilter) ([]*runtimeapi.ContainerStats, error) {
	var list []*runtimeapi.ContainerStats
	for _, c := range r.allContainers() {
		if c.currentState() != runtimeapi.ContainerState_CONTAINER_RUNNING || !strings.HasPrefix(c.id, filter.GetId()) ||
			!strings.HasPrefix(c.sandbox.id, filter.GetPodSandboxId()) || !selected(filter.GetLabelSelector(), c.facts.config.GetLabels()) {
			continue
		}
		// One that ends while it is measured is left out.
		if s, err := r.containerStats(ctx, c); err == nil {
			list = append(list, s)
		}
	}
	return list, nil
}

// PodSandboxStats returns what a pod uses.
func (r *Runtime) PodSandboxStats(ctx context.Context, podSandboxID string) (*runtimeapi.PodSandboxStats, error) {
	s, err := r.sandbox(podSandboxID)
	if err != nil {
		return nil, err
	}
	now := time.Now()
	stats := &runtimeapi.PodSandboxStats{
		Attributes: &runtimeapi.PodSandboxAttributes{
			Id: s.id, Metadata: s.config.GetMetadata(), Labels: s.config.GetLabels(), Annotations: s.config.GetAnnotations(),
		},
		Linux: &runtimeapi.LinuxPodSandboxStats{},
	}
	if stats.Linux.Containers, err = r.ListContainerStats(ctx, &runtimeapi.ContainerStatsFilter{PodSandboxId: s.id}); err != nil {
		return nil, err
	}
	// A pod that the agent gave no cgroup of its own has only its containers' figures.
	if used, err := r.cgroups.PodStats(s.config.GetMetadata().GetUid()); err == nil {
		var rate uint64
		for _, c := range stats.Linux.Containers {
			rate += c.GetCpu().GetUsageNanoCores().GetValue()
		}
		stats.Linux.Cpu, stats.Linux.Memory = cpuUsage(now, used, rate), memoryUsage(now, used)
		stats.Linux.Process = &runtimeapi.ProcessUsage{Timestamp: now.UnixNano(), ProcessCount: count(used.Processes)}
	}
	if !s.hostNetwork() {
		if t, err := r.network.PodTraffic(s.id); err == nil {
			stats.Linux.Network = &runtimeapi.NetworkUsage{Timestamp: now.UnixNano(), DefaultInterface: &runtimeapi.NetworkInterfaceUsage{
				Name: "eth0", RxBytes: count(t.RxBytes), RxErrors: count(t.RxErrors), TxBytes: count(t.TxBytes), TxErrors: count(t.TxErrors),
			}}
		}
	}
	return stats, nil
}

// ListPodSandboxStats returns what the pods that match the filter use.
func (r *Runtime) ListPodSandboxStats(ctx context.Context, filter *runtimeapi.PodSandboxStatsFilter) ([]*runtimeapi.PodSandboxStats, error) {
	var list []*runtimeapi.PodSandboxStats
	for _, s := range r.allSandboxes() {
		if s.state() != runtimeapi.PodSandboxState_SANDBOX_READY || !strings.HasPrefix(s.id, filter.GetId()) || !selected(filter.GetLabelSelector(), s.config.GetLabels()) {
			continue
		}
		stats, err := r.PodSandboxStats(ctx, s.id)
		if errors.Is(err, ErrNotFound) {
			continue
		}
		if err != nil {
			return nil, err
		}
		list = append(list, stats)
	}
	return list, nil
}
