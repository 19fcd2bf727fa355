package plan

import (
	"fmt"

	v1 "k8s.io/api/core/v1"

	"github.com/skiff-run/skiff/agent/allocation"
	"github.com/skiff-run/skiff/agent/podstate"
)

// ResizeKey is the key in Input.Failed of attempts to resize. It is no valid container name.
const ResizeKey = "/resize"

// resize plans that the amounts in force follow the allocated ones.
func (c *computation) resize() {
	if c.Actuated == nil || c.Actuated.Equal(allocation.Of(c.Pod)) {
		return
	}
	if failed, held := c.Failed[ResizeKey]; held && c.Now.Before(failed.RetryAt) {
		c.plan.wakeAt(failed.RetryAt)
		return
	}
	c.plan.Resize = true
}

// restartsToResize plans the restart of a running container whose resize policy asks for one.
func (c *computation) restartsToResize(container *v1.Container, running *podstate.Container, init bool) bool {
	if !c.plan.Resize || !policyRestarts(container, c.Actuated.Containers[container.Name]) {
		return false
	}
	c.plan.Kill = append(c.plan.Kill, Kill{
		ContainerID: running.ID, Name: container.Name, Message: fmt.Sprintf("Container %s resize requires restart", container.Name),
	})
	// In the same plan, because its restart policy has no say in this.
	c.plan.Start = append(c.plan.Start, Start{Container: container, Init: init, Attempt: running.Record.Attempt + 1, Backoff: running.Record.Backoff})
	return true
}

// policyRestarts reports whether an amount changes that the container can only take over by a restart.
func policyRestarts(container *v1.Container, actuated v1.ResourceRequirements) bool {
	for _, policy := range container.ResizePolicy {
		if policy.RestartPolicy == v1.RestartContainer && Changes(policy.ResourceName, container.Resources, actuated) {
			return true
		}
	}
	return false
}

// Changes reports whether request or limit of a resource differ.
func Changes(name v1.ResourceName, a, b v1.ResourceRequirements) bool {
	request, limit := a.Requests[name], a.Limits[name]
	return request.Cmp(b.Requests[name]) != 0 || limit.Cmp(b.Limits[name]) != 0
}
