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
	"github.com/skiff-run/skiff/agent/plan"
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

// stopPod ends all containers, then the sandboxes. Regular containers end at
// the same time; sidecars after them, the last one first.
func (w *worker) stopPod(ctx context.Context, pod *v1.Pod, state *podstate.Pod, grace int64) {
	ips := w.podIPs(pod, state)
	began := w.Now()
	sidecars := map[string]int{}
	for i := range pod.Spec.InitContainers {
		if plan.IsSidecar(&pod.Spec.InitContainers[i]) {
			sidecars[pod.Spec.InitContainers[i].Name] = i
		}
	}
	later := make([][]*podstate.Container, len(pod.Spec.InitContainers))
	var group []*podstate.Container
	for i := range state.Containers {
		c := &state.Containers[i]
		if c.State != podstate.Running && c.State != podstate.Unknown {
			continue
		}
		if at, is := sidecars[c.Name]; is {
			later[at] = append(later[at], c)
			continue
		}
		group = append(group, c)
	}
	w.stopContainers(ctx, pod, group, ips, grace)
	for i := len(later) - 1; i >= 0; i-- {
		// The pod's time runs for all of them together.
		left := grace - int64(w.Now().Sub(began)/time.Second)
		w.stopContainers(ctx, pod, later[i], ips, max(left, 0))
	}
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

func (w *worker) stopContainers(ctx context.Context, pod *v1.Pod, containers []*podstate.Container, ips []string, grace int64) {
	var wg sync.WaitGroup
	for _, c := range containers {
		wg.Go(func() { w.stopContainer(ctx, pod, c, ips, grace, "") })
	}
	wg.Wait()
}

// stopContainer runs the preStop hook and ends the container; both share the
// grace period.
func (w *worker) stopContainer(ctx context.Context, pod *v1.Pod, c *podstate.Container, ips []string, grace int64, message string) {
	if message == "" {
		message = fmt.Sprintf("Stopping container %s", c.Name)
	}
	ref := event.Container(pod, c.Name)
	w.Events.Eventf(ref, v1.EventTypeNormal, event.Killing, "%v", message)
	if handler := preStop(pod, c); handler != nil && grace > 0 {
		began := w.Now()
		hookCtx, cancel := context.WithTimeout(ctx, time.Duration(grace)*time.Second)
		if _, err := w.Hooks.Run(hookCtx, pod, specOf(pod, c.Name), c.ID, first(ips), handler); err != nil && hookCtx.Err() == nil {
			w.Events.Eventf(ref, v1.EventTypeWarning, event.FailedPreStop, "PreStopHook failed")
		}
		cancel()
		grace -= int64(w.Now().Sub(began) / time.Second)
	}
	if ctx.Err() != nil {
		return
	}
	if err := w.Runtime.StopContainer(ctx, c.ID, max(grace, minimumGrace)); err != nil && !notFound(err) && ctx.Err() == nil {
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
