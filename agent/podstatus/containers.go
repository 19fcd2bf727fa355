package podstatus

import (
	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/skiff-run/skiff/agent/plan"
	"github.com/skiff-run/skiff/agent/podstate"
)

const (
	containerCreating = "ContainerCreating"
	podInitializing   = "PodInitializing"
	unknownReason     = "ContainerStatusUnknown"
	restartingReason  = "RestartingAllContainers"
	restartingMessage = "The container is removed because RestartAllContainers in place"
	// idPrefix is how container ids are written in the API.
	idPrefix = "containerd://"
)

// containerStatuses describes the containers of one kind, in the spec's order.
func containerStatuses(in Input, containers []v1.Container, old []v1.ContainerStatus, hasInit, isInit bool) []v1.ContainerStatus {
	if len(containers) == 0 {
		return nil
	}
	before := make(map[string]*v1.ContainerStatus, len(old))
	for i := range old {
		before[old[i].Name] = &old[i]
	}
	statuses := make([]v1.ContainerStatus, 0, len(containers))
	for i := range containers {
		statuses = append(statuses, containerStatus(in, &containers[i], before[containers[i].Name], hasInit, isInit))
	}
	return statuses
}

func containerStatus(in Input, c *v1.Container, old *v1.ContainerStatus, hasInit, isInit bool) v1.ContainerStatus {
	var latest, previous *podstate.Container
	for i := range in.State.Containers {
		if in.State.Containers[i].Name != c.Name {
			continue
		}
		if latest == nil {
			latest = &in.State.Containers[i]
			continue
		}
		previous = &in.State.Containers[i]
		break
	}
	var s v1.ContainerStatus
	if latest != nil {
		s = describe(c, latest)
		if latest.State == podstate.Created {
			// Still what it was a moment ago; upstream rarely looks at this moment.
			s.State = notStarted(hasInit)
		}
		if in.Actuated != nil && latest.State == podstate.Running {
			if inForce, known := in.Actuated.Containers[c.Name]; known {
				s.Resources = inForce.DeepCopy()
			}
		}
		switch {
		case previous != nil:
			s.LastTerminationState = stateOf(previous)
		case old != nil && old.ContainerID != s.ContainerID && old.State.Terminated != nil:
			s.LastTerminationState = old.State
		case old != nil:
			s.LastTerminationState = old.LastTerminationState
		}
		if old != nil && s.RestartCount < old.RestartCount {
			s.RestartCount = old.RestartCount
		}
	} else {
		s = absent(in, c, old, hasInit, isInit)
	}
	if in.Devices != nil && !isInit {
		s.AllocatedResourcesStatus = in.Devices(c.Name)
	}
	s.VolumeMounts = mountStatuses(c, in.RecursiveReadOnly)

	completedInit := isInit && latest != nil && latest.State == podstate.Exited && latest.ExitCode == 0 && !plan.IsSidecar(c)
	if wait, waits := in.Waiting[c.Name]; waits && !completedInit && s.State.Running == nil && !in.Terminal && plan.ShouldRun(in.Pod, in.State, c) {
		if s.State.Terminated != nil {
			s.LastTerminationState = s.State
		}
		s.State = v1.ContainerState{Waiting: &v1.ContainerStateWaiting{Reason: wait.Reason, Message: wait.Message}}
	}
	return s
}

// notStarted is the state of a container before its first start, of a pod with
// or without init containers.
func notStarted(hasInit bool) v1.ContainerState {
	if hasInit {
		return v1.ContainerState{Waiting: &v1.ContainerStateWaiting{Reason: podInitializing}}
	}
	return v1.ContainerState{Waiting: &v1.ContainerStateWaiting{Reason: containerCreating}}
}

// absent describes a container the runtime knows nothing of: not made yet, or
// removed after it ended.
func absent(in Input, c *v1.Container, old *v1.ContainerStatus, hasInit, isInit bool) v1.ContainerStatus {
	s := v1.ContainerStatus{Name: c.Name, Image: c.Image}
	s.State = notStarted(hasInit)
	if old != nil && old.State.Waiting == nil && restartingAll(in) {
		s.State.Waiting = &v1.ContainerStateWaiting{Reason: restartingReason, Message: restartingMessage}
		s.LastTerminationState.Terminated = &v1.ContainerStateTerminated{Reason: restartingReason, Message: restartingMessage, ExitCode: 137}
		s.RestartCount = old.RestartCount + 1
		return s
	}
	if old != nil && old.State.Terminated != nil {
		return *old.DeepCopy()
	}
	if old != nil {
		s.RestartCount, s.LastTerminationState = old.RestartCount, old.LastTerminationState
	}
	if isInit && !plan.IsSidecar(c) && plan.RegularStarted(in.Pod, in.State) {
		s.State = v1.ContainerState{Terminated: &v1.ContainerStateTerminated{
			Reason: "Completed", Message: "Unable to get init container status from container runtime and pod has been initialized, treat it as exited normally",
		}}
		return s
	}
	if old != nil && old.State.Running != nil && s.LastTerminationState.Terminated == nil {
		s.LastTerminationState.Terminated = &v1.ContainerStateTerminated{
			Reason: unknownReason, ExitCode: 137,
			Message: "The container could not be located when the pod was deleted.  The container used to be Running",
		}
		if in.Pod.DeletionTimestamp == nil {
			s.RestartCount++
		}
	}
	return s
}

