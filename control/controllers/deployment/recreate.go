package deployment

import (
	"context"
	"fmt"

	"github.com/skiff-run/skiff/control/controllers/podstate"
)

// recreate takes a Deployment of strategy Recreate one step further: all old pods
// down, and only when the last one is gone, all new ones up.
func (r *rollout) recreate(ctx context.Context) error {
	if err := r.syncNewSet(ctx, false); err != nil {
		return err
	}
	scaledDown := false
	for _, set := range active(r.oldSets) {
		scaled, err := r.scaleSet(ctx, set, 0, false)
		if err != nil {
			return err
		}
		scaledDown = scaledDown || scaled
	}
	if scaledDown {
		return r.tellProgress(ctx, nil)
	}
	running, err := r.oldPodsRunning()
	if err != nil || running {
		return r.tellProgress(ctx, err)
	}
	if err := r.syncNewSet(ctx, true); err != nil {
		return err
	}
	if _, err := r.scaleSet(ctx, r.newSet, *r.d.Spec.Replicas, false); err != nil {
		return err
	}
	if complete(r.d, &r.d.Status) {
		if err := r.cleanUp(ctx); err != nil {
			return err
		}
	}
	return r.tellProgress(ctx, nil)
}

// oldPodsRunning tells whether an old set has, or thinks it has, pods whose
// containers may still run.
func (r *rollout) oldPodsRunning() (bool, error) {
	for _, set := range r.oldSets {
		if existing(set) > 0 {
			return true, nil
		}
		pods, err := podstate.ControlledBy(r.pods, set.UID)
		if err != nil {
			return false, fmt.Errorf("pods of replica set %s: %w", set.Name, err)
		}
		for _, pod := range pods {
			if !podstate.Finished(pod) {
				return true, nil
			}
		}
	}
	return false, nil
}
