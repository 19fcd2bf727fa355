package podworker

import (
	"context"
	"errors"

	v1 "k8s.io/api/core/v1"

	"github.com/skiff-run/skiff/agent/podstate"
)

// RemoveEnded removes the containers of pods that have ended, which are kept for their logs otherwise: the
// disk is needed.
func (p *Pool) RemoveEnded(ctx context.Context) error {
	type ended struct {
		w   *worker
		pod *v1.Pod
	}
	var list []ended
	p.mu.Lock()
	for _, w := range p.workers {
		if pod, counts := w.holdsResources(); !counts {
			list = append(list, ended{w, pod})
		}
	}
	p.mu.Unlock()
	var errs []error
	for _, e := range list {
		state, err := podstate.NewObserver(p.config.Runtime, e.w.uid).Observe(ctx)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		for i := range state.Containers {
			if state.Containers[i].State == podstate.Exited {
				errs = append(errs, e.w.removeContainer(ctx, e.pod, &state.Containers[i]))
			}
		}
	}
	return errors.Join(errs...)
}