func describe(c *v1.Container, observed *podstate.Container) v1.ContainerStatus {
	s := v1.ContainerStatus{
		Name: c.Name, State: stateOf(observed), RestartCount: int32(observed.Record.Attempt),
		Image: observed.Image, ImageID: observed.ImageRef, ContainerID: idPrefix + observed.ID,
		AllocatedResources: c.Resources.Requests.DeepCopy(), Resources: c.Resources.DeepCopy(),
		User: user(observed.User),
	}
	if s.Image == "" {
		s.Image = c.Image
	}
	if c.Lifecycle != nil && c.Lifecycle.StopSignal != nil {
		s.StopSignal = c.Lifecycle.StopSignal
	}
	return s
}

func stateOf(c *podstate.Container) v1.ContainerState {
	switch c.State {
	case podstate.Running:
		return v1.ContainerState{Running: &v1.ContainerStateRunning{StartedAt: metav1.NewTime(c.StartedAt)}}
	case podstate.Exited:
		return v1.ContainerState{Terminated: &v1.ContainerStateTerminated{
			ExitCode: c.ExitCode, Reason: c.Reason, Message: c.Message,
			StartedAt: metav1.NewTime(c.StartedAt), FinishedAt: metav1.NewTime(c.FinishedAt), ContainerID: idPrefix + c.ID,
		}}
	}
	return v1.ContainerState{Waiting: &v1.ContainerStateWaiting{}}
}

func user(u *runtimeapi.ContainerUser) *v1.ContainerUser {
	linux := u.GetLinux()
	if linux == nil {
		return nil
	}
	return &v1.ContainerUser{Linux: &v1.LinuxContainerUser{UID: linux.Uid, GID: linux.Gid, SupplementalGroups: linux.SupplementalGroups}}
}

func mountStatuses(c *v1.Container, recursive bool) []v1.VolumeMountStatus {
	var statuses []v1.VolumeMountStatus
	for i := range c.VolumeMounts {
		m := &c.VolumeMounts[i]
		s := v1.VolumeMountStatus{Name: m.Name, MountPath: m.MountPath, ReadOnly: m.ReadOnly}
		if m.ReadOnly {
			mode := v1.RecursiveReadOnlyDisabled
			if recursive && m.RecursiveReadOnly != nil && *m.RecursiveReadOnly != v1.RecursiveReadOnlyDisabled {
				mode = v1.RecursiveReadOnlyEnabled
			}
			s.RecursiveReadOnly = &mode
		}
		statuses = append(statuses, s)
	}
	return statuses
}

// readiness sets started and ready of every container. A probe that has not
// run yet says nothing about a container the API already calls ready, so that
// a restart of the agent takes no pod out of service.
func readiness(in Input, s *v1.PodStatus) {
	one := func(c *v1.Container, status *v1.ContainerStatus, old []v1.ContainerStatus, isInit bool) {
		id := trimID(status.ContainerID)
		running := status.State.Running != nil
		before := find(old, c.Name)
		same := before != nil && before.ContainerID == status.ContainerID && before.State.Running != nil
		started := running
		if running && c.StartupProbe != nil {
			switch in.Probes.Startup(id) {
			case plan.None:
				started = same && before.Started != nil && *before.Started
			case plan.Failure:
				started = false
			}
		}
		status.Started = &started
		status.Ready = false
		switch {
		case isInit && !plan.IsSidecar(c):
			status.Ready = status.State.Terminated != nil && status.State.Terminated.ExitCode == 0
		case !started:
		case c.ReadinessProbe == nil:
			status.Ready = true
		default:
			switch in.Probes.Readiness(id) {
			case plan.None:
				status.Ready = same && before.Ready
			case plan.Success:
				status.Ready = true
			}
		}
	}
	for i := range s.ContainerStatuses {
		one(&in.Pod.Spec.Containers[i], &s.ContainerStatuses[i], in.Old.ContainerStatuses, false)
	}
	for i := range s.InitContainerStatuses {
		one(&in.Pod.Spec.InitContainers[i], &s.InitContainerStatuses[i], in.Old.InitContainerStatuses, true)
	}
}

func find(statuses []v1.ContainerStatus, name string) *v1.ContainerStatus {
	for i := range statuses {
		if statuses[i].Name == name {
			return &statuses[i]
		}
	}
	return nil
}

func trimID(id string) string {
	if len(id) > len(idPrefix) {
		return id[len(idPrefix):]
	}
	return ""
}
