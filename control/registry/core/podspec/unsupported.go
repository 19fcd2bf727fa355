package podspec

import (
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// DropUnsupported removes the fields of a pod spec whose features are off in Kubernetes v1.37
// unless switched on by a gate, as upstream does silently: a manifest that uses them is accepted
// and behaves as on a stock cluster. Stop signals, which are behind such a gate too, are kept:
// images have always had them, and the agent sends them.
func DropUnsupported(spec *corev1.PodSpec) {
	spec.SchedulingGroup = nil
	spec.EvictionResponders = nil
	for i := range spec.Volumes {
		dropVolumeFields(&spec.Volumes[i].VolumeSource)
	}
	containers(spec, nil, func(c *corev1.Container, _ *field.Path) { dropContainerFields(c) })
}

// DropUnsupportedInTemplate does the same for a pod template, whose annotations may also hold the
// form init containers had before they were a field.
func DropUnsupportedInTemplate(template *corev1.PodTemplateSpec) {
	DropUnsupported(&template.Spec)
	dropInitContainerAnnotations(template.Annotations)
}

// DropUnsupportedInPod does the same for a pod's spec.
func DropUnsupportedInPod(pod *corev1.Pod) {
	DropUnsupported(&pod.Spec)
	dropInitContainerAnnotations(pod.Annotations)
}

// DropUnsupportedInStatus does the same for a pod's status.
func DropUnsupportedInStatus(status *corev1.PodStatus) {
	status.NodeAllocatableResourceClaimStatuses = nil
	status.VolumeHealth = nil
	for _, list := range [][]corev1.ContainerStatus{
		status.InitContainerStatuses, status.ContainerStatuses, status.EphemeralContainerStatuses,
	} {
		for i := range list {
			for j := range list[i].VolumeMounts {
				list[i].VolumeMounts[j].VolumeStatus = nil
			}
		}
	}
}

func dropContainerFields(c *corev1.Container) {
	for i := range c.VolumeMounts {
		c.VolumeMounts[i].BindMountOptions = nil
	}
	for _, probe := range []*corev1.Probe{c.LivenessProbe, c.ReadinessProbe, c.StartupProbe} {
		if probe != nil && probe.GRPC != nil {
			probe.GRPC.Mode = nil
		}
		if probe != nil && probe.HTTPGet != nil {
			probe.HTTPGet.Protocol = nil
		}
	}
	if c.Lifecycle == nil {
		return
	}
	for _, hook := range []*corev1.LifecycleHandler{c.Lifecycle.PostStart, c.Lifecycle.PreStop} {
		if hook != nil && hook.HTTPGet != nil {
			hook.HTTPGet.Protocol = nil
		}
	}
}

func dropVolumeFields(source *corev1.VolumeSource) {
	if s := source.EmptyDir; s != nil {
		s.Mode = nil
	}
	if s := source.Secret; s != nil {
		s.DefaultUser = nil
		dropKeyUsers(s.Items)
	}
	if s := source.ConfigMap; s != nil {
		s.DefaultUser = nil
		dropKeyUsers(s.Items)
	}
	if s := source.DownwardAPI; s != nil {
		s.DefaultUser = nil
		dropFileUsers(s.Items)
	}
	if s := source.Projected; s != nil {
		s.DefaultUser = nil
		for i := range s.Sources {
			dropProjectionUsers(&s.Sources[i])
		}
	}
}

func dropProjectionUsers(p *corev1.VolumeProjection) {
	if p.Secret != nil {
		dropKeyUsers(p.Secret.Items)
	}
	if p.ConfigMap != nil {
		dropKeyUsers(p.ConfigMap.Items)
	}
	if p.DownwardAPI != nil {
		dropFileUsers(p.DownwardAPI.Items)
	}
	if p.ServiceAccountToken != nil {
		p.ServiceAccountToken.User = nil
	}
	if p.ClusterTrustBundle != nil {
		p.ClusterTrustBundle.User = nil
	}
	if p.PodCertificate != nil {
		p.PodCertificate.User = nil
	}
}

func dropKeyUsers(items []corev1.KeyToPath) {
	for i := range items {
		items[i].User = nil
	}
}

func dropFileUsers(items []corev1.DownwardAPIVolumeFile) {
	for i := range items {
		items[i].User = nil
	}
}

func dropInitContainerAnnotations(annotations map[string]string) {
	for _, version := range []string{"alpha", "beta"} {
		delete(annotations, "pod."+version+".kubernetes.io/init-containers")
		delete(annotations, "pod."+version+".kubernetes.io/init-container-statuses")
	}
}
