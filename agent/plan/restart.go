package plan

import (
	"slices"
	"time"

	v1 "k8s.io/api/core/v1"

	"github.com/skiff-run/skiff/agent/podstate"
)

const (
	// firstBackoff and maxBackoff bound the delay between restarts.
	firstBackoff = 10 * time.Second
	maxBackoff   = 5 * time.Minute
	// backoffReset: a container that ran this long starts from the beginning.
	backoffReset = 2 * maxBackoff
)

// IsSidecar reports whether an init container keeps running beside the others.
func IsSidecar(c *v1.Container) bool {
	return c.RestartPolicy != nil && *c.RestartPolicy == v1.ContainerRestartPolicyAlways
}

// ruleFor returns the action of the first restart rule that matches the exit
// code. Rules count only beside a policy of the container's own, as the API
// demands it.
func ruleFor(c *v1.Container, exitCode int32) (v1.ContainerRestartRuleAction, bool) {
	if c.RestartPolicy == nil {
		return "", false
	}
	for _, rule := range c.RestartPolicyRules {
		if rule.ExitCodes == nil {
			continue
		}
		listed := slices.Contains(rule.ExitCodes.Values, exitCode)
		switch rule.ExitCodes.Operator {
		case v1.ContainerRestartRuleOnExitCodesOpIn:
			if listed {
				return rule.Action, true
			}
		case v1.ContainerRestartRuleOnExitCodesOpNotIn:
			if !listed {
				return rule.Action, true
			}
		}
	}
	return "", false
}

// RestartsAfter reports whether a container that ended with exitCode is started
// again: by its restart rules, its own policy, or the pod's.
func RestartsAfter(spec *v1.PodSpec, c *v1.Container, exitCode int32) bool {
	if action, ok := ruleFor(c, exitCode); ok &&
		(action == v1.ContainerRestartRuleActionRestart || action == v1.ContainerRestartRuleActionRestartAllContainers) {
		return true
	}
	policy := v1.ContainerRestartPolicy(spec.RestartPolicy)
	if c.RestartPolicy != nil {
		policy = *c.RestartPolicy
	}
	switch policy {
	case v1.ContainerRestartPolicyNever:
		return false
	case v1.ContainerRestartPolicyOnFailure:
		return exitCode != 0
	}
	return true
}

// neverRestarts reports whether the container's policy alone rules a restart out.
func neverRestarts(spec *v1.PodSpec, c *v1.Container) bool {
	if c.RestartPolicy != nil {
		return *c.RestartPolicy == v1.ContainerRestartPolicyNever
	}
	return spec.RestartPolicy == v1.RestartPolicyNever
}

// ShouldRun reports whether a container which is not running has to be started
// at some time, whatever the back-off says.
func ShouldRun(pod *v1.Pod, state *podstate.Pod, c *v1.Container) bool {
	if pod.DeletionTimestamp != nil {
		return false
	}
	latest := state.Latest(c.Name)
	switch {
	case latest == nil:
		return true
	case latest.State == podstate.Running:
		return false
	case latest.State == podstate.Exited:
		return RestartsAfter(&pod.Spec, c, latest.ExitCode)
	}
	return true
}

// delayAfter is how long to wait after the exit of a container before its
// spec is tried again. The first restart is immediate; each further one waits
// twice as long. The delay is kept on the container itself, so it outlives the
// agent.
func delayAfter(c *podstate.Container, hash string) time.Duration {
	if c == nil || c.State != podstate.Exited || c.Record.Hash != hash {
		return 0
	}
	if !c.StartedAt.IsZero() && c.FinishedAt.Sub(c.StartedAt) > backoffReset {
		return 0
	}
	return c.Record.Backoff
}

// nextDelay is the delay after one more exit.
func nextDelay(delay time.Duration) time.Duration {
	if delay == 0 {
		return firstBackoff
	}
	return min(2*delay, maxBackoff)
}
