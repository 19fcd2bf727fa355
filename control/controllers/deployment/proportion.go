package deployment

import (
	"math"
	"slices"

	appsv1 "k8s.io/api/apps/v1"
)

// proportional returns the sizes the sets should have after the Deployment's size
// was changed. With one active set that one takes it all. In the middle of a
// rolling update each gets its share, so that scaling does not hasten a rollout
// which may be going wrong.
func proportional(d *appsv1.Deployment, newSet *appsv1.ReplicaSet, oldSets []*appsv1.ReplicaSet) []sizeChange {
	all := slices.Clone(oldSets)
	if newSet != nil {
		all = append(all, newSet)
	}
	if len(all) == 0 {
		return nil
	}
	desired := *d.Spec.Replicas
	running := active(all)
	switch {
	case len(running) == 0:
		latest := newSet
		if latest == nil {
			latest = slices.MaxFunc(oldSets, byAge)
		}
		return []sizeChange{{set: latest, size: desired}}
	case len(running) == 1:
		return []sizeChange{{set: running[0], size: desired}}
	case saturated(d, newSet):
		var changes []sizeChange
		for _, set := range active(oldSets) {
			changes = append(changes, sizeChange{set: set})
		}
		return changes
	case d.Spec.Strategy.Type != appsv1.RollingUpdateDeploymentStrategyType:
		return nil
	}
	return shares(d, running)
}

// shares distributes what is to be added or removed over the active sets by their
// size, the larger first, the rest to the largest.
func shares(d *appsv1.Deployment, running []*appsv1.ReplicaSet) []sizeChange {
	allowed := int32(0)
	if *d.Spec.Replicas > 0 {
		allowed = *d.Spec.Replicas + maxSurge(d)
	}
	toAdd := allowed - sum(running, wanted)
	switch {
	case toAdd > 0:
		slices.SortFunc(running, bySize(false))
	case toAdd < 0:
		slices.SortFunc(running, bySize(true))
	}
	changes := make([]sizeChange, len(running))
	added := int32(0)
	for i, set := range running {
		share := int32(0)
		switch {
		case toAdd > 0:
			share = min(fraction(d, set), toAdd-added)
		case toAdd < 0:
			share = max(fraction(d, set), toAdd-added)
		}
		if added == toAdd {
			share = 0
		}
		added += share
		changes[i] = sizeChange{set: set, size: wanted(set) + share, always: true}
	}
	if toAdd != 0 {
		changes[0].size = max(changes[0].size+toAdd-added, 0)
	}
	return changes
}

// fraction returns by how much the set should grow (or shrink, when negative) to
// keep its part of the Deployment.
func fraction(d *appsv1.Deployment, set *appsv1.ReplicaSet) int32 {
	if *d.Spec.Replicas == 0 {
		return -wanted(set)
	}
	before, known := maxReplicas(set)
	if !known || before == 0 {
		// The note was tampered with: the present size is the best guess.
		if before = d.Status.Replicas; before == 0 {
			return 0
		}
	}
	now := float64(wanted(set)) * float64(*d.Spec.Replicas+maxSurge(d)) / float64(before)
	return int32(math.Round(now)) - wanted(set)
}

// saturated tells whether the new set has all the replicas the Deployment wants,
// all available, and was told so.
func saturated(d *appsv1.Deployment, newSet *appsv1.ReplicaSet) bool {
	if newSet == nil {
		return false
	}
	desired, known := desiredReplicas(newSet)
	return known && desired == *d.Spec.Replicas && wanted(newSet) == *d.Spec.Replicas && available(newSet) == *d.Spec.Replicas
}
