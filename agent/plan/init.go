package plan

import (
	v1 "k8s.io/api/core/v1"

	"github.com/skiff-run/skiff/agent/podstate"
)

// RegularStarted reports whether a regular container was started in the
// current sandbox, which proves that initialization is over.
func RegularStarted(pod *v1.Pod, state *podstate.Pod) bool {
	current := state.Current()
	if current == nil {
		return false
	}
	for i := range pod.Spec.Containers {
		if latest := state.LatestIn(current.ID, pod.Spec.Containers[i].Name); latest != nil && latest.State != podstate.Created {
			return true
		}
	}
	return false
}

// initContainers plans the init containers, one after the other, and the
// sidecars, which stay. initialized: the regular containers may start. failed:
// an init container failed for good.
//
// Finished init containers may have been removed: that a later one exists in
// this sandbox proves the earlier ones passed.
func (c *computation) initContainers() (initialized, failed bool) {
	spec := &c.Pod.Spec
	over := RegularStarted(c.Pod, c.State)
	last := -1
	for i := range spec.InitContainers {
		if c.State.LatestIn(c.plan.SandboxID, spec.InitContainers[i].Name) != nil {
			last = i
		}
	}
	for i := range spec.InitContainers {
		container := &spec.InitContainers[i]
		latest := c.State.LatestIn(c.plan.SandboxID, container.Name)
		passed := over || i < last
		var next bool
		if IsSidecar(container) {
			next = c.sidecar(container, latest)
		} else if !passed {
			next, failed = c.initContainer(container, latest)
		} else {
			next = true
		}
		if failed {
			return false, true
		}
		if !next && !passed {
			return false, false
		}
	}
	return true, false
}

// initContainer plans one init container that runs to completion; next: it has
// completed.
func (c *computation) initContainer(container *v1.Container, latest *podstate.Container) (next, failed bool) {
	switch {
	case latest == nil:
		c.start(container, c.State.Latest(container.Name), true)
		return false, false
	case latest.State == podstate.Running:
		return false, false
	case latest.State == podstate.Exited && latest.ExitCode == 0:
		return true, false
	case latest.State == podstate.Exited && !RestartsAfter(&c.Pod.Spec, container, latest.ExitCode):
		return false, true
	case latest.State == podstate.Unknown && neverRestarts(&c.Pod.Spec, container):
		return false, true
	}
	c.start(container, latest, true)
	return false, false
}

// sidecar plans an init container that is always restarted; next: it has
// started, so the following container may.
func (c *computation) sidecar(container *v1.Container, latest *podstate.Container) (next bool) {
	if latest == nil || latest.State != podstate.Running {
		if latest == nil {
			latest = c.State.Latest(container.Name)
		}
		c.start(container, latest, true)
		return false
	}
	if message, grace, _ := c.unfit(container, latest, "Init container"); message != "" {
		c.plan.Kill = append(c.plan.Kill, Kill{ContainerID: latest.ID, Name: container.Name, Message: message, GracePeriod: grace})
		return false
	}
	if c.restartsToResize(container, latest, true) {
		return false
	}
	return container.StartupProbe == nil || c.Probes.Startup(latest.ID) == Success
}
