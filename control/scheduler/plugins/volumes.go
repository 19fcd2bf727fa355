package plugins

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	corelisters "k8s.io/client-go/listers/core/v1"
	storagelisters "k8s.io/client-go/listers/storage/v1"
	"k8s.io/component-helpers/storage/ephemeral"
	volumehelper "k8s.io/component-helpers/storage/volume"
	"k8s.io/utils/ptr"

	"github.com/skiff-run/skiff/control/scheduler/framework"
)

// Volumes is what volume rules read beside the snapshot.
type Volumes struct {
	Claims     corelisters.PersistentVolumeClaimLister
	Volumes    corelisters.PersistentVolumeLister
	Classes    storagelisters.StorageClassLister
	Drivers    storagelisters.CSIDriverLister
	Nodes      storagelisters.CSINodeLister
	Capacities storagelisters.CSIStorageCapacityLister
	// Assumed returns what was decided of a volume or a claim and is not in the API
	// yet: the claim that gets the volume, and the node that was chosen for a claim.
	AssumedClaim func(volume string) (types.UID, bool)
	AssumedNode  func(claim types.UID) (string, bool)
}

// PodClaims are the claims of a pod by what has to be done for them.
type PodClaims struct {
	Bound []*corev1.PersistentVolumeClaim
	// Delayed wait for a node to be chosen.
	Delayed []*corev1.PersistentVolumeClaim
}

// OfPod sorts the claims of a pod. The error is the reason why the pod can be
// nowhere.
func (v *Volumes) OfPod(pod *corev1.Pod) (PodClaims, error) {
	var claims PodClaims
	immediate := false
	for i := range pod.Spec.Volumes {
		claim, err := v.claim(pod, &pod.Spec.Volumes[i])
		if err != nil {
			return claims, err
		}
		if claim == nil {
			continue
		}
		if claim.Spec.VolumeName != "" && metav1.HasAnnotation(claim.ObjectMeta, volumehelper.AnnBindCompleted) {
			claims.Bound = append(claims.Bound, claim)
			continue
		}
		delayed, err := volumehelper.IsDelayBindingMode(claim, v.Classes)
		if err != nil {
			return claims, err
		}
		if delayed && claim.Spec.VolumeName == "" {
			claims.Delayed = append(claims.Delayed, claim)
		} else {
			immediate = true
		}
	}
	if immediate {
		return claims, errors.New("pod has unbound immediate PersistentVolumeClaims")
	}
	return claims, nil
}

// claim returns the claim behind a volume, nil when there is none.
func (v *Volumes) claim(pod *corev1.Pod, volume *corev1.Volume) (*corev1.PersistentVolumeClaim, error) {
	var name string
	switch {
	case volume.PersistentVolumeClaim != nil:
		name = volume.PersistentVolumeClaim.ClaimName
	case volume.Ephemeral != nil:
		name = ephemeral.VolumeClaimName(pod, volume)
	default:
		return nil, nil
	}
	claim, err := v.Claims.PersistentVolumeClaims(pod.Namespace).Get(name)
	switch {
	case apierrors.IsNotFound(err) && volume.Ephemeral != nil:
		return nil, fmt.Errorf("waiting for ephemeral volume controller to create the persistentvolumeclaim %q", name)
	case err != nil:
		return nil, err
	case claim.Status.Phase == corev1.ClaimLost:
		return nil, fmt.Errorf("persistentvolumeclaim %q bound to non-existent persistentvolume %q", name, claim.Spec.VolumeName)
	case claim.DeletionTimestamp != nil:
		return nil, fmt.Errorf("persistentvolumeclaim %q is being deleted", name)
	case volume.Ephemeral != nil:
		return claim, ephemeral.VolumeIsForPod(pod, claim)
	}
	return claim, nil
}

// Match is how the delayed claims of a pod are met on a node.
type Match struct {
	Static    []StaticBinding
	Provision []*corev1.PersistentVolumeClaim
}

// StaticBinding is a volume that exists, for a claim.
type StaticBinding struct {
	Volume *corev1.PersistentVolume
	Claim  *corev1.PersistentVolumeClaim
}

// On finds volumes for a pod's claims on a node. Reasons say why there are none.
func (v *Volumes) On(node *corev1.Node, claims PodClaims) (match Match, reasons []string) {
	for _, claim := range claims.Bound {
		volume, err := v.Volumes.Get(claim.Spec.VolumeName)
		if err != nil {
			reasons = append(reasons, "node(s) unavailable due to one or more pvc(s) bound to non-existent pv(s)")
			break
		}
		if volumehelper.CheckNodeAffinity(volume, node.Labels) != nil {
			reasons = append(reasons, "node(s) didn't match PersistentVolume's node affinity")
			break
		}
	}
	match, why := v.delayed(node, claims.Delayed)
	if why != "" {
		reasons = append(reasons, why)
	}
	return match, reasons
}

const noVolumes = "node(s) didn't find available persistent volumes to bind"

