package plan

import (
	"fmt"

	v1 "k8s.io/api/core/v1"

	"github.com/skiff-run/skiff/agent/podstate"
)

// Compute returns what to do next for a pod that shall run. Pods that are
// being deleted are not its business.
func Compute(in Input) Plan {
	c := computation{Input: in, plan: Plan{Waiting: map[string]Wait{}}}
	c.compute()
	return c.plan
}

type computation struct {
	Input
	plan Plan
}

func (c *computation) compute() {
	if RestartsAll(c.Pod, c.State) {
		c.plan.Reset = resets(c.Pod, c.State)
		return
	}
	needed, attempt, reason := SandboxNeeded(c.Pod, c.State)
	if needed {
		c.newSandbox(attempt, reason)
		return
	}
	c.plan.SandboxID = c.State.Sandboxes[0].ID
	c.resize()
	c.ephemeralContainers()
	initialized, failed := c.initContainers()
	if failed {
		c.finish()
		return
	}
	if initialized {
		c.containers()
	}
}

// newSandbox plans a sandbox, unless everything that ever has to run is over.
// Whatever is left of an older sandbox is stopped first.
func (c *computation) newSandbox(attempt uint32, reason string) {
	c.plan.SandboxReason = reason
	c.plan.SandboxAttempt = attempt
	spec := &c.Pod.Spec
	if spec.RestartPolicy == v1.RestartPolicyNever && attempt != 0 && len(c.State.Containers) != 0 && !anyOwnPolicy(spec) {
		c.finish()
		return
	}
	remaining, initialized := 0, false
	for i := range spec.Containers {
		latest := c.State.Latest(spec.Containers[i].Name)
		if latest != nil {
			initialized = true
		}
		if latest == nil || latest.State != podstate.Exited || RestartsAfter(spec, &spec.Containers[i], latest.ExitCode) {
			remaining++
		}
	}
	if remaining == 0 && initialized {
		c.finish()
		return
	}
	c.plan.StopPod = attempt != 0 && (c.State.Active() || c.State.AnySandboxReady())
	if failed, held := c.Failed[SandboxKey]; held && c.Now.Before(failed.RetryAt) {
		c.plan.wakeAt(failed.RetryAt)
		return
	}
	c.plan.CreateSandbox = true
}

// SandboxKey is the key in Input.Failed of attempts to make the sandbox. It is
// no valid container name.
const SandboxKey = "/sandbox"

func anyOwnPolicy(spec *v1.PodSpec) bool {
	for i := range spec.Containers {
		if spec.Containers[i].RestartPolicy != nil || len(spec.Containers[i].RestartPolicyRules) > 0 {
			return true
		}
	}
	return false
}

// finish stops what still runs of a pod that is over.
func (c *computation) finish() {
	c.plan.Finished = true
	c.plan.StopPod = c.State.Active() || c.State.AnySandboxReady()
	c.plan.Start, c.plan.Kill, c.plan.CreateSandbox, c.plan.Resize = nil, nil, false, false
}

func (c *computation) ephemeralContainers() {
	for i := range c.Pod.Spec.EphemeralContainers {
		e := &c.Pod.Spec.EphemeralContainers[i]
		container := (*v1.Container)(&e.EphemeralContainerCommon)
		if c.State.Latest(e.Name) == nil && !c.held(container) {
			c.plan.Start = append(c.plan.Start, Start{Container: container, Ephemeral: true, Target: e.TargetContainerName})
		}
	}
}

func (c *computation) containers() {
	spec := &c.Pod.Spec
	kept := 0
	for i := range spec.Containers {
		container := &spec.Containers[i]
		latest := c.State.Latest(container.Name)
		if latest == nil || latest.State != podstate.Running {
			if ShouldRun(c.Pod, c.State, container) {
				kept++
				c.start(container, latest, false)
			}
			continue
		}
		message, grace, restart := c.unfit(container, latest, "Container")
		if message == "" {
			c.restartsToResize(container, latest, false)
			kept++
			continue
		}
		if restart || !neverRestarts(spec, container) {
			kept++
			message += ", will be restarted"
		}
		c.plan.Kill = append(c.plan.Kill, Kill{ContainerID: latest.ID, Name: container.Name, Message: message, GracePeriod: grace})
	}
	if kept == 0 && len(c.plan.Kill) == 0 {
		c.finish()
	}
}

// unfit says why a running container must not go on, or nothing. restart: it
// is started again whatever its policy says.
func (c *computation) unfit(container *v1.Container, running *podstate.Container, what string) (message string, grace *int64, restart bool) {
	switch {
	case running.Record.Hash != "" && running.Record.Hash != podstate.Hash(container):
		return fmt.Sprintf("%s %s definition changed", what, container.Name), nil, true
	case c.Probes.Liveness(running.ID) == Failure:
		if container.LivenessProbe != nil {
			grace = container.LivenessProbe.TerminationGracePeriodSeconds
		}
		return fmt.Sprintf("%s %s failed liveness probe", what, container.Name), grace, false
	case c.Probes.Startup(running.ID) == Failure:
		if container.StartupProbe != nil {
			grace = container.StartupProbe.TerminationGracePeriodSeconds
		}
		return fmt.Sprintf("%s %s failed startup probe", what, container.Name), grace, false
	}
	return "", nil, false
}

// start plans the next attempt, unless it is held back by an earlier failure
// or by the back-off after an exit.
func (c *computation) start(container *v1.Container, latest *podstate.Container, init bool) {
	s := Start{Container: container, Init: init}
	if latest != nil {
		switch latest.State {
		case podstate.Created:
			// The agent died or failed between creating and starting it.
			s.Replaces, s.Attempt, s.Backoff = latest.ID, latest.Record.Attempt, latest.Record.Backoff
		case podstate.Unknown:
			c.plan.Kill = append(c.plan.Kill, Kill{
				ContainerID: latest.ID, Name: latest.Name,
				Message: fmt.Sprintf("Container is in %q state, try killing it before restart", latest.State),
			})
			return
		default:
			s.Attempt = latest.Record.Attempt + 1
			delay := delayAfter(latest, podstate.Hash(container))
			if until := latest.FinishedAt.Add(delay); delay > 0 && c.Now.Before(until) {
				c.plan.wakeAt(until)
				c.plan.Waiting[container.Name] = Wait{
					Reason:    "CrashLoopBackOff",
					Message:   fmt.Sprintf("back-off %s restarting failed container=%s pod=%s", delay, container.Name, FormatPod(c.Pod)),
					CrashLoop: true,
				}
				return
			}
			s.Backoff = nextDelay(delay)
		}
	}
	if c.held(container) {
		return
	}
	c.plan.Start = append(c.plan.Start, s)
}

// held reports whether an earlier failure asks for more patience.
func (c *computation) held(container *v1.Container) bool {
	if pod, ok := c.Failed[SandboxKey]; ok && c.Now.Before(pod.RetryAt) {
		// Volumes or sandbox are not as they have to be.
		c.plan.wakeAt(pod.RetryAt)
		return true
	}
	failed, ok := c.Failed[container.Name]
	if !ok {
		return false
	}
	c.plan.Waiting[container.Name] = Wait{Reason: failed.Reason, Message: failed.Message}
	if c.Now.Before(failed.RetryAt) {
		c.plan.wakeAt(failed.RetryAt)
		return true
	}
	return false
}

// FormatPod names a pod in events and messages: name_namespace(uid).
func FormatPod(pod *v1.Pod) string {
	return fmt.Sprintf("%s_%s(%s)", pod.Name, pod.Namespace, pod.UID)
}
