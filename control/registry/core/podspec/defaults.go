package podspec

import (
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// SetDefaults fills in what a pod spec leaves open, wherever the spec is embedded.
//
// New defaults belong into SetPodDefaults unless they must appear in templates too: a default that
// appears in a template changes the template's hash, and with it every Deployment rolls.
func SetDefaults(spec *corev1.PodSpec) {
	setIfZero(&spec.ServiceAccountName, spec.DeprecatedServiceAccount)
	spec.DeprecatedServiceAccount = spec.ServiceAccountName
	setIfZero(&spec.DNSPolicy, corev1.DNSClusterFirst)
	setIfZero(&spec.RestartPolicy, corev1.RestartPolicyAlways)
	if spec.SecurityContext == nil {
		spec.SecurityContext = &corev1.PodSecurityContext{}
	}
	setIfNil(&spec.TerminationGracePeriodSeconds, corev1.DefaultTerminationGracePeriodSeconds)
	setIfZero(&spec.SchedulerName, corev1.DefaultSchedulerName)

	for i := range spec.Volumes {
		defaultVolume(&spec.Volumes[i])
	}
	containers(spec, nil, func(c *corev1.Container, _ *field.Path) { defaultContainer(c) })
	roundUp(spec.Overhead)
	if spec.Resources != nil {
		roundUp(spec.Resources.Limits)
		roundUp(spec.Resources.Requests)
	}
}

// SetTemplateDefaults fills in what a pod template leaves open.
func SetTemplateDefaults(template *corev1.PodTemplateSpec) { SetDefaults(&template.Spec) }

// SetPodDefaults fills in what a pod leaves open: the defaults of its spec, those which only a real
// pod gets (requests from limits, host ports of host-network pods, service links), and the fields
// of its status which say the same thing twice.
func SetPodDefaults(pod *corev1.Pod) {
	spec := &pod.Spec
	if grace := spec.TerminationGracePeriodSeconds; grace != nil && *grace < 0 {
		one := int64(1)
		spec.TerminationGracePeriodSeconds = &one
	}
	for _, list := range [][]corev1.Container{spec.Containers, spec.InitContainers} {
		for i := range list {
			requestsFromLimits(&list[i].Resources)
			if spec.HostNetwork {
				hostPorts(list[i].Ports)
			}
		}
	}
	setIfNil(&spec.EnableServiceLinks, corev1.DefaultEnableServiceLinks)
	SetDefaults(spec)
	defaultStatus(&pod.Status)
}

// requestsFromLimits makes a limit the request of the same resource where none is given.
func requestsFromLimits(resources *corev1.ResourceRequirements) {
	if resources.Limits == nil {
		return
	}
	if resources.Requests == nil {
		resources.Requests = make(corev1.ResourceList, len(resources.Limits))
	}
	for name, limit := range resources.Limits {
		if _, given := resources.Requests[name]; !given {
			resources.Requests[name] = limit.DeepCopy()
		}
	}
}

// hostPorts opens every port of a host-network pod where its containers listen: on the host.
func hostPorts(ports []corev1.ContainerPort) {
	for i := range ports {
		setIfZero(&ports[i].HostPort, ports[i].ContainerPort)
	}
}

func defaultStatus(status *corev1.PodStatus) {
	syncPodIPs(status)
	for _, list := range [][]corev1.ContainerStatus{
		status.InitContainerStatuses, status.ContainerStatuses, status.EphemeralContainerStatuses,
	} {
		for i := range list {
			roundUp(list[i].AllocatedResources)
			if list[i].Resources != nil {
				roundUp(list[i].Resources.Limits)
				roundUp(list[i].Resources.Requests)
			}
		}
	}
	roundUp(status.AllocatedResources)
	if status.Resources != nil {
		roundUp(status.Resources.Limits)
		roundUp(status.Resources.Requests)
	}
}

// syncPodIPs keeps podIP and podIPs[0] equal. Where they differ, podIP wins: it is what an agent
// that knows only one of the two has written.
func syncPodIPs(status *corev1.PodStatus) {
	switch {
	case status.PodIP == "" && len(status.PodIPs) > 0:
		status.PodIP = status.PodIPs[0].IP
	case status.PodIP != "" && (len(status.PodIPs) == 0 || status.PodIPs[0].IP != status.PodIP):
		status.PodIPs = []corev1.PodIP{{IP: status.PodIP}}
	}
}

// roundUp rounds quantities up to thousandths, the finest unit the API keeps.
func roundUp(list corev1.ResourceList) {
	for name, quantity := range list {
		quantity.RoundUp(-3)
		list[name] = quantity
	}
}
