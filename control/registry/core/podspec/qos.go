package podspec

import (
	corev1 "k8s.io/api/core/v1"
	resourcehelper "k8s.io/component-helpers/resource"
)

// QOSClass tells a pod's quality-of-service class. Pod-level resources decide where they are set;
// otherwise a pod is Guaranteed or BestEffort when all its containers are, and Burstable else.
func QOSClass(pod *corev1.Pod) corev1.PodQOSClass {
	if resourcehelper.IsPodLevelResourcesSet(pod) {
		return classOf(pod.Spec.Resources)
	}
	var class corev1.PodQOSClass
	for _, list := range [][]corev1.Container{pod.Spec.InitContainers, pod.Spec.Containers} {
		for i := range list {
			class = combine(class, classOf(&list[i].Resources))
		}
	}
	if class == "" {
		return corev1.PodQOSBestEffort
	}
	return class
}

func classOf(resources *corev1.ResourceRequirements) corev1.PodQOSClass {
	var class corev1.PodQOSClass
	for _, name := range []corev1.ResourceName{corev1.ResourceCPU, corev1.ResourceMemory} {
		request, limit := resources.Requests[name], resources.Limits[name]
		switch {
		case request.Cmp(limit) != 0:
			return corev1.PodQOSBurstable
		case request.IsZero():
			class = combine(class, corev1.PodQOSBestEffort)
		default:
			class = combine(class, corev1.PodQOSGuaranteed)
		}
	}
	return class
}

// combine gives the class of a whole from the classes of its parts; "" is no part yet.
func combine(whole, part corev1.PodQOSClass) corev1.PodQOSClass {
	if whole == "" || whole == part {
		return part
	}
	return corev1.PodQOSBurstable
}
