package podspec

import (
	corev1 "k8s.io/api/core/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// resizable are the resources that can change while a container runs.
var resizable = []corev1.ResourceName{corev1.ResourceCPU, corev1.ResourceMemory}

// ValidateResize checks a change through the resize subresource: amounts of cpu and memory, in
// containers and in the pod as a whole.
func ValidateResize(updated, old *corev1.Pod) field.ErrorList {
	switch {
	case IsMirror(old):
		return field.ErrorList{field.Forbidden(field.NewPath(""), "static pods cannot be resized")}
	case old.Spec.OS != nil && old.Spec.OS.Name == corev1.Windows:
		return field.ErrorList{field.Forbidden(field.NewPath(""), "windows pods cannot be resized")}
	}
	path := field.NewPath("spec")
	v := newPodValidator(updated)
	v.add(ValidateObjectMetaUpdate(&updated.ObjectMeta, &old.ObjectMeta)...)
	v.pod(updated)
	class := old.Status.QOSClass
	if class == "" {
		class = QOSClass(old)
	}
	if class != QOSClass(updated) {
		v.invalid(path, updated.Status.QOSClass, "Pod QOS Class may not change as a result of resizing")
	}
	if !nodeCanResize(old) {
		v.forbidden(path, "Pod running on node without support for resize")
	}
	rest := updated.Spec.DeepCopy()
	if hasResources(old.Spec.Resources) || hasResources(updated.Spec.Resources) {
		v.resizePod(rest, &updated.Spec, &old.Spec, path)
	}
	regular := v.sameOrder(updated.Spec.Containers, old.Spec.Containers, "containers", path)
	inits := v.sameOrder(updated.Spec.InitContainers, old.Spec.InitContainers, "initContainers", path)
	if !regular || !inits {
		return v.list
	}
	v.resizeContainers(rest, &updated.Spec, &old.Spec, path)
	if !apiequality.Semantic.DeepEqual(updated.Spec.Volumes, old.Spec.Volumes) {
		v.forbidden(path.Child("volumes"), "volumes are immutable on resize when InPlacePodVerticalScalingMemoryBackedVolumes feature gate is disabled")
	}
	if len(v.list) == 0 && !apiequality.Semantic.DeepEqual(*rest, old.Spec) {
		v.forbidden(path, "only cpu and memory resources are mutable")
	}
	return v.list
}

// nodeCanResize: an agent that reports the resources of running containers can change them.
func nodeCanResize(pod *corev1.Pod) bool {
	for _, status := range pod.Status.ContainerStatuses {
		if status.State.Running != nil {
			return status.Resources != nil
		}
	}
	return true
}

func hasResources(r *corev1.ResourceRequirements) bool {
	return r != nil && len(r.Requests)+len(r.Limits) > 0
}

func (v *validator) resizePod(rest, updated, old *corev1.PodSpec, path *field.Path) {
	at := path.Child("resources")
	if old.Resources != nil {
		if updated.Resources == nil {
			v.forbidden(at, "pod-level resources cannot be removed")
			return
		}
		if removed(updated.Resources.Requests, old.Resources.Requests) {
			v.forbidden(at.Child("requests"), "pod-level resource requests cannot be removed")
		}
		if removed(updated.Resources.Limits, old.Resources.Limits) {
			v.forbidden(at.Child("limits"), "pod-level resource limits cannot be removed")
		}
	}
	if rest.Resources != nil {
		was := old.Resources
		if was == nil {
			was = &corev1.ResourceRequirements{}
		}
		undoResize(rest.Resources, was)
		if old.Resources == nil && !hasResources(rest.Resources) && len(rest.Resources.Claims) == 0 {
			rest.Resources = nil
		}
	}
	if !apiequality.Semantic.DeepEqual(rest.Resources, old.Resources) {
		v.forbidden(path, "only cpu and memory resources are mutable at pod-level")
	}
}

// sameOrder makes sure that containers can be compared one by one.
func (v *validator) sameOrder(updated, old []corev1.Container, name string, path *field.Path) bool {
	at := path.Child(name)
	if len(updated) != len(old) {
		v.forbidden(at, name+" may not be added or removed on resize")
		return false
	}
	same := true
	for i := range old {
		if updated[i].Name != old[i].Name {
			v.forbidden(at.Index(i).Child("name"), name+" may not be renamed or reordered on resize")
			same = false
		}
	}
	return same
}

func (v *validator) resizeContainers(rest, updated, old *corev1.PodSpec, path *field.Path) {
	v.nothingRemoved(updated.InitContainers, old.InitContainers, path.Child("initContainers"))
	v.nothingRemoved(updated.Containers, old.Containers, path.Child("containers"))
	for i := range rest.Containers {
		undoResize(&rest.Containers[i].Resources, &old.Containers[i].Resources)
		if !apiequality.Semantic.DeepEqual(rest.Containers[i], old.Containers[i]) {
			v.forbidden(path, "only cpu and memory resources are mutable")
		}
	}
	for i := range rest.InitContainers {
		c, at := &rest.InitContainers[i], path.Child("initContainers").Index(i)
		changed := !apiequality.Semantic.DeepEqual(*c, old.InitContainers[i])
		undoResize(&c.Resources, &old.InitContainers[i].Resources)
		if !apiequality.Semantic.DeepEqual(*c, old.InitContainers[i]) {
			v.forbidden(at, "only cpu and memory resources for init or sidecar containers are mutable")
		}
		if !changed || isSidecar(c) {
			continue
		}
		for _, policy := range c.ResizePolicy {
			if policy.RestartPolicy == corev1.RestartContainer {
				v.forbidden(at, "non-sidecar init containers with a resize policy of RestartContainer cannot be resized")
			}
		}
	}
}

func (v *validator) nothingRemoved(updated, old []corev1.Container, path *field.Path) {
	for i := range old {
		at := path.Index(i).Child("resources")
		if removed(updated[i].Resources.Requests, old[i].Resources.Requests) {
			v.forbidden(at.Child("requests"), "resource requests cannot be removed")
		}
		if removed(updated[i].Resources.Limits, old[i].Resources.Limits) {
			v.forbidden(at.Child("limits"), "resource limits cannot be removed")
		}
	}
}

func removed(updated, old corev1.ResourceList) bool {
	for name := range old {
		if !has(updated, name) {
			return true
		}
	}
	return false
}

// undoResize gives the resources the old amounts of what can be resized.
func undoResize(r, old *corev1.ResourceRequirements) {
	r.Limits = withOldAmounts(r.Limits, old.Limits)
	r.Requests = withOldAmounts(r.Requests, old.Requests)
}

func withOldAmounts(list, old corev1.ResourceList) corev1.ResourceList {
	if list == nil && old == nil {
		return nil
	}
	result := corev1.ResourceList{}
	for name, amount := range list {
		result[name] = amount
	}
	for _, name := range resizable {
		delete(result, name)
		if amount, was := old[name]; was {
			result[name] = amount
		}
	}
	return result
}
