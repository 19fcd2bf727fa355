package agent

import (
	"context"
	"slices"
	"strings"
	"time"

	v1 "k8s.io/api/core/v1"
	k8sruntime "k8s.io/apimachinery/pkg/runtime"
	resourcehelper "k8s.io/component-helpers/resource"

	"github.com/skiff-run/skiff/agent/event"
	"github.com/skiff-run/skiff/agent/resources"
)

const (
	// enforceAgain is when limits that are below what is in use are tried again.
	enforceAgain = time.Minute
	// tiersEvery is how often the weight of the burstable pods is looked at.
	tiersEvery = 5 * time.Second
)

// enforcer holds pods, and daemons if that is asked for, to what is theirs.
type enforcer struct {
	agent  *Agent
	pods   func() []*v1.Pod
	events event.Recorder
	node   k8sruntime.Object
	shares uint64
}

func (e *enforcer) run(ctx context.Context) {
	ticker := time.NewTicker(tiersEvery)
	defer ticker.Stop()
	var again time.Time
	done := false
	for {
		if !done && !time.Now().Before(again) {
			if done = e.enforce(ctx); !done {
				again = time.Now().Add(enforceAgain)
			}
		}
		e.weigh(ctx)
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
	}
}

// enforce sets the limits once and reports whether all of them hold.
func (e *enforcer) enforce(ctx context.Context) bool {
	s := &e.agent.Settings.Resources
	ok := true
	note := func(what string, err error) {
		if err == nil {
			e.events.Eventf(e.node, v1.EventTypeNormal, "NodeAllocatableEnforced", "Updated %s", what)
			return
		}
		ok = false
		if ctx.Err() == nil {
			e.agent.Logger.Warn("hold pods and daemons to what is theirs; trying again", "what", what, "error", err)
			e.events.Eventf(e.node, v1.EventTypeWarning, "FailedNodeAllocatableEnforcement", "Failed to update %s: %v", what, err)
		}
	}
	amounts, _ := e.agent.facts.Amounts()
	if slices.Contains(s.EnforceNodeAllocatable, "pods") {
		amounts = e.agent.reserved.Enforced(amounts)
	}
	note("Node Allocatable limit across pods", e.agent.Host.LimitPods(ctx, amounts))
	for _, what := range s.EnforceNodeAllocatable {
		kind, compressible := strings.CutSuffix(what, "-compressible")
		cgroup, reserved := s.SystemReservedCgroup, e.agent.reserved.System
		switch kind {
		case "kube-reserved":
			cgroup, reserved = s.KubeReservedCgroup, e.agent.reserved.Kube
		case "system-reserved":
		default:
			continue
		}
		if compressible {
			reserved = v1.ResourceList{v1.ResourceCPU: reserved[v1.ResourceCPU]}
		}
		note("limits on "+strings.ReplaceAll(kind, "-", " ")+" cgroup "+cgroup, e.agent.Host.LimitCgroup(ctx, cgroup, reserved))
	}
	return ok
}

// weigh gives the burstable pods together the weight of what they request.
func (e *enforcer) weigh(ctx context.Context) {
	var milliCPU int64
	for _, pod := range e.pods() {
		if resources.QOSClass(pod) == v1.PodQOSBurstable && pod.Status.Phase != v1.PodSucceeded && pod.Status.Phase != v1.PodFailed {
			requests := resourcehelper.PodRequests(pod, resourcehelper.PodResourcesOptions{})
			milliCPU += requests.Cpu().MilliValue()
		}
	}
	shares := resources.Shares(milliCPU)
	if shares == e.shares {
		return
	}
	if err := e.agent.Host.SetBurstableShares(ctx, shares); err != nil {
		if ctx.Err() == nil {
			e.agent.Logger.Warn("weigh the burstable pods; trying again", "error", err)
		}
		return
	}
	e.shares = shares
}

// policy is how amounts become cgroup settings on this node.
func (a *Agent) policy() *resources.Policy {
	s := &a.Settings.Resources
	p := &resources.Policy{MemoryCapacity: a.facts.Memory, QuotaPeriod: s.QuotaPeriod(), Unified: a.Host.Unified()}
	if s.MemorySwap.SwapBehavior == "LimitedSwap" {
		p.Swap = a.facts.Swap
	}
	return p
}
