package admission

import (
	"slices"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apiserver/pkg/admission"
)

// claimStatus lets a node report how large a claim's volume is and how far its
// expansion, and nothing else of a claim.
func claimStatus(name string, a admission.Attributes) error {
	if a.GetSubresource() != "status" {
		return forbidden(a, "may only update PVC status")
	}
	old, had := a.GetOldObject().(*corev1.PersistentVolumeClaim)
	claim, has := a.GetObject().(*corev1.PersistentVolumeClaim)
	if a.GetOperation() != admission.Update || !had || !has {
		return forbidden(a, "unexpected operation %q", a.GetOperation())
	}
	rest := func(c *corev1.PersistentVolumeClaim) *corev1.PersistentVolumeClaim {
		c = c.DeepCopy()
		c.ResourceVersion, c.ManagedFields = "", nil
		c.Status.Capacity, c.Status.Conditions, c.Status.AllocatedResources, c.Status.AllocatedResourceStatuses = nil, nil, nil, nil
		return c
	}
	if !apiequality.Semantic.DeepEqual(rest(old), rest(claim)) {
		return forbidden(a, "node %q is not allowed to update fields other than status.quantity and status.conditions", name)
	}
	return nil
}

// ownFinalizer keeps a volume that is a directory of a node until the node has
// removed it.
const ownFinalizer = "skiff.dev/local-path"

// ownVolume lets a node say that the directory of a deleted volume is gone.
func ownVolume(name string, a admission.Attributes) error {
	old, had := a.GetOldObject().(*corev1.PersistentVolume)
	volume, has := a.GetObject().(*corev1.PersistentVolume)
	if a.GetOperation() != admission.Update || a.GetSubresource() != "" || !had || !has || old.Labels["skiff.dev/node"] != name {
		return forbidden(a, "node %q may only finish volumes that are directories of its own", name)
	}
	rest := func(v *corev1.PersistentVolume) *corev1.PersistentVolume {
		v = v.DeepCopy()
		v.ResourceVersion, v.ManagedFields = "", nil
		v.Finalizers = slices.DeleteFunc(v.Finalizers, func(f string) bool { return f == ownFinalizer })
		if len(v.Finalizers) == 0 {
			v.Finalizers = nil
		}
		return v
	}
	if old.DeletionTimestamp == nil || !apiequality.Semantic.DeepEqual(rest(old), rest(volume)) {
		return forbidden(a, "node %q may only remove the finalizer %q from volumes that are being deleted", name, ownFinalizer)
	}
	return nil
}

// csiNode lets a node write the object of its own name.
func csiNode(name string, a admission.Attributes) error {
	target := a.GetName()
	if object, ok := a.GetObject().(*storagev1.CSINode); ok && a.GetOperation() == admission.Create {
		target = object.Name
	}
	if target != name {
		return forbidden(a, "can only access CSINode with the same name as the requesting node")
	}
	return nil
}
