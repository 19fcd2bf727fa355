package eviction

import (
	"fmt"

	v1 "k8s.io/api/core/v1"
	resourcehelper "k8s.io/component-helpers/resource"
	stats "k8s.io/kubelet/pkg/apis/stats/v1alpha1"
)

// limitsDisk reports whether the pod has a limit that has to be measured.
func limitsDisk(pod *v1.Pod) bool {
	for i := range pod.Spec.Volumes {
		if e := pod.Spec.Volumes[i].EmptyDir; e != nil && e.SizeLimit != nil && e.SizeLimit.Sign() > 0 {
			return true
		}
	}
	limits := resourcehelper.PodLimits(pod, resourcehelper.PodResourcesOptions{})
	if _, limited := limits[v1.ResourceEphemeralStorage]; limited {
		return true
	}
	for _, containers := range [][]v1.Container{pod.Spec.InitContainers, pod.Spec.Containers} {
		for i := range containers {
			if q := containers[i].Resources.Limits[v1.ResourceEphemeralStorage]; !q.IsZero() {
				return true
			}
		}
	}
	return false
}

// beyondDisk says which of its limits on the disk the pod exceeds, or nothing.
func beyondDisk(pod *v1.Pod, u *stats.PodStats, dedicatedImageFs bool) string {
	for i := range pod.Spec.Volumes {
		v := &pod.Spec.Volumes[i]
		if v.EmptyDir == nil || v.EmptyDir.SizeLimit == nil || v.EmptyDir.SizeLimit.Sign() <= 0 {
			continue
		}
		for j := range u.VolumeStats {
			if u.VolumeStats[j].Name == v.Name && number(u.VolumeStats[j].UsedBytes) > v.EmptyDir.SizeLimit.Value() {
				return fmt.Sprintf("Usage of EmptyDir volume %q exceeds the limit %q. ", v.Name, v.EmptyDir.SizeLimit.String())
			}
		}
	}
	limits := resourcehelper.PodLimits(pod, resourcehelper.PodResourcesOptions{})
	if limit, limited := limits[v1.ResourceEphemeralStorage]; limited && u.EphemeralStorage != nil && number(u.EphemeralStorage.UsedBytes) > limit.Value() {
		return fmt.Sprintf("Pod ephemeral local storage usage exceeds the total limit of containers %s. ", limit.String())
	}
	for i := range u.Containers {
		spec := containerOf(pod, u.Containers[i].Name)
		if spec == nil {
			continue
		}
		limit := spec.Resources.Limits[v1.ResourceEphemeralStorage]
		used := int64(0)
		if logs := u.Containers[i].Logs; logs != nil {
			used += number(logs.UsedBytes)
		}
		if root := u.Containers[i].Rootfs; root != nil && !dedicatedImageFs {
			used += number(root.UsedBytes)
		}
		if !limit.IsZero() && used > limit.Value() {
			return fmt.Sprintf("Container %s exceeded its local ephemeral storage limit %q. ", spec.Name, limit.String())
		}
	}
	return ""
}
