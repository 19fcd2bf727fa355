package allocation

import (
	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
)

// Resources are the amounts of a pod and of its containers. Values are shared: nobody changes them.
type Resources struct {
	// Pod are the pod-level resources, nil when the pod has none.
	Pod *v1.ResourceRequirements `json:"pod,omitempty"`
	// Containers by name, init containers included.
	Containers map[string]v1.ResourceRequirements `json:"containers,omitempty"`
}

// Of returns the resources the pod's spec asks for.
func Of(pod *v1.Pod) Resources {
	r := Resources{Pod: pod.Spec.Resources, Containers: map[string]v1.ResourceRequirements{}}
	for _, containers := range [][]v1.Container{pod.Spec.InitContainers, pod.Spec.Containers} {
		for i := range containers {
			r.Containers[containers[i].Name] = containers[i].Resources
		}
	}
	return r
}

// Apply returns the pod with the resources in place of what its spec asks for. It is the pod itself
// when they are the same, else a copy that shares everything but the containers.
func (r Resources) Apply(pod *v1.Pod) *v1.Pod {
	if r.Equal(Of(pod)) {
		return pod
	}
	changed := *pod
	changed.Spec.Resources = r.Pod
	changed.Spec.InitContainers = r.apply(pod.Spec.InitContainers)
	changed.Spec.Containers = r.apply(pod.Spec.Containers)
	return &changed
}

func (r Resources) apply(containers []v1.Container) []v1.Container {
	if containers == nil {
		return nil
	}
	changed := make([]v1.Container, len(containers))
	copy(changed, containers)
	for i := range changed {
		if own, ok := r.Containers[changed[i].Name]; ok {
			changed[i].Resources = own
		}
	}
	return changed
}

// Equal reports whether both say the same of every container that both know.
func (r Resources) Equal(other Resources) bool {
	if !equality.Semantic.DeepEqual(r.Pod, other.Pod) {
		return false
	}
	for name, own := range r.Containers {
		if theirs, ok := other.Containers[name]; ok && !equality.Semantic.DeepEqual(own, theirs) {
			return false
		}
	}
	return true
}

// With returns a copy in which the container has the amounts.
func (r Resources) With(container string, amounts v1.ResourceRequirements) Resources {
	changed := Resources{Pod: r.Pod, Containers: make(map[string]v1.ResourceRequirements, len(r.Containers)+1)}
	for name, own := range r.Containers {
		changed.Containers[name] = own
	}
	changed.Containers[container] = amounts
	return changed
}
