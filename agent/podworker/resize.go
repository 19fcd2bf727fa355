package podworker

import (
	"context"
	"fmt"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	utilerrors "k8s.io/apimachinery/pkg/util/errors"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/skiff-run/skiff/agent/allocation"
	"github.com/skiff-run/skiff/agent/event"
	"github.com/skiff-run/skiff/agent/plan"
	"github.com/skiff-run/skiff/agent/podstate"
	"github.com/skiff-run/skiff/agent/resources"
)

// resizing is what is known of a pod's resize besides the amounts: why it is put off, and that it is
// under way. It is guarded by the worker's mutex.
type resizing struct{ pending, progress *v1.PodCondition }

func (r resizing) conditions() []v1.PodCondition {
	var list []v1.PodCondition
	for _, c := range []*v1.PodCondition{r.pending, r.progress} {
		if c != nil {
			list = append(list, *c)
		}
	}
	return list
}

// resizingOf takes up what the API says of the resize of a pod that an earlier agent has begun.
func resizingOf(pod *v1.Pod) resizing {
	var r resizing
	for i := range pod.Status.Conditions {
		switch c := pod.Status.Conditions[i]; c.Type {
		case v1.PodResizePending:
			r.pending = &c
		case v1.PodResizeInProgress:
			r.progress = &c
		}
	}
	return r
}

// resizeCondition keeps the time of the old condition while the reason stays.
func (w *worker) resizeCondition(t v1.PodConditionType, old *v1.PodCondition, reason, message string, generation int64) *v1.PodCondition {
	now := metav1.NewTime(w.Now())
	c := &v1.PodCondition{
		Type: t, Status: v1.ConditionTrue, Reason: reason, Message: message, ObservedGeneration: generation, LastProbeTime: now, LastTransitionTime: now,
	}
	if old != nil && old.Reason == reason {
		c.LastTransitionTime = old.LastTransitionTime
	}
	return c
}

// putOff notes why the pod cannot have what it asks for.
func (w *worker) putOff(asked *v1.Pod, reason, message string) {
	name := event.ResizeInfeasible
	if reason != v1.PodReasonInfeasible {
		reason, name = v1.PodReasonDeferred, event.ResizeDeferred
	}
	w.mu.Lock()
	old := w.resizing.pending
	w.resizing.pending = w.resizeCondition(v1.PodResizePending, old, reason, message, asked.Generation)
	w.mu.Unlock()
	if old == nil || old.Reason != reason || old.ObservedGeneration != asked.Generation {
		w.Events.Eventf(event.Pod(asked), v1.EventTypeWarning, name, "%s", allocation.Message("Pod resize "+reason, asked, asked.Generation, message))
	}
	w.signal()
}

// granted notes that the pod was given what it asks for, and has the cgroups follow.
func (w *worker) granted(asked *v1.Pod) {
	w.mu.Lock()
	w.pod, _ = w.Allocations.Allocated(w.asked)
	w.resizing = resizing{progress: w.resizeCondition(v1.PodResizeInProgress, nil, "", "", asked.Generation)}
	delete(w.failed, plan.ResizeKey)
	w.mu.Unlock()
	w.Events.Eventf(event.Pod(asked), v1.EventTypeNormal, event.ResizeStarted, "%s", allocation.Message("Pod resize started", asked, asked.Generation, ""))
	w.signal()
}

// settleResize ends the resize when all that is allocated is in force.
func (w *worker) settleResize(pod *v1.Pod, actuated *allocation.Resources) []v1.PodCondition {
	same := actuated == nil || actuated.Equal(allocation.Of(pod))
	w.mu.Lock()
	done := w.resizing.progress
	switch {
	case !same && done == nil:
		w.resizing.progress = w.resizeCondition(v1.PodResizeInProgress, nil, "", "", pod.Generation)
		done = nil
	case same && done != nil:
		w.resizing.progress = nil
	default:
		done = nil
	}
	conditions := w.resizing.conditions()
	w.mu.Unlock()
	if done != nil {
		w.Events.Eventf(event.Pod(pod), v1.EventTypeNormal, event.ResizeCompleted, "%s", allocation.Message("Pod resize completed", pod, done.ObservedGeneration, ""))
		if w.resized != nil {
			w.resized()
		}
	}
	return conditions
}

