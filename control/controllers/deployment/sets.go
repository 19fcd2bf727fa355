package deployment

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"hash/fnv"
	"maps"
	"slices"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/rand"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/utils/dump"
)

// hashLabel tells the pods of one ReplicaSet of a Deployment from another's.
const hashLabel = appsv1.DefaultDeploymentUniqueLabelKey

// split finds the set that has the Deployment's template; if several have, the
// oldest one is it. All others are old.
func split(d *appsv1.Deployment, sets []*appsv1.ReplicaSet) (newSet *appsv1.ReplicaSet, oldSets []*appsv1.ReplicaSet) {
	sets = slices.Clone(sets)
	slices.SortFunc(sets, byAge)
	for _, set := range sets {
		if newSet == nil && sameTemplate(&set.Spec.Template, &d.Spec.Template) {
			newSet = set
			continue
		}
		oldSets = append(oldSets, set)
	}
	return newSet, oldSets
}

// byAge puts the oldest set first.
func byAge(a, b *appsv1.ReplicaSet) int {
	return cmp.Or(a.CreationTimestamp.Compare(b.CreationTimestamp.Time), cmp.Compare(a.Name, b.Name))
}

// bySize puts the largest set first; older says which of two equal ones is first.
func bySize(olderFirst bool) func(a, b *appsv1.ReplicaSet) int {
	return func(a, b *appsv1.ReplicaSet) int {
		age := byAge(a, b)
		if !olderFirst {
			age = -age
		}
		return cmp.Or(cmp.Compare(*b.Spec.Replicas, *a.Spec.Replicas), age)
	}
}

// active returns the sets that have, or ought to have, pods.
func active(sets []*appsv1.ReplicaSet) []*appsv1.ReplicaSet {
	var found []*appsv1.ReplicaSet
	for _, set := range sets {
		if *set.Spec.Replicas > 0 {
			found = append(found, set)
		}
	}
	return found
}

// sum adds up a figure of all sets.
func sum(sets []*appsv1.ReplicaSet, figure func(*appsv1.ReplicaSet) int32) int32 {
	total := int32(0)
	for _, set := range sets {
		total += figure(set)
	}
	return total
}

func wanted(set *appsv1.ReplicaSet) int32    { return *set.Spec.Replicas }
func available(set *appsv1.ReplicaSet) int32 { return set.Status.AvailableReplicas }
func existing(set *appsv1.ReplicaSet) int32  { return set.Status.Replicas }
func ready(set *appsv1.ReplicaSet) int32     { return set.Status.ReadyReplicas }

// sameTemplate compares templates but for the label with the hash, which a
// Deployment's own template does not have.
func sameTemplate(a, b *corev1.PodTemplateSpec) bool {
	return equality.Semantic.DeepEqual(withoutHash(a), withoutHash(b))
}

func withoutHash(template *corev1.PodTemplateSpec) *corev1.PodTemplateSpec {
	if _, has := template.Labels[hashLabel]; !has {
		return template
	}
	plain := *template
	plain.Labels = maps.Clone(template.Labels)
	delete(plain.Labels, hashLabel)
	return &plain
}

// templateHash is Kubernetes' own pod-template-hash: FNV-1a over a dump of the
// Go value, so the same manifest gets the same ReplicaSet name as it does there.
func templateHash(template *corev1.PodTemplateSpec, collisions *int32) string {
	hash := fnv.New32a()
	fmt.Fprintf(hash, "%v", dump.ForHash(*template))
	if collisions != nil {
		// Eight bytes, of which a count of 32 bits fills four.
		hash.Write(binary.LittleEndian.AppendUint64(nil, uint64(uint32(*collisions))))
	}
	return rand.SafeEncodeString(fmt.Sprint(hash.Sum32()))
}

// setName is the name of the Deployment's set with the given hash, cut so that it
// stays a valid name.
func setName(deployment, hash string) string {
	room := validation.DNS1123SubdomainMaxLength - len("-") - len(hash)
	if len(deployment) > room && room > 0 {
		deployment = deployment[:room]
	}
	return deployment + "-" + hash
}

// buildSet returns the ReplicaSet for the Deployment's template, without size and
// annotations.
func buildSet(d *appsv1.Deployment) *appsv1.ReplicaSet {
	template := d.Spec.Template.DeepCopy()
	hash := templateHash(template, d.Status.CollisionCount)
	template.Labels = maps.Clone(template.Labels)
	if template.Labels == nil {
		template.Labels = map[string]string{}
	}
	template.Labels[hashLabel] = hash
	selector := d.Spec.Selector.DeepCopy()
	if selector.MatchLabels == nil {
		selector.MatchLabels = map[string]string{}
	}
	selector.MatchLabels[hashLabel] = hash
	return &appsv1.ReplicaSet{
		ObjectMeta: metav1.ObjectMeta{
			Name: setName(d.Name, hash), Namespace: d.Namespace, Labels: maps.Clone(template.Labels),
			OwnerReferences: []metav1.OwnerReference{*metav1.NewControllerRef(d, kind)},
		},
		Spec: appsv1.ReplicaSetSpec{
			Replicas: new(int32), MinReadySeconds: d.Spec.MinReadySeconds, Selector: selector, Template: *template,
		},
	}
}
