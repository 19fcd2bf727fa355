package node

import (
	"slices"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apiserver/pkg/authorization/authorizer"
	"k8s.io/component-helpers/storage/ephemeral"
)

// Volumes answers what nodes' volumes are. Objects are read-only.
type Volumes struct {
	// OfClaim lists the PersistentVolumes bound to a claim.
	OfClaim func(namespace, claim string) []*corev1.PersistentVolume
	// Volume and Attachment return an object by name, nil when there is none.
	Volume     func(name string) *corev1.PersistentVolume
	Attachment func(name string) *storagev1.VolumeAttachment
}

// ownLabel of a PersistentVolume is the node whose agent makes and removes it.
const ownLabel = "skiff.dev/node"

// claims shows the claims a pod uses.
func claims(pod *corev1.Pod, see func(string)) {
	for i := range pod.Spec.Volumes {
		switch v := &pod.Spec.Volumes[i]; {
		case v.PersistentVolumeClaim != nil:
			see(v.PersistentVolumeClaim.ClaimName)
		case v.Ephemeral != nil:
			see(ephemeral.VolumeClaimName(pod, v))
		}
	}
}

// eachClaim shows every claim that pods on the node use.
func (a *Authorizer) eachClaim(node string, see func(namespace, name string)) {
	for _, pod := range a.pods(node) {
		if _, mirror := pod.Annotations[corev1.MirrorPodAnnotationKey]; !mirror {
			claims(pod, func(name string) { see(pod.Namespace, name) })
		}
	}
}

// eachVolume shows every PersistentVolume bound to a claim that pods on the node use.
func (a *Authorizer) eachVolume(node string, see func(*corev1.PersistentVolume)) {
	a.eachClaim(node, func(namespace, name string) {
		for _, volume := range a.volumes.OfClaim(namespace, name) {
			see(volume)
		}
	})
}

// volumeNeedsSecret reports whether a volume of a pod on the node names the Secret.
func (a *Authorizer) volumeNeedsSecret(node, namespace, name string) bool {
	found := false
	a.eachVolume(node, func(volume *corev1.PersistentVolume) {
		if csi := volume.Spec.CSI; csi != nil {
			for _, ref := range []*corev1.SecretReference{csi.NodePublishSecretRef, csi.NodeStageSecretRef, csi.NodeExpandSecretRef} {
				found = found || (ref != nil && ref.Namespace == namespace && ref.Name == name)
			}
		}
	})
	return found
}

func persistentVolumeClaims(a *Authorizer, node string, request authorizer.Attributes) string {
	switch {
	case request.GetSubresource() == "status":
		if !slices.Contains([]string{"get", "update", "patch"}, request.GetVerb()) {
			return "can only get/update/patch this type"
		}
	case request.GetVerb() != "get":
		return "can only get individual resources of this type"
	case request.GetSubresource() != "":
		return "cannot get subresource"
	}
	found := false
	a.eachClaim(node, func(namespace, name string) {
		found = found || (namespace == request.GetNamespace() && name == request.GetName())
	})
	if !found {
		return noRelation(node)
	}
	return ""
}

// persistentVolumes: a node reads what its pods use. Those that are directories of
// its own it may also find, and finish.
func persistentVolumes(a *Authorizer, node string, request authorizer.Attributes) string {
	if request.GetSubresource() != "" {
		return "cannot get subresource"
	}
	switch request.GetVerb() {
	case "list", "watch":
		selector, err := request.GetLabelSelector()
		if err == nil {
			for _, requirement := range selector {
				if values := requirement.Values().List(); requirement.Key() == ownLabel && len(values) == 1 && values[0] == node &&
					slices.Contains([]string{"=", "==", "in"}, string(requirement.Operator())) {
					return ""
				}
			}
		}
		return "can only list/watch persistentvolumes with " + ownLabel + " label selector"
	case "get", "update", "patch":
	default:
		return "a node may not do this to persistentvolumes"
	}
	if volume := a.volumes.Volume(request.GetName()); volume != nil && volume.Labels[ownLabel] == node {
		return ""
	}
	if request.GetVerb() != "get" {
		return noRelation(node)
	}
	found := false
	a.eachVolume(node, func(volume *corev1.PersistentVolume) { found = found || volume.Name == request.GetName() })
	if !found {
		return noRelation(node)
	}
	return ""
}

func volumeAttachments(a *Authorizer, node string, request authorizer.Attributes) string {
	switch {
	case request.GetVerb() != "get":
		return "can only get individual resources of this type"
	case request.GetSubresource() != "":
		return "cannot get subresource"
	}
	if attachment := a.volumes.Attachment(request.GetName()); attachment == nil || attachment.Spec.NodeName != node {
		return noRelation(node)
	}
	return ""
}

func csiNodes(_ *Authorizer, node string, request authorizer.Attributes) string {
	switch {
	case request.GetSubresource() != "":
		return "cannot authorize CSINode subresources"
	case !slices.Contains([]string{"get", "create", "update", "patch", "delete"}, request.GetVerb()):
		return "can only get, create, update, patch, or delete a CSINode"
	case request.GetVerb() != "create" && request.GetName() != node:
		return "can only access CSINode with the same name as the requesting node"
	}
	return ""
}
