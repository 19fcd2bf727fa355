package plugins

import (
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/component-helpers/storage/ephemeral"

	"github.com/skiff-run/skiff/control/scheduler/framework"
)

// volumeRestrictions gives a claim that is for one pod only to one pod.
type volumeRestrictions struct{ *Volumes }

func (volumeRestrictions) Name() string { return "VolumeRestrictions" }
func (volumeRestrictions) Events() framework.Event {
	return framework.NodeAdded | framework.AssignedPodRemoved | framework.StorageChanged
}

func (f volumeRestrictions) Prepare(pod *framework.PodInfo, snapshot *framework.Snapshot) framework.Check {
	exclusive := sets.New[string]()
	for i := range pod.Pod.Spec.Volumes {
		claim, err := f.claim(pod.Pod, &pod.Pod.Spec.Volumes[i])
		if err == nil && claim != nil && sets.New(claim.Spec.AccessModes...).Has(corev1.ReadWriteOncePod) {
			exclusive.Insert(claim.Name)
		}
	}
	if exclusive.Len() == 0 {
		return nil
	}
	for _, node := range snapshot.Nodes {
		for uid, other := range node.Pods {
			if uid == pod.Pod.UID || other.Pod.Namespace != pod.Pod.Namespace || !exclusive.HasAny(claimNames(other.Pod)...) {
				continue
			}
			return func(*framework.NodeInfo) *framework.Rejection {
				return reject("node(s) unavailable due to PersistentVolumeClaim with ReadWriteOncePod access mode already in-use by another pod")
			}
		}
	}
	return nil
}

// claimNames are the claims a pod uses, by name.
func claimNames(pod *corev1.Pod) []string {
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

// nodeVolumeLimits keeps a driver's volumes on a node to what the driver can serve
// there.
type nodeVolumeLimits struct{ *Volumes }

func (nodeVolumeLimits) Name() string { return "NodeVolumeLimits" }
func (nodeVolumeLimits) Events() framework.Event {
	return framework.NodeAdded | framework.AssignedPodRemoved | framework.StorageChanged
}

func (f nodeVolumeLimits) Prepare(pod *framework.PodInfo, _ *framework.Snapshot) framework.Check {
	wanted := f.handles(pod.Pod)
	if len(wanted) == 0 {
		return nil
	}
	return func(node *framework.NodeInfo) *framework.Rejection {
		csiNode, err := f.Nodes.Get(node.Node.Name)
		if err != nil {
			return nil
		}
		for i := range csiNode.Spec.Drivers {
			driver := &csiNode.Spec.Drivers[i]
			if driver.Allocatable == nil || driver.Allocatable.Count == nil || wanted[driver.Name].Len() == 0 {
				continue
			}
			used := sets.New[string]()
			for _, other := range node.Pods {
				used = used.Union(f.handles(other.Pod)[driver.Name])
			}
			if added := wanted[driver.Name].Difference(used); added.Len() > 0 && used.Len()+added.Len() > int(*driver.Allocatable.Count) {
				return reject("node(s) exceed max volume count")
			}
		}
		return nil
	}
}

// handles are the volumes of CSI drivers that a pod has attached, by driver. A
// claim that has no volume yet counts as one of its class's driver.
func (f nodeVolumeLimits) handles(pod *corev1.Pod) map[string]sets.Set[string] {
	var found map[string]sets.Set[string]
	add := func(driver, handle string) {
		if found == nil {
			found = map[string]sets.Set[string]{}
		}
		if found[driver] == nil {
			found[driver] = sets.New[string]()
		}
		found[driver].Insert(handle)
	}
	for i := range pod.Spec.Volumes {
		claim, err := f.claim(pod, &pod.Spec.Volumes[i])
		if err != nil || claim == nil {
			continue
		}
		if claim.Spec.VolumeName != "" {
			if volume, err := f.Volumes.Volumes.Get(claim.Spec.VolumeName); err == nil && volume.Spec.CSI != nil {
				add(volume.Spec.CSI.Driver, volume.Spec.CSI.VolumeHandle)
			}
			continue
		}
		if claim.Spec.StorageClassName == nil {
			continue
		}
		if class, err := f.Classes.Get(*claim.Spec.StorageClassName); err == nil {
			add(class.Provisioner, claim.Namespace+"/"+claim.Name)
		}
	}
	return found
}

// volumeZone keeps pods to the zones that the labels of their volumes name.
type volumeZone struct{ *Volumes }

func (volumeZone) Name() string            { return "VolumeZone" }
func (volumeZone) Events() framework.Event { return volumeEvents }

// zoneLabels of volumes, each with the name that nodes may have it under as well.
var zoneLabels = map[string]string{
	corev1.LabelTopologyZone: corev1.LabelTopologyZone, corev1.LabelTopologyRegion: corev1.LabelTopologyRegion,
	corev1.LabelFailureDomainBetaZone: corev1.LabelTopologyZone, corev1.LabelFailureDomainBetaRegion: corev1.LabelTopologyRegion,
}

func (f volumeZone) Prepare(pod *framework.PodInfo, _ *framework.Snapshot) framework.Check {
	type bond struct {
		key    string
		values sets.Set[string]
	}
	var bonds []bond
	for i := range pod.Pod.Spec.Volumes {
		claim, err := f.claim(pod.Pod, &pod.Pod.Spec.Volumes[i])
		if err != nil || claim == nil || claim.Spec.VolumeName == "" {
			continue
		}
		volume, err := f.Volumes.Volumes.Get(claim.Spec.VolumeName)
		if err != nil {
			continue
		}
		for key := range zoneLabels {
			if value, has := volume.Labels[key]; has {
				// A volume in several zones joins their names so.
				bonds = append(bonds, bond{key, sets.New(strings.Split(value, "__")...)})
			}
		}
	}
	if len(bonds) == 0 {
		return nil
	}
	return func(node *framework.NodeInfo) *framework.Rejection {
		constrained := false
		for key := range zoneLabels {
			_, has := node.Node.Labels[key]
			constrained = constrained || has
		}
		if !constrained {
			return nil
		}
		for _, b := range bonds {
			value, has := node.Node.Labels[b.key]
			if !has {
				value, has = node.Node.Labels[zoneLabels[b.key]]
			}
			if !has || !b.values.Has(value) {
				return rejectForGood("node(s) had no available volume zone")
			}
		}
		return nil
	}
}
