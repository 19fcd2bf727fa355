package resources

import (
	"strings"

	"google.golang.org/protobuf/proto"
	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	resourcehelper "k8s.io/component-helpers/resource"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

const (
	minShares    = 2
	maxShares    = 262144
	sharesPerCPU = 1024
	milliPerCPU  = 1000

	// quotaPeriod is the CFS period in microseconds.
	quotaPeriod = 100000
	// minQuota is the least quota the kernel takes, in microseconds.
	minQuota = 1000
)

// Shares turns milli-CPU into cpu.shares.
func Shares(milliCPU int64) uint64 {
	if milliCPU == 0 {
		return minShares
	}
	shares := uint64(milliCPU * sharesPerCPU / milliPerCPU)
	return min(max(shares, minShares), maxShares)
}

// Quota turns a limit in milli-CPU into a CFS quota for the default period; 0
// means no limit.
func Quota(milliCPU int64) int64 {
	if milliCPU == 0 {
		return 0
	}
	return max(milliCPU*quotaPeriod/milliPerCPU, minQuota)
}

// ForContainer returns the cgroup settings of one container. memoryCapacity is
// the machine's memory in bytes.
func ForContainer(pod *v1.Pod, container *v1.Container, memoryCapacity int64) *runtimeapi.LinuxContainerResources {
	cpuRequest, hasRequest := container.Resources.Requests[v1.ResourceCPU]
	cpuLimit := limit(pod, container, v1.ResourceCPU)
	memoryLimit := limit(pod, container, v1.ResourceMemory)
	if !hasRequest && !cpuLimit.IsZero() {
		// A limit without request means the request equals it.
		cpuRequest = cpuLimit
	}
	r := &runtimeapi.LinuxContainerResources{
		CpuShares:          int64(Shares(cpuRequest.MilliValue())),
		CpuPeriod:          quotaPeriod,
		CpuQuota:           Quota(cpuLimit.MilliValue()),
		MemoryLimitInBytes: memoryLimit.Value(),
		OomScoreAdj:        OOMScoreAdj(pod, container, memoryCapacity),
	}
	r.HugepageLimits = hugepageLimits(pod, container)
	return r
}

// limit is the container's own, or else the pod's: no container may use more than its pod.
func limit(pod *v1.Pod, container *v1.Container, name v1.ResourceName) resource.Quantity {
	own := container.Resources.Limits[name]
	if own.IsZero() && pod.Spec.Resources != nil {
		return pod.Spec.Resources.Limits[name]
	}
	return own
}

// ForPod returns the settings of the pod's own cgroup, which bound the sum of
// its containers. Limits apply only when every container has one.
func ForPod(pod *v1.Pod) *runtimeapi.LinuxContainerResources {
	requests := resourcehelper.PodRequests(pod, resourcehelper.PodResourcesOptions{})
	cpu := requests[v1.ResourceCPU]
	r := &runtimeapi.LinuxContainerResources{CpuShares: int64(Shares(cpu.MilliValue())), CpuPeriod: quotaPeriod}
	if QOSClass(pod) == v1.PodQOSBestEffort {
		r.CpuShares = minShares
		return r
	}
	limits := resourcehelper.PodLimits(pod, resourcehelper.PodResourcesOptions{})
	if limited(pod, v1.ResourceCPU) {
		limit := limits[v1.ResourceCPU]
		r.CpuQuota = Quota(limit.MilliValue())
	}
	if limited(pod, v1.ResourceMemory) {
		limit := limits[v1.ResourceMemory]
		r.MemoryLimitInBytes = limit.Value()
	}
	return r
}

// limited reports whether the whole pod is bounded in a resource: by a
// pod-level limit, or because every container has its own.
func limited(pod *v1.Pod, name v1.ResourceName) bool {
	if pod.Spec.Resources != nil {
		if q, ok := pod.Spec.Resources.Limits[name]; ok && !q.IsZero() {
			return true
		}
	}
	for _, containers := range [][]v1.Container{pod.Spec.InitContainers, pod.Spec.Containers} {
		for i := range containers {
			if q := containers[i].Resources.Limits[name]; q.IsZero() {
				return false
			}
		}
	}
	return true
}

// hugepageSize returns the page size as the kernel names it: hugepages-2Mi is 2MB.
func hugepageSize(name v1.ResourceName) (string, bool) {
	rest, ok := strings.CutPrefix(string(name), v1.ResourceHugePagesPrefix)
	if !ok {
		return "", false
	}
	for _, unit := range []struct{ binary, kernel string }{{"Ki", "KB"}, {"Mi", "MB"}, {"Gi", "GB"}} {
		if number, found := strings.CutSuffix(rest, unit.binary); found {
			return number + unit.kernel, true
		}
	}
	return "", false
}

// Wider returns the looser of two settings in each resource; 0 is no limit.
func Wider(a, b *runtimeapi.LinuxContainerResources) *runtimeapi.LinuxContainerResources {
	limit := func(x, y int64) int64 {
		if x <= 0 || y <= 0 {
			return 0
		}
		return max(x, y)
	}
	return &runtimeapi.LinuxContainerResources{
		CpuShares: max(a.GetCpuShares(), b.GetCpuShares()), CpuPeriod: b.GetCpuPeriod(), CpuQuota: limit(a.GetCpuQuota(), b.GetCpuQuota()),
		MemoryLimitInBytes: limit(a.GetMemoryLimitInBytes(), b.GetMemoryLimitInBytes()),
	}
}

// Same reports whether two settings are the same to the kernel.
func Same(a, b *runtimeapi.LinuxContainerResources) bool { return proto.Equal(a, b) }