func (v *Volumes) delayed(node *corev1.Node, claims []*corev1.PersistentVolumeClaim) (match Match, why string) {
	if len(claims) == 0 {
		return match, ""
	}
	var search []*corev1.PersistentVolumeClaim
	for _, claim := range claims {
		chosen, has := claim.Annotations[volumehelper.AnnSelectedNode]
		if assumed, is := v.AssumedNode(claim.UID); is {
			chosen, has = assumed, true
		}
		switch {
		case !has:
			search = append(search, claim)
		case chosen != node.Name:
			return match, noVolumes
		default:
			match.Provision = append(match.Provision, claim)
		}
	}
	// The small ones first, so that they do not take what only large ones need.
	slices.SortStableFunc(search, func(a, b *corev1.PersistentVolumeClaim) int {
		small, large := a.Spec.Resources.Requests[corev1.ResourceStorage], b.Spec.Resources.Requests[corev1.ResourceStorage]
		return small.Cmp(large)
	})
	taken := map[string]*corev1.PersistentVolume{}
	for _, claim := range search {
		volume, err := volumehelper.FindMatchingVolume(claim, v.free(claim), node, taken, true, true)
		if err != nil {
			return match, noVolumes
		}
		if volume == nil {
			match.Provision = append(match.Provision, claim)
			continue
		}
		taken[volume.Name] = volume
		match.Static = append(match.Static, StaticBinding{volume, claim})
	}
	for _, claim := range match.Provision {
		if why := v.cannotProvision(claim, node); why != "" {
			return match, why
		}
	}
	return match, ""
}

// free lists the volumes of the claim's class that nobody else was given.
func (v *Volumes) free(claim *corev1.PersistentVolumeClaim) []*corev1.PersistentVolume {
	all, err := v.Volumes.List(labels.Everything())
	if err != nil {
		return nil
	}
	class := volumehelper.GetPersistentVolumeClaimClass(claim)
	free := slices.DeleteFunc(all, func(volume *corev1.PersistentVolume) bool {
		owner, assumed := v.AssumedClaim(volume.Name)
		return (assumed && owner != claim.UID) || volumehelper.GetPersistentVolumeClass(volume) != class
	})
	slices.SortFunc(free, func(a, b *corev1.PersistentVolume) int { return strings.Compare(a.Name, b.Name) })
	return free
}

func (v *Volumes) cannotProvision(claim *corev1.PersistentVolumeClaim, node *corev1.Node) string {
	class, err := v.Classes.Get(volumehelper.GetPersistentVolumeClaimClass(claim))
	if err != nil || class.Provisioner == volumehelper.NotSupportedProvisioner ||
		!allowed(class.AllowedTopologies, node.Labels) {
		return noVolumes
	}
	if !v.hasRoom(claim, class, node) {
		return "node(s) did not have enough free storage"
	}
	return ""
}

// allowed reports whether one of the terms, if there are any, has the node.
func allowed(terms []corev1.TopologySelectorTerm, node map[string]string) bool {
	for _, term := range terms {
		fits := true
		for _, requirement := range term.MatchLabelExpressions {
			value, has := node[requirement.Key]
			fits = fits && has && slices.Contains(requirement.Values, value)
		}
		if fits && len(term.MatchLabelExpressions) > 0 {
			return true
		}
	}
	return len(terms) == 0
}

// hasRoom asks what the driver has published of its capacity, if it does.
func (v *Volumes) hasRoom(claim *corev1.PersistentVolumeClaim, class *storagev1.StorageClass, node *corev1.Node) bool {
	driver, err := v.Drivers.Get(class.Provisioner)
	if err != nil || !ptr.Deref(driver.Spec.StorageCapacity, false) {
		return true
	}
	capacities, err := v.Capacities.List(labels.Everything())
	if err != nil {
		return false
	}
	wanted := claim.Spec.Resources.Requests[corev1.ResourceStorage]
	for _, capacity := range capacities {
		limit := capacity.MaximumVolumeSize
		if limit == nil {
			limit = capacity.Capacity
		}
		if capacity.StorageClassName != class.Name || limit == nil || limit.Value() < wanted.Value() || capacity.NodeTopology == nil {
			continue
		}
		if selector, err := metav1.LabelSelectorAsSelector(capacity.NodeTopology); err == nil && selector.Matches(labels.Set(node.Labels)) {
			return true
		}
	}
	return false
}

// volumeEvents are what may help a pod whose volumes were in the way.
const volumeEvents = framework.NodeAdded | framework.NodeLabelsChanged | framework.StorageChanged

// volumeBinding keeps pods to the nodes where their volumes are, or can be made.
type volumeBinding struct{ *Volumes }

func (volumeBinding) Name() string            { return "VolumeBinding" }
func (volumeBinding) Events() framework.Event { return volumeEvents }

func (f volumeBinding) Prepare(pod *framework.PodInfo, _ *framework.Snapshot) framework.Check {
	claims, err := f.OfPod(pod.Pod)
	if err != nil {
		return func(*framework.NodeInfo) *framework.Rejection {
			return &framework.Rejection{Reasons: []string{err.Error()}, Unresolvable: true, Everywhere: true}
		}
	}
	if len(claims.Bound)+len(claims.Delayed) == 0 {
		return nil
	}
	return func(node *framework.NodeInfo) *framework.Rejection {
		if _, reasons := f.On(node.Node, claims); len(reasons) > 0 {
			return rejectForGood(reasons...)
		}
		return nil
	}
}