// resize brings the cgroups of the pod and of its running containers to the allocated amounts.
// Failure is noted and tried again.
func (w *worker) resize(ctx context.Context, pod *v1.Pod, state *podstate.Pod) {
	err := w.actuate(ctx, pod, state)
	if ctx.Err() != nil {
		return
	}
	if err == nil {
		w.clearFailed(plan.ResizeKey)
		w.signal()
		return
	}
	w.mu.Lock()
	old, generation := w.resizing.progress, pod.Generation
	if old != nil {
		generation = old.ObservedGeneration
	}
	w.resizing.progress = w.resizeCondition(v1.PodResizeInProgress, old, v1.PodReasonError, err.Error(), generation)
	w.mu.Unlock()
	if old == nil || old.Reason != v1.PodReasonError || old.Message != err.Error() {
		w.Events.Eventf(event.Pod(pod), v1.EventTypeWarning, event.ResizeError, "%s", allocation.Message("Pod resize error", pod, generation, err.Error()))
	}
	w.setFailed(plan.ResizeKey, plan.Failed{Reason: v1.PodReasonError, Message: err.Error(), RetryAt: w.Now().Add(retryStart)})
}

// actuate widens the pod's cgroup to hold old and new amounts, changes the containers, and narrows it
// to the new ones: so no container has ever more than its pod.
func (w *worker) actuate(ctx context.Context, pod *v1.Pod, state *podstate.Pod) error {
	actuated, known := w.Allocations.Actuated(w.uid)
	if !known {
		return nil
	}
	before := actuated.Apply(pod)
	now, old := w.CRI.Limits.Pod(pod), w.CRI.Limits.Pod(before)
	if err := w.mayShrink(ctx, pod, before, state); err != nil {
		return err
	}
	if err := w.Cgroups.SetPod(ctx, pod, resources.Wider(old, now)); err != nil {
		return err
	}
	for _, containers := range [][]v1.Container{pod.Spec.InitContainers, pod.Spec.Containers} {
		for i := range containers {
			running := state.Latest(containers[i].Name)
			if running == nil || running.State != podstate.Running {
				continue // it starts with the new amounts
			}
			changed := w.CRI.Resources(pod, &containers[i])
			if resources.Same(changed, w.CRI.Resources(before, specOf(before, containers[i].Name))) {
				continue
			}
			err := w.Runtime.UpdateContainerResources(ctx, running.ID, &runtimeapi.ContainerResources{Linux: changed})
			if err != nil && !w.endedMeanwhile(ctx, running.ID) {
				return fmt.Errorf("container %q: %w", containers[i].Name, err)
			}
		}
	}
	if err := w.Cgroups.SetPod(ctx, pod, now); err != nil {
		return err
	}
	return w.Allocations.Actuate(w.uid, allocation.Of(pod))
}

// endedMeanwhile: a container that has ended needs no change.
func (w *worker) endedMeanwhile(ctx context.Context, id string) bool {
	response, err := w.Runtime.ContainerStatus(ctx, id, false)
	return err == nil && response.GetStatus().GetState() != runtimeapi.ContainerState_CONTAINER_RUNNING
}

// mayShrink refuses memory limits below what is in use: the kernel would kill for them.
func (w *worker) mayShrink(ctx context.Context, pod, before *v1.Pod, state *podstate.Pod) error {
	var errs []error
	shrinks := func(now, old int64) bool { return now != 0 && (old == 0 || now < old) }
	if now, old := w.CRI.Limits.Pod(pod).GetMemoryLimitInBytes(), w.CRI.Limits.Pod(before).GetMemoryLimitInBytes(); shrinks(now, old) {
		used, err := w.Cgroups.MemoryUsage(pod, "")
		if err != nil {
			return fmt.Errorf("unable to read memory usage for pod %q: %w", plan.FormatPod(pod), err)
		}
		if used >= uint64(now) {
			errs = append(errs, fmt.Errorf("attempting to set pod memory limit (%d) below current usage (%d)", now, used))
		}
	}
	for i := range state.Containers {
		c := &state.Containers[i]
		spec, was := specOf(pod, c.Name), specOf(before, c.Name)
		now := w.CRI.Resources(pod, spec).GetMemoryLimitInBytes()
		if c.State != podstate.Running || !shrinks(now, w.CRI.Resources(before, was).GetMemoryLimitInBytes()) {
			continue
		}
		used, err := w.Cgroups.MemoryUsage(pod, c.ID)
		if err != nil {
			if w.endedMeanwhile(ctx, c.ID) {
				continue
			}
			return fmt.Errorf("unable to read memory usage for pod %q: %w", plan.FormatPod(pod), err)
		}
		if used >= uint64(now) {
			errs = append(errs, fmt.Errorf("attempting to set container %q memory limit (%d) below current usage (%d)", c.Name, now, used))
		}
	}
	if len(errs) == 0 {
		return nil
	}
	return fmt.Errorf("cannot decrease memory limits: %w", utilerrors.NewAggregate(errs))
}
