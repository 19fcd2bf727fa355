package podworker

import (
	"context"
	"fmt"
	"sync"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	v1 "k8s.io/api/core/v1"

	"github.com/skiff-run/skiff/agent/event"
	"github.com/skiff-run/skiff/agent/podstate"
)

// minimumGrace in seconds is given to every container, so that the usual
// SIGTERM is not followed by SIGKILL at once.
const minimumGrace = 2

const defaultGrace = 30

// gracePeriod is how long the pod may take to end, in seconds.
func gracePeriod(pod *v1.Pod) int64 {
	switch {
	case pod.DeletionTimestamp != nil && pod.DeletionGracePeriodSeconds != nil:
		return *pod.DeletionGracePeriodSeconds
	case pod.Spec.TerminationGracePeriodSeconds != nil:
		return *pod.Spec.TerminationGracePeriodSeconds
	}
	return defaultGrace
}

// stopPod ends all containers, then the sandboxes. All preStop hooks run at the
// same time; then regular containers end, and sidecars after them, the last one
// first. The pod's time runs for all of them together.
func (w *worker) stopPod(ctx context.Context, pod *v1.Pod, state *podstate.Pod, grace int64) {
	ips := w.podIPs(pod, state)
	order := newStopOrder(pod, state)
	var wg sync.WaitGroup
	for i := range state.Containers {
		c := &state.Containers[i]
		if !mayRun(c) {
			continue
		}
		wg.Go(func() {
			defer order.done(c)
			w.stopContainer(ctx, pod, c, ips, grace, "", order)
		})
	}
	wg.Wait()
	if ctx.Err() != nil {
		return
	}
	for i := range state.Sandboxes {
		if !state.Sandboxes[i].Ready {
			continue
		}
		if err := w.Runtime.StopPodSandbox(ctx, state.Sandboxes[i].ID); err != nil && !notFound(err) && ctx.Err() == nil {
			w.Events.Eventf(event.Pod(pod), v1.EventTypeWarning, event.FailedKillPod, "error killing pod: %v", err)
			w.Logger.Warn("stop a sandbox", "pod", pod.Name, "namespace", pod.Namespace, "sandbox", state.Sandboxes[i].ID, "error", err)
		}
	}
}

func mayRun(c *podstate.Container) bool {
	return c.State == podstate.Running || c.State == podstate.Unknown
}

// stopContainer runs the preStop hook, waits for the container's turn when the
// whole pod ends, and ends the container; all of it within the grace period.
func (w *worker) stopContainer(ctx context.Context, pod *v1.Pod, c *podstate.Container, ips []string, grace int64, message string, order *stopOrder) {
	if message == "" {
		message = fmt.Sprintf("Stopping container %s", c.Name)
	}
	ref := event.Container(pod, c.Name)
	w.Events.Eventf(ref, v1.EventTypeNormal, event.Killing, "%v", message)
	began := w.Now()
	left := func() int64 { return grace - int64(w.Now().Sub(began)/time.Second) }
	if handler := preStop(pod, c); handler != nil && grace > 0 {
		hookCtx, cancel := context.WithTimeout(ctx, time.Duration(grace)*time.Second)
		if _, err := w.Hooks.Run(hookCtx, pod, specOf(pod, c.Name), c.ID, first(ips), handler); err != nil && hookCtx.Err() == nil {
			w.Events.Eventf(ref, v1.EventTypeWarning, event.FailedPreStop, "PreStopHook failed")
		}
		cancel()
	}
	if order != nil && left() > 0 {
		order.wait(ctx, c, time.Duration(left())*time.Second)
	}
	if ctx.Err() != nil {
		return
	}
	if err := w.Runtime.StopContainer(ctx, c.ID, max(left(), minimumGrace)); err != nil && !notFound(err) && ctx.Err() == nil {
		w.Logger.Warn("stop a container", "pod", pod.Name, "namespace", pod.Namespace, "container", c.Name, "error", err)
	}
}

// preStop finds the hook in the spec, or on the container when the spec is lost.
func preStop(pod *v1.Pod, c *podstate.Container) *v1.LifecycleHandler {
	spec := specOf(pod, c.Name)
	if len(pod.Spec.Containers) == 0 {
		return c.Record.PreStop
	}
	if spec.Lifecycle == nil {
		return nil
	}
	return spec.Lifecycle.PreStop
}

// specOf returns the container's spec, or one with nothing but its name.
func specOf(pod *v1.Pod, name string) *v1.Container {
	for _, containers := range [][]v1.Container{pod.Spec.Containers, pod.Spec.InitContainers} {
		for i := range containers {
			if containers[i].Name == name {
				return &containers[i]
			}
		}
	}
	for i := range pod.Spec.EphemeralContainers {
		if pod.Spec.EphemeralContainers[i].Name == name {
			return (*v1.Container)(&pod.Spec.EphemeralContainers[i].EphemeralContainerCommon)
		}
	}
	return &v1.Container{Name: name}
}

func notFound(err error) bool { return status.Code(err) == codes.NotFound }
