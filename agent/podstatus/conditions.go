package podstatus

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/skiff-run/skiff/agent/plan"
)

const (
	reasonUnknown       = "UnknownContainerStatuses"
	reasonCompleted     = "PodCompleted"
	reasonFailed        = "PodFailed"
	reasonNotReady      = "ContainersNotReady"
	reasonUninitialized = "ContainersNotInitialized"
	reasonGates         = "ReadinessGatesNotReady"
	reasonSandbox       = "PodSandboxNotReady"
	reasonRestarting    = "RestartAllContainersStarted"

	// maxMessages bounds the termination messages of one pod together.
	maxMessages = 12 * 1024
)

// ours are the conditions only the agent writes.
var ours = []v1.PodConditionType{
	v1.PodReadyToStartContainers, v1.PodInitialized, v1.PodReady, v1.ContainersReady, v1.PodScheduled, v1.PodResizePending, v1.PodResizeInProgress, v1.AllContainersRestarting,
}

// conditions sets all the agent's conditions and keeps everybody else's.
func conditions(in Input, s *v1.PodStatus) {
	var kept []v1.PodCondition
	for _, c := range in.Pod.Status.Conditions {
		if !slices.Contains(ours, c.Type) {
			kept = append(kept, c)
		}
	}
	s.Conditions = kept
	if !over(s.Phase) && !in.Terminal {
		s.Conditions = append(s.Conditions, in.Resize...)
	}
	if old := condition(in.Old.Conditions, v1.DisruptionTarget); old != nil && condition(s.Conditions, v1.DisruptionTarget) == nil {
		// Written by this agent a moment ago; the API has not told so yet.
		s.Conditions = append(s.Conditions, *old)
	}
	if in.Verdict != nil && in.Verdict.Disruption != "" && over(s.Phase) && condition(s.Conditions, v1.DisruptionTarget) == nil {
		s.Conditions = append(s.Conditions, v1.PodCondition{
			Type: v1.DisruptionTarget, Status: v1.ConditionTrue, Reason: v1.PodReasonTerminationByKubelet, Message: in.Verdict.Disruption,
		})
	}
	all := append(slices.Clone(s.InitContainerStatuses), s.ContainerStatuses...)
	sandbox := v1.PodCondition{Type: v1.PodReadyToStartContainers, Status: v1.ConditionTrue}
	if needed, _, why := plan.SandboxNeeded(in.Pod, in.State); needed {
		sandbox = v1.PodCondition{Type: v1.PodReadyToStartContainers, Status: v1.ConditionFalse, Reason: reasonSandbox, Message: why}
		if over(s.Phase) && len(in.State.Sandboxes) == 0 {
			sandbox.Message = plan.SandboxNotReady
		}
	}
	containersReady := containersReady(in.Pod, all, s.Phase)
	s.Conditions = append(s.Conditions, sandbox, initializedCondition(in, all, s.Phase), ready(in.Pod, containersReady, kept), containersReady,
		v1.PodCondition{Type: v1.PodScheduled, Status: v1.ConditionTrue})
	if plan.CouldRestartAll(&in.Pod.Spec) {
		s.Conditions = append(s.Conditions, restarting(in, s.Phase))
	}
	for i := range s.Conditions {
		c := &s.Conditions[i]
		if (!slices.Contains(ours, c.Type) || isResize(c.Type)) && !c.LastTransitionTime.IsZero() {
			continue
		}
		c.ObservedGeneration = in.Pod.Generation
		c.LastTransitionTime = metav1.NewTime(in.Now)
		if old := condition(in.Old.Conditions, c.Type); old != nil && old.Status == c.Status {
			c.LastTransitionTime = old.LastTransitionTime
		}
	}
}

// isResize: these conditions come with their times and generations.
func isResize(t v1.PodConditionType) bool {
	return t == v1.PodResizePending || t == v1.PodResizeInProgress
}

func condition(conditions []v1.PodCondition, t v1.PodConditionType) *v1.PodCondition {
	for i := range conditions {
		if conditions[i].Type == t {
			return &conditions[i]
		}
	}
	return nil
}

func containersReady(pod *v1.Pod, statuses []v1.ContainerStatus, phase v1.PodPhase) v1.PodCondition {
	c := v1.PodCondition{Type: v1.ContainersReady, Status: v1.ConditionFalse}
	if statuses == nil {
		c.Reason = reasonUnknown
		return c
	}
	var unknown, unready []string
	check := func(container *v1.Container) {
		switch status := find(statuses, container.Name); {
		case status == nil:
			unknown = append(unknown, container.Name)
		case !status.Ready:
			unready = append(unready, container.Name)
		}
	}
	for i := range pod.Spec.InitContainers {
		if plan.IsSidecar(&pod.Spec.InitContainers[i]) {
			check(&pod.Spec.InitContainers[i])
		}
	}
	for i := range pod.Spec.Containers {
		check(&pod.Spec.Containers[i])
	}
	switch {
	case phase == v1.PodSucceeded && len(unknown) == 0:
		c.Reason = reasonCompleted
		return c
	case phase == v1.PodFailed:
		c.Reason = reasonFailed
		return c
	}
	var messages []string
	if len(unknown) > 0 {
		messages = append(messages, fmt.Sprintf("containers with unknown status: %s", unknown))
	}
	if len(unready) > 0 {
		messages = append(messages, fmt.Sprintf("containers with unready status: %s", unready))
	}
	if len(messages) > 0 {
		c.Reason, c.Message = reasonNotReady, strings.Join(messages, ", ")
		return c
	}
	c.Status = v1.ConditionTrue
	return c
}

