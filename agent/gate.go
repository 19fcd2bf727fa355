package agent

import (
	"context"
	"fmt"
	"strings"
	"sync"

	v1 "k8s.io/api/core/v1"

	"github.com/skiff-run/skiff/agent/admission"
	"github.com/skiff-run/skiff/agent/cpus"
	"github.com/skiff-run/skiff/agent/devices"
	"github.com/skiff-run/skiff/agent/event"
	"github.com/skiff-run/skiff/agent/eviction"
	"github.com/skiff-run/skiff/agent/node"
	"github.com/skiff-run/skiff/agent/plan"
	"github.com/skiff-run/skiff/agent/podstatus"
	"github.com/skiff-run/skiff/agent/podworker"
	"github.com/skiff-run/skiff/agent/resources"
	"github.com/skiff-run/skiff/agent/shutdown"
)

// gate decides which pods may run on this node, and gives them what they have for themselves.
type gate struct {
	agent   *Agent
	nodes   *node.Manager
	evictor *eviction.Manager
	ending  *shutdown.Manager
	devices *devices.Manager
	cpus    *cpus.Manager
	policy  *resources.Policy
	events  event.Recorder

	// mu guards victims: pods that have to make place. wake tells of them.
	mu      sync.Mutex
	victims []*v1.Pod
	wake    chan struct{}
}

// node is the node as pods are judged by.
func (g *gate) node() admission.Node {
	n := g.agent.admissionNode(g.nodes)
	n.Allocatable = g.devices.Counted(g.nodes.Allocatable())
	return n
}

// admit decides about a pod that was assigned to this node.
func (g *gate) admit(pod *v1.Pod, active []*v1.Pod) (reason, message string, ok bool) {
	if g.ending.Ending() {
		return shutdown.NotAdmittedReason, shutdown.NotAdmittedMessage, false
	}
	if reason, message, ok := g.evictor.Admit(pod); !ok {
		return reason, message, false
	}
	if err := g.devices.Admit(context.Background(), pod, active); err != nil {
		return unexpected(err)
	}
	if err := g.cpus.Admit(pod, active); err != nil {
		g.devices.Release(pod.UID)
		return unexpected(err)
	}
	reason, message, ok = admission.Admit(pod, active, g.node())
	if !ok && strings.HasPrefix(reason, "OutOf") {
		reason, message, ok = g.preempt(pod, active, reason, message)
	}
	if !ok {
		g.devices.Release(pod.UID)
		g.cpus.Release(pod.UID)
	}
	return reason, message, ok
}

func unexpected(err error) (reason, message string, ok bool) {
	return admission.UnexpectedReason, fmt.Sprintf("Allocate failed due to %v, which is unexpected", err), false
}

// preempt makes place for a critical pod.
func (g *gate) preempt(pod *v1.Pod, active []*v1.Pod, reason, message string) (string, string, bool) {
	victims, err, critical := admission.Victims(pod, active, g.node())
	if !critical {
		return reason, message, false
	}
	if err != nil {
		return admission.UnexpectedReason, fmt.Sprintf("Unexpected error while attempting to recover from admission failure: %v", err), false
	}
	g.mu.Lock()
	g.victims = append(g.victims, victims...)
	g.mu.Unlock()
	select {
	case g.wake <- struct{}{}:
	default:
	}
	return "", "", true
}

// run ends the pods that have to make place, until ctx ends.
func (g *gate) run(ctx context.Context, pool *podworker.Pool) {
	const message = "Preempted in order to admit critical pod"
	for {
		select {
		case <-ctx.Done():
			return
		case <-g.wake:
		}
		g.mu.Lock()
		victims := g.victims
		g.victims = nil
		g.mu.Unlock()
		for _, pod := range victims {
			g.agent.Logger.Warn("ending pod to make place for a critical one", "pod", pod.Name, "namespace", pod.Namespace)
			g.events.Eventf(event.Pod(pod), v1.EventTypeWarning, "Preempting", "%s", message)
			pool.Evict(pod.UID, podstatus.Verdict{
				Reason: "Preempting", Message: message, Disruption: "Pod was preempted by Kubelet to accommodate a critical pod.",
			}, podworker.OwnGrace)
		}
	}
}

// resize decides whether a pod may have what it asks for instead of what it was given.
func (g *gate) resize(asked, allocated *v1.Pod, others []*v1.Pod) (reason, message string, ok bool) {
	for _, containers := range [][]v1.Container{asked.Spec.InitContainers, asked.Spec.Containers} {
		for i := range containers {
			c := &containers[i]
			was := containerOf(allocated, c.Name)
			if was == nil {
				continue
			}
			if g.cpus.Static && resources.QOSClass(asked) == v1.PodQOSGuaranteed && plan.Changes(v1.ResourceCPU, c.Resources, was.Resources) {
				return v1.PodReasonInfeasible, `Resize is infeasible for Guaranteed Pods alongside CPU Manager policy "static"`, false
			}
			request := c.Resources.Requests[v1.ResourceMemory]
			if request.Cmp(was.Resources.Requests[v1.ResourceMemory]) != 0 && !restartsForMemory(was) && (g.policy.Swaps(asked, c) || g.policy.Swaps(allocated, was)) {
				return v1.PodReasonInfeasible, "In-place resize of containers with swap is not supported.", false
			}
		}
	}
	if reason, message, ok := g.evictor.Admit(asked); !ok {
		return reason, message, false
	}
	return admission.Admit(asked, others, g.node())
}

func containerOf(pod *v1.Pod, name string) *v1.Container {
	for _, containers := range [][]v1.Container{pod.Spec.InitContainers, pod.Spec.Containers} {
		for i := range containers {
			if containers[i].Name == name {
				return &containers[i]
			}
		}
	}
	return nil
}

func restartsForMemory(c *v1.Container) bool {
	for _, p := range c.ResizePolicy {
		if p.ResourceName == v1.ResourceMemory {
			return p.RestartPolicy == v1.RestartContainer
		}
	}
	return false
}
