// Package volumeprotection keeps claims that pods use, and volumes that are bound
// to claims, from vanishing: kube-controller-manager's
// persistentvolumeclaim-protection-controller and
// persistentvolume-protection-controller.
//
// In flow claims, volumes and pods by informer. Out flow the two finalizers that
// admission puts on new objects: they are added where they are missing, and taken
// away from deleted objects that nobody uses any more.
package volumeprotection

import (
	"slices"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Finalizers of used objects, upstream's.
const (
	ClaimFinalizer  = "kubernetes.io/pvc-protection"
	VolumeFinalizer = "kubernetes.io/pv-protection"
)

// waits reports whether a deleted object waits for the finalizer.
func waits(object metav1.Object, finalizer string) bool {
	return object.GetDeletionTimestamp() != nil && slices.Contains(object.GetFinalizers(), finalizer)
}

// lacks reports whether an object should have the finalizer.
func lacks(object metav1.Object, finalizer string) bool {
	return object.GetDeletionTimestamp() == nil && !slices.Contains(object.GetFinalizers(), finalizer)
}

func without(list []string, finalizer string) []string {
	return slices.DeleteFunc(slices.Clone(list), func(f string) bool { return f == finalizer })
}