func ready(pod *v1.Pod, containersReady v1.PodCondition, others []v1.PodCondition) v1.PodCondition {
	c := containersReady
	c.Type = v1.PodReady
	if c.Status != v1.ConditionTrue {
		return c
	}
	var messages []string
	for _, gate := range pod.Spec.ReadinessGates {
		switch found := condition(others, gate.ConditionType); {
		case found == nil:
			messages = append(messages, fmt.Sprintf("corresponding condition of pod readiness gate %q does not exist.", string(gate.ConditionType)))
		case found.Status != v1.ConditionTrue:
			messages = append(messages, fmt.Sprintf("the status of pod readiness gate %q is not \"True\", but %v", string(gate.ConditionType), found.Status))
		}
	}
	if len(messages) > 0 {
		return v1.PodCondition{Type: v1.PodReady, Status: v1.ConditionFalse, Reason: reasonGates, Message: strings.Join(messages, ", ")}
	}
	return c
}

// restarting tells of a restart of all containers from the exit that asks for
// it until the last one was removed.
func restarting(in Input, phase v1.PodPhase) v1.PodCondition {
	c := v1.PodCondition{Type: v1.AllContainersRestarting, Status: v1.ConditionFalse}
	switch {
	case phase == v1.PodSucceeded:
		c.Reason = reasonCompleted
	case phase == v1.PodFailed:
		c.Reason = reasonFailed
	case restartingAll(in) && !plan.AllRemoved(in.Pod, in.State):
		c.Status, c.Reason, c.Message = v1.ConditionTrue, reasonRestarting, "container exited with restart policy rule"
	}
	return c
}

// restartingAll reports whether a restart of all containers is under way, which
// the last status remembers when the container that asked for it is gone.
func restartingAll(in Input) bool {
	if !plan.CouldRestartAll(&in.Pod.Spec) {
		return false
	}
	old := condition(in.Old.Conditions, v1.AllContainersRestarting)
	return old != nil && old.Status == v1.ConditionTrue || plan.RestartsAll(in.Pod, in.State)
}

func initializedCondition(in Input, statuses []v1.ContainerStatus, phase v1.PodPhase) v1.PodCondition {
	pod := in.Pod
	c := v1.PodCondition{Type: v1.PodInitialized, Status: v1.ConditionFalse}
	if statuses == nil && len(pod.Spec.InitContainers) > 0 {
		c.Reason = reasonUnknown
		return c
	}
	var unknown, incomplete []string
	for i := range pod.Spec.InitContainers {
		container := &pod.Spec.InitContainers[i]
		status := find(statuses, container.Name)
		switch {
		case status == nil:
			unknown = append(unknown, container.Name)
		case plan.IsSidecar(container) && (status.Started == nil || !*status.Started), !plan.IsSidecar(container) && !status.Ready:
			incomplete = append(incomplete, container.Name)
		}
	}
	if phase == v1.PodSucceeded && len(unknown) == 0 {
		c.Status, c.Reason = v1.ConditionTrue, reasonCompleted
		return c
	}
	for i := range pod.Spec.Containers {
		status := find(statuses, pod.Spec.Containers[i].Name)
		if status != nil && (status.State.Running != nil || status.State.Terminated != nil || status.LastTerminationState.Terminated != nil) {
			c.Status = v1.ConditionTrue
			return c
		}
	}
	var messages []string
	if len(unknown) > 0 {
		messages = append(messages, fmt.Sprintf("containers with unknown status: %s", unknown))
	}
	if len(incomplete) > 0 {
		messages = append(messages, fmt.Sprintf("containers with incomplete status: %s", incomplete))
	}
	if len(messages) > 0 {
		if old := condition(in.Old.Conditions, v1.PodInitialized); old != nil && old.Status == v1.ConditionTrue {
			// What was initialized once stays so, also while all containers begin anew.
			c.Status = v1.ConditionTrue
			return c
		}
		c.Reason, c.Message = reasonUninitialized, strings.Join(messages, ", ")
		return c
	}
	c.Status = v1.ConditionTrue
	return c
}

// normalize makes a status comparable with what the API gives back: times in
// whole seconds, sorted lists, bounded messages.
func normalize(pod *v1.Pod, s *v1.PodStatus) {
	for i := range s.Conditions {
		s.Conditions[i].LastTransitionTime = s.Conditions[i].LastTransitionTime.Rfc3339Copy()
	}
	limit := maxMessages / max(1, len(pod.Spec.Containers)+len(pod.Spec.InitContainers)+len(pod.Spec.EphemeralContainers))
	for _, statuses := range [][]v1.ContainerStatus{s.InitContainerStatuses, s.ContainerStatuses, s.EphemeralContainerStatuses} {
		for i := range statuses {
			for _, state := range []*v1.ContainerState{&statuses[i].State, &statuses[i].LastTerminationState} {
				if state.Running != nil {
					state.Running = state.Running.DeepCopy()
					state.Running.StartedAt = state.Running.StartedAt.Rfc3339Copy()
				}
				if state.Terminated != nil {
					state.Terminated = state.Terminated.DeepCopy()
					t := state.Terminated
					t.StartedAt, t.FinishedAt = t.StartedAt.Rfc3339Copy(), t.FinishedAt.Rfc3339Copy()
					t.Message = t.Message[:min(len(t.Message), limit)]
				}
			}
		}
	}
	byName := func(a, b v1.ContainerStatus) int { return cmp.Compare(a.Name, b.Name) }
	slices.SortFunc(s.ContainerStatuses, byName)
	slices.SortFunc(s.EphemeralContainerStatuses, byName)
}
