package resources

import (
	"path"
	"strings"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
)

// Root is the cgroup of all pods, below the configured cgroup root.
const Root = "/kubepods"

// QOSClass returns the pod's quality of service: what the API server recorded,
// or the class computed from the spec for pods that have no status yet.
func QOSClass(pod *v1.Pod) v1.PodQOSClass {
	if pod.Status.QOSClass != "" {
		return pod.Status.QOSClass
	}
	return ComputeQOSClass(&pod.Spec)
}

// ComputeQOSClass applies the rules of the Kubernetes documentation to cpu and
// memory of all containers, or of the pod when it has pod-level resources.
func ComputeQOSClass(spec *v1.PodSpec) v1.PodQOSClass {
	if spec.Resources != nil && (len(spec.Resources.Requests) > 0 || len(spec.Resources.Limits) > 0) {
		return classOf([]v1.ResourceRequirements{*spec.Resources})
	}
	var all []v1.ResourceRequirements
	for i := range spec.InitContainers {
		all = append(all, spec.InitContainers[i].Resources)
	}
	for i := range spec.Containers {
		all = append(all, spec.Containers[i].Resources)
	}
	return classOf(all)
}

func classOf(all []v1.ResourceRequirements) v1.PodQOSClass {
	guaranteed, asked := true, false
	for _, r := range all {
		for _, name := range []v1.ResourceName{v1.ResourceCPU, v1.ResourceMemory} {
			limit, request := r.Limits[name], r.Requests[name]
			if !limit.IsZero() || !request.IsZero() {
				asked = true
			}
			// A missing request is defaulted to the limit by the API server.
			if limit.IsZero() || (!request.IsZero() && request.Cmp(limit) != 0) {
				guaranteed = false
			}
		}
	}
	switch {
	case !asked:
		return v1.PodQOSBestEffort
	case guaranteed:
		return v1.PodQOSGuaranteed
	}
	return v1.PodQOSBurstable
}

// CgroupParent is the pod's cgroup, in cgroupfs notation and relative to the
// configured cgroup root: /kubepods/burstable/pod<uid>.
func CgroupParent(class v1.PodQOSClass, uid types.UID) string {
	tier := ""
	if class != v1.PodQOSGuaranteed {
		tier = strings.ToLower(string(class))
	}
	return path.Join(Root, tier, "pod"+string(uid))
}

// OOMScoreAdj is the container's oom_score_adj: -997 for guaranteed pods, 1000
// for best effort, and between 3 and 999 for burstable ones, the more memory
// requested, the lower. memoryCapacity is the machine's memory in bytes.
func OOMScoreAdj(pod *v1.Pod, container *v1.Container, memoryCapacity int64) int64 {
	if pod.Spec.Priority != nil && *pod.Spec.Priority >= systemCriticalPriority {
		return -997
	}
	switch QOSClass(pod) {
	case v1.PodQOSGuaranteed:
		return -997
	case v1.PodQOSBestEffort:
		return 1000
	}
	if memoryCapacity <= 0 {
		return 999
	}
	share := unclaimed(pod)
	score := 1000 - (1000*(memoryRequest(container)+share))/memoryCapacity
	if isSidecar(pod, container) {
		// It is killed no sooner than the containers it serves.
		score = min(score, 1000-(1000*(leastRequest(pod)+share))/memoryCapacity)
	}
	// A guaranteed-looking burstable pod must still be killed before guaranteed ones.
	if score < 1000-997 {
		score = 1000 - 997
	}
	if score == 1000 {
		return 999
	}
	return score
}

// systemCriticalPriority is the lowest priority of system-node-critical pods.
const systemCriticalPriority = 2000001000

func memoryRequest(container *v1.Container) int64 {
	q := container.Resources.Requests[v1.ResourceMemory]
	return q.Value()
}
