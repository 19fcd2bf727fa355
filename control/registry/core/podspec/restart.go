package podspec

import (
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

const (
	maxRestartRules     = 20
	maxRestartExitCodes = 255
)

// containerRestart checks the restart policy and rules of one container.
func (v *validator) containerRestart(c *corev1.Container, path *field.Path) {
	switch {
	case c.RestartPolicy == nil && len(c.RestartPolicyRules) == 0:
		return
	case c.RestartPolicy == nil:
		v.required(path.Child("restartPolicy"), "must specify restartPolicy when restart rules are used")
	default:
		oneOf(&v.findings, path.Child("restartPolicy"), *c.RestartPolicy, corev1.ContainerRestartPolicyAlways,
			corev1.ContainerRestartPolicyNever, corev1.ContainerRestartPolicyOnFailure)
	}
	at := path.Child("restartPolicyRules")
	if n := len(c.RestartPolicyRules); n > maxRestartRules {
		v.add(field.TooMany(at, n, maxRestartRules))
	}
	for i, rule := range c.RestartPolicyRules {
		v.restartRule(rule, at.Index(i))
	}
}

func (v *validator) restartRule(rule corev1.ContainerRestartRule, path *field.Path) {
	oneOf(&v.findings, path.Child("action"), rule.Action,
		corev1.ContainerRestartRuleActionRestart, corev1.ContainerRestartRuleActionRestartAllContainers)
	if rule.ExitCodes == nil {
		v.required(path.Child("exitCodes"), "must be specified")
		return
	}
	oneOf(&v.findings, path.Child("exitCodes", "operator"), rule.ExitCodes.Operator,
		corev1.ContainerRestartRuleOnExitCodesOpIn, corev1.ContainerRestartRuleOnExitCodesOpNotIn)
	if n := len(rule.ExitCodes.Values); n > maxRestartExitCodes {
		v.add(field.TooMany(path.Child("exitCodes", "values"), n, maxRestartExitCodes))
	}
}

// ShouldRestart tells whether a container of the pod is started again after it ended with the
// exit code: by the first of its rules that matches, else by its own policy, else by the pod's.
func ShouldRestart(spec *corev1.PodSpec, c *corev1.Container, exitCode int32) bool {
	if c.RestartPolicy != nil {
		for _, rule := range c.RestartPolicyRules {
			if restartRuleMatches(rule, exitCode) {
				return true
			}
		}
		switch *c.RestartPolicy {
		case corev1.ContainerRestartPolicyAlways:
			return true
		case corev1.ContainerRestartPolicyOnFailure:
			return exitCode != 0
		case corev1.ContainerRestartPolicyNever:
			return false
		}
	}
	switch spec.RestartPolicy {
	case corev1.RestartPolicyOnFailure:
		return exitCode != 0
	case corev1.RestartPolicyNever:
		return false
	default:
		return true
	}
}

func restartRuleMatches(rule corev1.ContainerRestartRule, exitCode int32) bool {
	if rule.ExitCodes == nil {
		return false
	}
	listed := slices.Contains(rule.ExitCodes.Values, exitCode)
	switch rule.ExitCodes.Operator {
	case corev1.ContainerRestartRuleOnExitCodesOpIn:
		return listed
	case corev1.ContainerRestartRuleOnExitCodesOpNotIn:
		return !listed
	default:
		return false
	}
}

// anyRestartsAll tells whether some container may restart all of them, those that ended included.
func anyRestartsAll(spec *corev1.PodSpec) bool {
	for _, list := range [][]corev1.Container{spec.InitContainers, spec.Containers} {
		for i := range list {
			for _, rule := range list[i].RestartPolicyRules {
				if rule.Action == corev1.ContainerRestartRuleActionRestartAllContainers {
					return true
				}
			}
		}
	}
	return false
}

// resizePolicy checks what happens to a container when its resources are changed in place.
func (v *validator) resizePolicy(policies []corev1.ContainerResizePolicy, path *field.Path) {
	seen := map[corev1.ResourceName]bool{}
	for i, policy := range policies {
		if seen[policy.ResourceName] {
			v.duplicate(path.Index(i), policy.ResourceName)
		}
		seen[policy.ResourceName] = true
		requiredOneOf(&v.findings, path, policy.ResourceName, corev1.ResourceCPU, corev1.ResourceMemory)
		requiredOneOf(&v.findings, path, policy.RestartPolicy, corev1.NotRequired, corev1.RestartContainer)
		if v.spec.RestartPolicy == corev1.RestartPolicyNever && policy.RestartPolicy != corev1.NotRequired {
			v.invalid(path, policy.RestartPolicy, "must be 'NotRequired' when pod `restartPolicy` is 'Never'")
		}
	}
}
