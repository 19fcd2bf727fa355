package plan

import (
	"time"

	v1 "k8s.io/api/core/v1"

	"github.com/skiff-run/skiff/agent/allocation"
	"github.com/skiff-run/skiff/agent/podstate"
)

// Result of a probe of one container.
type Result int

// Results of a probe. None means it has not run.
const (
	None Result = iota
	Success
	Failure
)

// Probes answers what the probes found, by container id.
type Probes interface {
	Liveness(containerID string) Result
	Startup(containerID string) Result
}

// Failed is an attempt to start a container which ended before the runtime had
// a container: no image, no configuration, a failing hook.
type Failed struct {
	Reason, Message string
	RetryAt         time.Time
}

// Input is everything the decision depends on.
type Input struct {
	Pod    *v1.Pod
	State  *podstate.Pod
	Probes Probes
	// Failed attempts by container name.
	Failed map[string]Failed
	// Actuated is what is in force of the pod's resources, nil when that is not known. The pod's spec
	// has what is allocated.
	Actuated *allocation.Resources
	Now      time.Time
}

// Plan is what to do now, in this order: reset, stop, create the sandbox, kill, resize, start.
type Plan struct {
	// StopPod: stop every container and the sandbox.
	StopPod bool
	// Finished: the pod has nothing left to run and never will.
	Finished bool

	CreateSandbox  bool
	SandboxAttempt uint32
	// SandboxReason says why a sandbox is needed, for the condition's message.
	SandboxReason string
	// SandboxID of the sandbox to start containers in, when none is created.
	SandboxID string

	// Reset removes all containers, in this order, so that the pod begins anew in
	// the same sandbox. Nothing else is planned then.
	Reset []Reset
	Kill  []Kill
	// Resize: what is in force of the pod's resources is not what is allocated.
	Resize bool
	Start  []Start

	// Waiting holds, by container name, why it is not started now.
	Waiting map[string]Wait
	// WakeAt is when the plan may change without any event; zero when never.
	WakeAt time.Time
}

// Kill ends one container.
type Kill struct {
	ContainerID, Name, Message string
	// GracePeriod of the probe that asks for it, or nil.
	GracePeriod *int64
}

// Reset takes one container away. One that runs is killed without grace.
type Reset struct {
	ContainerID, Name string
	Kill              bool
}

// Start makes and starts the next container from a spec.
type Start struct {
	Container *v1.Container
	Init      bool
	// Ephemeral containers are never restarted.
	Ephemeral bool
	Attempt   int
	// Backoff is what the new container remembers: the delay after its exit.
	Backoff time.Duration
	// Replaces is a container that was created and never started.
	Replaces string
	// Target is the container whose process namespace an ephemeral container joins.
	Target string
}

// Wait is the state of a container that is held back.
type Wait struct {
	Reason, Message string
	// CrashLoop: the reason is a back-off after an exit.
	CrashLoop bool
}

// Empty reports whether there is nothing to do.
func (p *Plan) Empty() bool {
	return !p.StopPod && !p.CreateSandbox && len(p.Kill) == 0 && len(p.Start) == 0 && len(p.Reset) == 0 && !p.Resize
}

func (p *Plan) wakeAt(t time.Time) {
	if p.WakeAt.IsZero() || t.Before(p.WakeAt) {
		p.WakeAt = t
	}
}

// Messages of the PodReadyToStartContainers condition.
const (
	NoSandbox         = "no pod sandbox exists"
	SandboxNotReady   = "pod sandbox is not ready"
	MultipleSandboxes = "multiple pod sandboxes are ready and need to be reconciled"
	NetworkChanged    = "network namespace mode changed and sandbox needs to be recreated"
	NoIPAddress       = "pod sandbox has no IP address"
)

// SandboxNeeded reports whether the pod needs a new sandbox, the number of the
// attempt that would make it, and why.
func SandboxNeeded(pod *v1.Pod, state *podstate.Pod) (bool, uint32, string) {
	if len(state.Sandboxes) == 0 {
		return true, 0, NoSandbox
	}
	newest := &state.Sandboxes[0]
	ready := 0
	for i := range state.Sandboxes {
		if state.Sandboxes[i].Ready {
			ready++
		}
	}
	switch next := newest.Attempt + 1; {
	case ready > 1:
		return true, next, MultipleSandboxes
	case !newest.Ready:
		return true, next, SandboxNotReady
	case newest.HostNetwork != pod.Spec.HostNetwork:
		return true, next, NetworkChanged
	case !pod.Spec.HostNetwork && len(newest.IPs) == 0:
		return true, next, NoIPAddress
	}
	return false, newest.Attempt, ""
}
