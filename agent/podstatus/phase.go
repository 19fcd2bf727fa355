package podstatus

import (
	v1 "k8s.io/api/core/v1"

	"github.com/skiff-run/skiff/agent/plan"
)

// tally counts what the phase depends on.
type tally struct {
	pendingInit, pendingSidecar        int
	failedInit                         int
	unknown, running, waiting, stopped int
	final, succeeded                   int
}

// phase follows the rules of the pod life cycle: Pending until everything was
// started once, Running while anything runs or will be started again, then
// Succeeded or Failed.
func phase(pod *v1.Pod, s *v1.PodStatus, terminal, initialized bool) v1.PodPhase {
	var t tally
	for i := range pod.Spec.InitContainers {
		c := &pod.Spec.InitContainers[i]
		status := find(s.InitContainerStatuses, c.Name)
		if plan.IsSidecar(c) {
			t.sidecar(status)
		} else {
			t.init(pod, c, status)
		}
	}
	for i := range pod.Spec.Containers {
		c := &pod.Spec.Containers[i]
		t.container(pod, c, find(s.ContainerStatuses, c.Name))
	}
	switch {
	case t.failedInit > 0:
		return v1.PodFailed
	case t.pendingInit > 0, t.pendingSidecar > 0 && !initialized, t.waiting > 0:
		return v1.PodPending
	case t.running > 0 && t.unknown == 0:
		return v1.PodRunning
	case t.running == 0 && t.stopped > 0 && t.unknown == 0:
		if !terminal && t.stopped != t.final {
			// At least one is about to be started again.
			return v1.PodRunning
		}
		if t.stopped == t.succeeded {
			return v1.PodSucceeded
		}
		return v1.PodFailed
	}
	return v1.PodPending
}

func (t *tally) init(pod *v1.Pod, c *v1.Container, s *v1.ContainerStatus) {
	var end *v1.ContainerStateTerminated
	if s != nil {
		end = s.State.Terminated
		if s.State.Waiting != nil {
			end = s.LastTerminationState.Terminated
		}
	}
	switch {
	case end == nil:
		t.pendingInit++
	case end.ExitCode == 0 && s.State.Waiting != nil:
		t.pendingInit++
	case end.ExitCode != 0 && !restarts(pod, c, end):
		t.failedInit++
	case end.ExitCode != 0:
		// It is tried again; until it passes nothing else starts.
		t.pendingInit++
	}
}

func (t *tally) sidecar(s *v1.ContainerStatus) {
	switch {
	case s == nil:
		t.unknown++
	case s.State.Running != nil:
		if s.Started == nil || !*s.Started {
			t.pendingSidecar++
		}
		t.running++
	case s.State.Terminated != nil, s.LastTerminationState.Terminated != nil:
	default:
		t.pendingSidecar++
		t.waiting++
	}
}

func (t *tally) container(pod *v1.Pod, c *v1.Container, s *v1.ContainerStatus) {
	if s == nil {
		t.unknown++
		return
	}
	switch {
	case s.State.Running != nil:
		t.running++
	case s.State.Terminated != nil:
		t.stop(pod, c, s.State.Terminated)
		if s.State.Terminated.ExitCode == 0 {
			t.succeeded++
		}
	case s.State.Waiting != nil && s.LastTerminationState.Terminated != nil:
		t.stop(pod, c, s.LastTerminationState.Terminated)
	case s.State.Waiting != nil:
		t.waiting++
	default:
		t.unknown++
	}
}

func (t *tally) stop(pod *v1.Pod, c *v1.Container, end *v1.ContainerStateTerminated) {
	t.stopped++
	if !restarts(pod, c, end) {
		t.final++
	}
}

// restarts reports whether a container is started again after that end.
func restarts(pod *v1.Pod, c *v1.Container, end *v1.ContainerStateTerminated) bool {
	return end.Reason == restartingReason || plan.RestartsAfter(&pod.Spec, c, end.ExitCode)
}

// initialized reports whether the pod got past its init containers.
func initialized(pod *v1.Pod, s *v1.PodStatus) bool {
	if len(pod.Spec.InitContainers) == 0 {
		return true
	}
	for i := range s.ContainerStatuses {
		if s.ContainerStatuses[i].LastTerminationState.Terminated != nil || s.ContainerStatuses[i].State.Waiting == nil {
			return true
		}
	}
	c := &pod.Spec.InitContainers[len(pod.Spec.InitContainers)-1]
	last := find(s.InitContainerStatuses, c.Name)
	if last == nil {
		return false
	}
	if plan.IsSidecar(c) {
		return last.State.Running != nil && last.Started != nil && *last.Started
	}
	for _, state := range []v1.ContainerState{last.State, last.LastTerminationState} {
		if state.Terminated != nil && state.Terminated.ExitCode == 0 {
			return true
		}
	}
	return false
}

// evidencedInit returns the init containers up to the last that shows a trace
// of having run, at least one.
func evidencedInit(statuses []v1.ContainerStatus) []v1.ContainerStatus {
	for i := len(statuses) - 1; i >= 0; i-- {
		if statuses[i].State.Waiting == nil || statuses[i].LastTerminationState.Terminated != nil {
			return statuses[:i+1]
		}
	}
	return statuses[:min(1, len(statuses))]
}
