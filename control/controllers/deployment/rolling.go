package deployment

import (
	"context"
	"slices"

	appsv1 "k8s.io/api/apps/v1"
	"k8s.io/kubectl/pkg/util/deployment"
)

// sizeChange is a decision to give a set a size.
type sizeChange struct {
	set  *appsv1.ReplicaSet
	size int32
	// always says that the set's notes about its Deployment are due even when the
	// size stays.
	always bool
}

// roll takes a rolling update one step further: up with the new set as far as
// the surge allows, else down with the old ones as far as availability allows.
func (r *rollout) roll(ctx context.Context) error {
	if err := r.syncNewSet(ctx, true); err != nil {
		return err
	}
	if scaled, err := r.scaleSet(ctx, r.newSet, newSetSize(r.d, r.all(), r.newSet), false); err != nil || scaled {
		return r.tellProgress(ctx, err)
	}
	for _, change := range oldSetSizes(r.d, r.newSet, r.oldSets) {
		if _, err := r.scaleSet(ctx, change.set, change.size, false); err != nil {
			return err
		}
	}
	if complete(r.d, &r.d.Status) {
		if err := r.cleanUp(ctx); err != nil {
			return err
		}
	}
	return r.tellProgress(ctx, nil)
}

// newSetSize returns how many replicas the new set may have now: as many as
// wanted, but with all others no more than the surge allows.
func newSetSize(d *appsv1.Deployment, all []*appsv1.ReplicaSet, newSet *appsv1.ReplicaSet) int32 {
	desired := *d.Spec.Replicas
	size := wanted(newSet)
	if size >= desired || d.Spec.Strategy.Type == appsv1.RecreateDeploymentStrategyType {
		return desired
	}
	room := desired + maxSurge(d) - sum(all, wanted)
	if room <= 0 {
		return size
	}
	return min(size+room, desired)
}

// oldSetSizes returns how far the old sets may shrink now. First go replicas
// that are not available anyway, for they would block the rollout; then so many
// available ones that maxUnavailable is kept, whatever the new set's pods do.
func oldSetSizes(d *appsv1.Deployment, newSet *appsv1.ReplicaSet, oldSets []*appsv1.ReplicaSet) []sizeChange {
	olds := active(oldSets)
	all := append(slices.Clone(olds), newSet)
	minAvailable := *d.Spec.Replicas - maxUnavailable(d)
	newUnavailable := wanted(newSet) - available(newSet)
	unhealthy := sum(all, wanted) - minAvailable - newUnavailable
	if len(olds) == 0 || unhealthy <= 0 {
		return nil
	}
	if slices.ContainsFunc(olds, func(set *appsv1.ReplicaSet) bool { return available(set) > wanted(set) }) {
		// A set that was just made smaller has not yet told how many are left. To
		// believe its figure would be to take the same replicas twice.
		return nil
	}
	slices.SortFunc(olds, byAge)
	sizes := make([]int32, len(olds))
	for i, set := range olds {
		cut := min(unhealthy, wanted(set)-available(set))
		sizes[i] = wanted(set) - cut
		unhealthy -= cut
	}
	healthy := sum(all, available) - minAvailable
	for i := range olds {
		cut := max(min(healthy, sizes[i]), 0)
		sizes[i] -= cut
		healthy -= cut
	}
	var changes []sizeChange
	for i, set := range olds {
		if sizes[i] != wanted(set) {
			changes = append(changes, sizeChange{set: set, size: sizes[i]})
		}
	}
	return changes
}

// fenceposts resolves maxSurge and maxUnavailable to numbers; of the two at least
// one is above zero, or the rollout could not move.
func fenceposts(d *appsv1.Deployment) (surge, unavailable int32) {
	if d.Spec.Strategy.Type != appsv1.RollingUpdateDeploymentStrategyType || d.Spec.Strategy.RollingUpdate == nil {
		return 0, 0
	}
	// Validation has caught what could be wrong with the values.
	surge, unavailable, _ = deployment.ResolveFenceposts(
		d.Spec.Strategy.RollingUpdate.MaxSurge, d.Spec.Strategy.RollingUpdate.MaxUnavailable, *d.Spec.Replicas)
	return surge, unavailable
}

func maxSurge(d *appsv1.Deployment) int32 {
	surge, _ := fenceposts(d)
	return surge
}

func maxUnavailable(d *appsv1.Deployment) int32 {
	_, unavailable := fenceposts(d)
	return min(unavailable, *d.Spec.Replicas)
}
