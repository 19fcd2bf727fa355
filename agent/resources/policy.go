package resources

import (
	"strconv"

	v1 "k8s.io/api/core/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// Policy is what cgroup settings depend on besides the pod.
type Policy struct {
	// MemoryCapacity is the machine's memory in bytes.
	MemoryCapacity int64
	// QuotaPeriod is the period of CPU limits in microseconds; 0: they are not enforced.
	QuotaPeriod int64
	// Unified: the machine has cgroup v2.
	Unified bool
	// Swap bytes are shared by containers of burstable pods in proportion to their memory requests. 0: no container
	// may swap.
	Swap int64
	// Exclusive returns the processors a container has for itself, or "".
	Exclusive func(pod *v1.Pod, container *v1.Container) string
	// Shared returns the processors of everybody else, or "" when that is all of them.
	Shared func() string
}

const swapFile = "memory.swap.max"

// Container returns the cgroup settings of one container.
func (p *Policy) Container(pod *v1.Pod, container *v1.Container) *runtimeapi.LinuxContainerResources {
	r := ForContainer(pod, container, p.MemoryCapacity)
	r.CpuQuota, r.CpuPeriod = p.quota(limitedMilliCPU(pod, container))
	switch own := p.exclusive(pod, container); {
	case own != "":
		// Whoever has a processor for itself is not stopped in the middle of a period.
		r.CpusetCpus = own
		if p.QuotaPeriod > 0 {
			r.CpuQuota = -1
		}
	case p.Shared != nil:
		r.CpusetCpus = p.Shared()
	}
	p.swap(r, pod, container)
	return r
}

// Pod returns the settings of the pod's own cgroup.
func (p *Policy) Pod(pod *v1.Pod) *runtimeapi.LinuxContainerResources {
	r := ForPod(pod)
	r.CpuQuota, r.CpuPeriod = p.quota(r.GetCpuQuota() * milliPerCPU / quotaPeriod)
	for _, containers := range [][]v1.Container{pod.Spec.InitContainers, pod.Spec.Containers} {
		for i := range containers {
			if p.exclusive(pod, &containers[i]) != "" {
				r.CpuQuota = 0
			}
		}
	}
	return r
}

func (p *Policy) exclusive(pod *v1.Pod, container *v1.Container) string {
	if p.Exclusive == nil {
		return ""
	}
	return p.Exclusive(pod, container)
}

func (p *Policy) quota(milliCPU int64) (quota, period int64) {
	if p.QuotaPeriod == 0 {
		return 0, 0
	}
	if milliCPU == 0 {
		return 0, p.QuotaPeriod
	}
	return max(milliCPU*p.QuotaPeriod/milliPerCPU, minQuota), p.QuotaPeriod
}

func limitedMilliCPU(pod *v1.Pod, container *v1.Container) int64 {
	q := limit(pod, container, v1.ResourceCPU)
	return q.MilliValue()
}

// swap bounds the container's use of swap: in cgroup v1 by the sum with memory.
func (p *Policy) swap(r *runtimeapi.LinuxContainerResources, pod *v1.Pod, container *v1.Container) {
	if !p.Unified {
		r.MemorySwapLimitInBytes = r.MemoryLimitInBytes
		return
	}
	share := int64(0)
	if p.Swaps(pod, container) {
		share = int64(float64(memoryRequest(container)) / float64(p.MemoryCapacity) * float64(p.Swap))
	}
	if r.Unified == nil {
		r.Unified = map[string]string{}
	}
	r.Unified[swapFile] = strconv.FormatInt(share, 10)
}

// Swaps reports whether the container may use swap: those of burstable pods that ask for some memory, but
// not for all they may use.
func (p *Policy) Swaps(pod *v1.Pod, container *v1.Container) bool {
	if p.Swap <= 0 || !p.Unified || QOSClass(pod) != v1.PodQOSBurstable || criticalPriority(pod) {
		return false
	}
	request, limit := container.Resources.Requests[v1.ResourceMemory], container.Resources.Limits[v1.ResourceMemory]
	return !request.IsZero() && request.Cmp(limit) != 0 && request.Value() <= p.MemoryCapacity
}

func criticalPriority(pod *v1.Pod) bool {
	const systemCritical = 2000000000
	return pod.Spec.Priority != nil && *pod.Spec.Priority >= systemCritical
}
