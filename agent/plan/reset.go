package plan

import (
	v1 "k8s.io/api/core/v1"

	"github.com/skiff-run/skiff/agent/podstate"
)

// CouldRestartAll reports whether some container has a rule that restarts all
// containers of the pod.
func CouldRestartAll(spec *v1.PodSpec) bool {
	for _, containers := range [][]v1.Container{spec.InitContainers, spec.Containers} {
		for i := range containers {
			for _, rule := range containers[i].RestartPolicyRules {
				if rule.Action == v1.ContainerRestartRuleActionRestartAllContainers {
					return true
				}
			}
		}
	}
	return false
}

// RestartsAll reports whether a container has ended in a way that restarts the
// whole pod in its place.
func RestartsAll(pod *v1.Pod, state *podstate.Pod) bool {
	if !CouldRestartAll(&pod.Spec) {
		return false
	}
	for _, containers := range [][]v1.Container{pod.Spec.InitContainers, pod.Spec.Containers} {
		for i := range containers {
			if latest := state.Latest(containers[i].Name); latest != nil && asksForReset(&containers[i], latest) {
				return true
			}
		}
	}
	return false
}

// AllRemoved reports whether nothing of the pod's init and regular containers
// is left, as after a reset.
func AllRemoved(pod *v1.Pod, state *podstate.Pod) bool {
	for _, containers := range [][]v1.Container{pod.Spec.InitContainers, pod.Spec.Containers} {
		for i := range containers {
			if state.Latest(containers[i].Name) != nil {
				return false
			}
		}
	}
	return true
}

func asksForReset(c *v1.Container, ended *podstate.Container) bool {
	if ended.State != podstate.Exited {
		return false
	}
	action, ok := ruleFor(c, ended.ExitCode)
	return ok && action == v1.ContainerRestartRuleActionRestartAllContainers
}

// resets lists the containers to take away. Those that ask for it come last: an
// agent that is killed in between finds them again and goes on.
func resets(pod *v1.Pod, state *podstate.Pod) []Reset {
	var targets, sources []Reset
	for _, containers := range [][]v1.Container{pod.Spec.Containers, pod.Spec.InitContainers} {
		for i := range containers {
			for j := range state.Containers {
				c := &state.Containers[j]
				if c.Name != containers[i].Name {
					continue
				}
				if asksForReset(&containers[i], c) {
					sources = append(sources, Reset{ContainerID: c.ID, Name: c.Name})
					continue
				}
				targets = append(targets, Reset{ContainerID: c.ID, Name: c.Name, Kill: c.State != podstate.Exited})
			}
		}
	}
	return append(targets, sources...)
}
