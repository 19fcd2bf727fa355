package resources

import (
	v1 "k8s.io/api/core/v1"
	resourcehelper "k8s.io/component-helpers/resource"
)

// unclaimed is each container's share, in bytes, of the memory that the pod requests as a whole and no
// container for itself. Without a request of the pod's it is 0.
func unclaimed(pod *v1.Pod) int64 {
	if pod.Spec.Resources == nil {
		return 0
	}
	whole, asked := pod.Spec.Resources.Requests[v1.ResourceMemory]
	if !asked {
		return 0
	}
	claimed := resourcehelper.AggregateContainerRequests(pod, resourcehelper.PodResourcesOptions{})[v1.ResourceMemory]
	count := int64(len(pod.Spec.Containers))
	for i := range pod.Spec.InitContainers {
		if alwaysRestarts(&pod.Spec.InitContainers[i]) {
			count++
		}
	}
	return max(whole.Value()-claimed.Value(), 0) / max(count, 1)
}

// leastRequest is the smallest memory request among the regular containers.
func leastRequest(pod *v1.Pod) int64 {
	least := int64(-1)
	for i := range pod.Spec.Containers {
		if request := memoryRequest(&pod.Spec.Containers[i]); least < 0 || request < least {
			least = request
		}
	}
	return max(least, 0)
}

func isSidecar(pod *v1.Pod, container *v1.Container) bool {
	for i := range pod.Spec.InitContainers {
		if pod.Spec.InitContainers[i].Name == container.Name {
			return alwaysRestarts(container)
		}
	}
	return false
}

func alwaysRestarts(c *v1.Container) bool {
	return c.RestartPolicy != nil && *c.RestartPolicy == v1.ContainerRestartPolicyAlways
}
