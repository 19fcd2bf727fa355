package podspec

import (
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
	resourcehelper "k8s.io/component-helpers/resource"
)

// DefaultPodResources completes pod-level resources from those of the containers. It belongs after
// admission, which may have added containers, and does nothing for pods without pod-level resources.
//
// The order matters: huge page limits come from the containers, then requests come from containers
// and limits, then the remaining limits must be at least those requests.
func DefaultPodResources(pod *corev1.Pod) {
	resources := pod.Spec.Resources
	if resources == nil || len(resources.Requests)+len(resources.Limits) == 0 {
		return
	}
	// Ephemeral containers have no resources.
	counted := &corev1.Pod{Spec: corev1.PodSpec{
		InitContainers: pod.Spec.InitContainers, Containers: pod.Spec.Containers,
	}}
	options := resourcehelper.PodResourcesOptions{}
	limits := resourcehelper.AggregateContainerLimits(counted, options)
	requests := resourcehelper.AggregateContainerRequests(counted, options)

	for name, quantity := range limits {
		if isHugePages(name) && !has(resources.Requests, name) {
			setResource(&resources.Limits, name, quantity)
		}
	}
	for name, quantity := range requests {
		if overcommitAllowed(name) {
			setResource(&resources.Requests, name, quantity)
		}
	}
	for name, quantity := range resources.Limits {
		setResource(&resources.Requests, name, quantity)
	}
	for name, request := range resources.Requests {
		limit, known := limits[name]
		if !known || !limitedEverywhere(&pod.Spec, name) {
			continue
		}
		if request.Cmp(limit) > 0 {
			limit = request
		}
		setResource(&resources.Limits, name, limit)
	}
}

// setResource sets a pod-level resource that is not set yet.
func setResource(list *corev1.ResourceList, name corev1.ResourceName, quantity quantity) {
	if !resourcehelper.IsSupportedPodLevelResource(name) || has(*list, name) {
		return
	}
	if *list == nil {
		*list = corev1.ResourceList{}
	}
	(*list)[name] = quantity.DeepCopy()
}

func has(list corev1.ResourceList, name corev1.ResourceName) bool {
	_, found := list[name]
	return found
}

func limitedEverywhere(spec *corev1.PodSpec, name corev1.ResourceName) bool {
	everywhere := true
	containers(spec, nil, func(c *corev1.Container, _ *field.Path) {
		everywhere = everywhere && has(c.Resources.Limits, name)
	})
	return everywhere
}
