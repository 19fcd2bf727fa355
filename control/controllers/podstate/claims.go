package podstate

import (
	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/tools/cache"
	"k8s.io/component-helpers/storage/ephemeral"
)

const byVolumeClaim = "skiff/volumeclaim"

// VolumeClaims returns the names of the PersistentVolumeClaims a pod uses, those that are made for
// its ephemeral volumes included.
func VolumeClaims(pod *corev1.Pod) []string {
	var names []string
	for i := range pod.Spec.Volumes {
		switch v := &pod.Spec.Volumes[i]; {
		case v.PersistentVolumeClaim != nil:
			names = append(names, v.PersistentVolumeClaim.ClaimName)
		case v.Ephemeral != nil:
			names = append(names, ephemeral.VolumeClaimName(pod, v))
		}
	}
	return names
}

// IndexByVolumeClaim makes informer, which has to be one of pods, able to answer UsingClaim.
func IndexByVolumeClaim(informer cache.SharedIndexInformer) error {
	return index(informer, byVolumeClaim, func(pod *corev1.Pod) []string {
		names := VolumeClaims(pod)
		for i, name := range names {
			names[i] = pod.Namespace + "/" + name
		}
		return names
	})
}

// UsingClaim returns the pods that use a PersistentVolumeClaim.
func UsingClaim(indexer cache.Indexer, namespace, claim string) ([]*corev1.Pod, error) {
	return lookup(indexer, byVolumeClaim, namespace+"/"+claim)
}
