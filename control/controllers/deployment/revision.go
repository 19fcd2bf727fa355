package deployment

import (
	"cmp"
	"math"
	"slices"
	"strconv"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
)

// The annotations by which a Deployment's history is kept on its ReplicaSets.
const (
	revisionAnnotation = "deployment.kubernetes.io/revision"
	historyAnnotation  = "deployment.kubernetes.io/revision-history"
	desiredAnnotation  = "deployment.kubernetes.io/desired-replicas"
	maxAnnotation      = "deployment.kubernetes.io/max-replicas"
)

// historyLength bounds historyAnnotation, in characters.
const historyLength = 2000

// ownAnnotation tells whether an annotation belongs to one object and is not
// copied between a Deployment and its sets.
func ownAnnotation(name string) bool {
	switch name {
	case corev1.LastAppliedConfigAnnotation, revisionAnnotation, historyAnnotation, desiredAnnotation, maxAnnotation,
		appsv1.DeprecatedRollbackTo:
		return true
	}
	return false
}

// revision returns the set's revision, zero when it has none; false when it is not
// a number.
func revision(set *appsv1.ReplicaSet) (int64, bool) {
	text, annotated := set.Annotations[revisionAnnotation]
	if !annotated {
		return 0, true
	}
	number, err := strconv.ParseInt(text, 10, 64)
	return number, err == nil
}

// highestRevision returns the highest revision among the sets.
func highestRevision(sets []*appsv1.ReplicaSet) int64 {
	highest := int64(0)
	for _, set := range sets {
		if number, ok := revision(set); ok {
			highest = max(highest, number)
		}
	}
	return highest
}

// lastRevision returns the revision before the highest.
func lastRevision(sets []*appsv1.ReplicaSet) int64 {
	numbers := []int64{0, 0}
	for _, set := range sets {
		if number, ok := revision(set); ok {
			numbers = append(numbers, number)
		}
	}
	slices.Sort(numbers)
	return numbers[len(numbers)-2]
}

// byRevision puts the oldest revision first.
func byRevision(a, b *appsv1.ReplicaSet) int {
	revisionA, okA := revision(a)
	revisionB, okB := revision(b)
	if !okA || !okB {
		return byAge(a, b)
	}
	return cmp.Or(cmp.Compare(revisionA, revisionB), byAge(a, b))
}

// annotate gives the Deployment's new set the Deployment's annotations and a
// revision of at least newRevision, and tells whether that changed it. A set that
// had a lower revision served before; its former numbers go into the history.
func annotate(d *appsv1.Deployment, set *appsv1.ReplicaSet, newRevision int64) bool {
	changed := false
	if set.Annotations == nil {
		set.Annotations = map[string]string{}
	}
	for name, value := range d.Annotations {
		if old, has := set.Annotations[name]; ownAnnotation(name) || (has && old == value) {
			continue
		}
		set.Annotations[name] = value
		changed = true
	}
	oldText, had := set.Annotations[revisionAnnotation]
	old, ok := revision(set)
	if !ok && oldText != "" {
		// Somebody wrote something else there; it is not ours to repair.
		return changed
	}
	if old >= newRevision {
		return changed
	}
	set.Annotations[revisionAnnotation] = strconv.FormatInt(newRevision, 10)
	if had {
		if history, fits := appendHistory(set.Annotations[historyAnnotation], oldText); fits {
			set.Annotations[historyAnnotation] = history
		}
	}
	return true
}

// appendHistory adds a revision to a comma-separated history and drops its oldest
// entries to stay within bounds.
func appendHistory(history, former string) (string, bool) {
	if history == "" {
		return former, true
	}
	entries := strings.Split(history, ",")
	length := len(history) + 1 + len(former)
	for length > historyLength && len(entries) > 0 {
		length -= len(entries[0]) + 1
		entries = entries[1:]
	}
	if length > historyLength {
		return "", false
	}
	return strings.Join(append(entries, former), ","), true
}

// noteSize writes into the set which size its Deployment has, and tells whether
// that changed it.
func noteSize(d *appsv1.Deployment, set *appsv1.ReplicaSet) bool {
	desired := strconv.Itoa(int(*d.Spec.Replicas))
	most := strconv.Itoa(int(*d.Spec.Replicas + maxSurge(d)))
	if set.Annotations[desiredAnnotation] == desired && set.Annotations[maxAnnotation] == most {
		return false
	}
	if set.Annotations == nil {
		set.Annotations = map[string]string{}
	}
	set.Annotations[desiredAnnotation], set.Annotations[maxAnnotation] = desired, most
	return true
}

// desiredReplicas returns the Deployment's size when the set was last sized.
func desiredReplicas(set *appsv1.ReplicaSet) (int32, bool) { return sizeNote(set, desiredAnnotation) }

// maxReplicas is desiredReplicas plus the surge that was allowed.
func maxReplicas(set *appsv1.ReplicaSet) (int32, bool) { return sizeNote(set, maxAnnotation) }

func sizeNote(set *appsv1.ReplicaSet, name string) (int32, bool) {
	number, err := strconv.ParseUint(set.Annotations[name], 10, 32)
	if err != nil || number > math.MaxInt32 {
		return 0, false
	}
	return int32(number), true
}
