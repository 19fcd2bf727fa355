package podworker

import (
	"context"
	"time"

	v1 "k8s.io/api/core/v1"

	"github.com/skiff-run/skiff/agent/plan"
	"github.com/skiff-run/skiff/agent/podstate"
)

// stopOrder says whose turn it is when a pod ends: a sidecar waits for all
// regular containers and for the sidecars that were started after it.
type stopOrder struct {
	// ended is closed for every container that ran, by id.
	ended map[string]chan struct{}
	// before are the ids a container has to wait for, by its name.
	before map[string][]string
}

func newStopOrder(pod *v1.Pod, state *podstate.Pod) *stopOrder {
	o := &stopOrder{ended: map[string]chan struct{}{}, before: map[string][]string{}}
	running := map[string][]string{}
	for i := range state.Containers {
		if c := &state.Containers[i]; mayRun(c) {
			o.ended[c.ID] = make(chan struct{})
			running[c.Name] = append(running[c.Name], c.ID)
		}
	}
	var earlier []string
	for i := range pod.Spec.Containers {
		earlier = append(earlier, running[pod.Spec.Containers[i].Name]...)
	}
	for i := len(pod.Spec.InitContainers) - 1; i >= 0; i-- {
		c := &pod.Spec.InitContainers[i]
		if plan.IsSidecar(c) {
			o.before[c.Name] = append([]string(nil), earlier...)
			earlier = append(earlier, running[c.Name]...)
		}
	}
	return o
}

// wait returns when it is the container's turn, or after limit, or when ctx ends.
func (o *stopOrder) wait(ctx context.Context, c *podstate.Container, limit time.Duration) {
	timer := time.NewTimer(limit)
	defer timer.Stop()
	for _, id := range o.before[c.Name] {
		select {
		case <-o.ended[id]:
		case <-timer.C:
			return
		case <-ctx.Done():
			return
		}
	}
}

// done tells those who wait. It must be called once for every container that ran.
func (o *stopOrder) done(c *podstate.Container) { close(o.ended[c.ID]) }
