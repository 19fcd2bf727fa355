package podstatus

import (
	v1 "k8s.io/api/core/v1"
	resourcehelper "k8s.io/component-helpers/resource"
)

// podResources sets what the pod as a whole was given and what of it is in force.
func podResources(in Input, s *v1.PodStatus) {
	s.AllocatedResources = resourcehelper.PodRequests(in.Pod, resourcehelper.PodResourcesOptions{})
	inForce := in.Pod
	if in.Actuated != nil {
		inForce = in.Actuated.Apply(in.Pod)
	}
	s.Resources = &v1.ResourceRequirements{
		Requests: resourcehelper.PodRequests(inForce, resourcehelper.PodResourcesOptions{}),
		Limits:   resourcehelper.PodLimits(inForce, resourcehelper.PodResourcesOptions{}),
	}
}
