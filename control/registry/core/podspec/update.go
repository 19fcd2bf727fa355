package podspec

import (
	"fmt"
	"math"

	corev1 "k8s.io/api/core/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/util/diff"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// updatable is what the message about immutable fields offers instead.
const updatable = "`spec.containers[*].image`," +
	"`spec.initContainers[*].image`," +
	"`spec.activeDeadlineSeconds`," +
	"`spec.tolerations` (only additions to existing tolerations)," +
	"`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)"

// ValidatePodUpdate checks a user's change of a pod. Little of a pod can change once it exists:
// images, the deadline, tolerations, and while it waits behind scheduling gates, where it may run.
func ValidatePodUpdate(updated, old *corev1.Pod) field.ErrorList {
	v := newPodValidator(updated)
	v.metaAndSpec(updated, old)
	path := field.NewPath("spec")
	if !v.sameContainers(updated.Spec.Containers, old.Spec.Containers, path.Child("containers")) ||
		!v.sameContainers(updated.Spec.InitContainers, old.Spec.InitContainers, path.Child("initContainers")) ||
		!v.deadlineShrinks(updated.Spec.ActiveDeadlineSeconds, old.Spec.ActiveDeadlineSeconds, path.Child("activeDeadlineSeconds")) {
		return v.list
	}
	v.tolerationsGrow(updated.Spec.Tolerations, old.Spec.Tolerations, path.Child("tolerations"))
	v.gatesShrink(updated.Spec.SchedulingGates, old.Spec.SchedulingGates, path.Child("schedulingGates"))
	if apiequality.Semantic.DeepEqual(updated.Spec, old.Spec) {
		return v.list
	}
	rest := v.withoutAllowedChanges(&updated.Spec, &old.Spec, path)
	if !apiequality.Semantic.DeepEqual(*rest, old.Spec) {
		v.forbidden(path, fmt.Sprintf("pod updates may not change fields other than %s\n%v", updatable, diff.Diff(old.Spec, *rest)))
	}
	return v.list
}

// metaAndSpec checks what every kind of update must leave valid.
func (v *validator) metaAndSpec(updated, old *corev1.Pod) {
	v.add(ValidateObjectMetaUpdate(&updated.ObjectMeta, &old.ObjectMeta)...)
	v.pod(updated)
	v.annotationUpdates(updated.Annotations, old.Annotations, field.NewPath("metadata", "annotations"))
}

// withoutAllowedChanges copies the new spec and undoes in the copy each change that is allowed or
// was judged already: what then differs from the old spec is forbidden.
func (v *validator) withoutAllowedChanges(updated, old *corev1.PodSpec, path *field.Path) *corev1.PodSpec {
	rest := updated.DeepCopy()
	for i := range rest.Containers {
		rest.Containers[i].Image = old.Containers[i].Image
	}
	for i := range rest.InitContainers {
		rest.InitContainers[i].Image = old.InitContainers[i].Image
	}
	rest.ActiveDeadlineSeconds = old.ActiveDeadlineSeconds
	rest.SchedulingGates = old.SchedulingGates
	rest.Tolerations = old.Tolerations
	// Negative periods came from before they were refused; they count as one second.
	was, is := old.TerminationGracePeriodSeconds, rest.TerminationGracePeriodSeconds
	if was != nil && *was < 0 && is != nil && *is == 1 {
		rest.TerminationGracePeriodSeconds = was
	}
	if len(old.SchedulingGates) > 0 {
		v.gatedPlacement(rest, old, path)
	}
	return rest
}

// sameContainers tells whether containers can be compared one by one, and checks their images.
func (v *validator) sameContainers(updated, old []corev1.Container, path *field.Path) bool {
	if len(updated) != len(old) {
		v.forbidden(path, "pod updates may not add or remove containers")
		return false
	}
	for i := range updated {
		if updated[i].Image == "" {
			v.required(path.Index(i).Child("image"), "")
		}
		v.imageNotPadded(updated[i].Image, path.Index(i))
	}
	return true
}

// deadlineShrinks: a deadline can be set and brought forward, not put off. It reports false when
// nothing else need be said.
func (v *validator) deadlineShrinks(updated, old *int64, path *field.Path) bool {
	if updated == nil {
		if old != nil {
			v.invalid(path, updated, "must not update from a positive integer to nil value")
		}
		return true
	}
	if *updated < 0 || *updated > math.MaxInt32 {
		v.invalid(path, *updated, validation.InclusiveRangeError(0, math.MaxInt32))
		return false
	}
	if old != nil && *old < *updated {
		v.invalid(path, *updated, "must be less than or equal to previous value")
		return false
	}
	return true
}

// tolerationsGrow: of a toleration that is there only its seconds may change.
func (v *validator) tolerationsGrow(updated, old []corev1.Toleration, path *field.Path) {
	for _, toleration := range old {
		kept := false
		for _, candidate := range updated {
			candidate.TolerationSeconds = toleration.TolerationSeconds
			kept = kept || candidate == toleration
		}
		if !kept {
			v.forbidden(path, "existing toleration can not be modified except its tolerationSeconds")
			return
		}
	}
	v.tolerations(updated, path)
}

func (v *validator) gatesShrink(updated, old []corev1.PodSchedulingGate, path *field.Path) {
	known := map[string]bool{}
	for _, gate := range old {
		known[gate.Name] = true
	}
	for i, gate := range updated {
		if !known[gate.Name] {
			v.forbidden(path.Index(i).Child("name"), fmt.Sprintf("only deletion is allowed, but found new scheduling gate '%s'", gate.Name))
		}
	}
}

// ValidateEphemeralContainersUpdate checks a change through the ephemeralcontainers subresource:
// ephemeral containers can be added, and stay.
func ValidateEphemeralContainersUpdate(updated, old *corev1.Pod) field.ErrorList {
	if IsMirror(old) {
		return field.ErrorList{field.Forbidden(field.NewPath(""), "static pods do not support ephemeral containers")}
	}
	v := newPodValidator(updated)
	v.metaAndSpec(updated, old)
	path := field.NewPath("spec", "ephemeralContainers")
	byName := map[string]*corev1.EphemeralContainer{}
	for i := range updated.Spec.EphemeralContainers {
		byName[updated.Spec.EphemeralContainers[i].Name] = &updated.Spec.EphemeralContainers[i]
	}
	for i := range old.Spec.EphemeralContainers {
		was := &old.Spec.EphemeralContainers[i]
		is, found := byName[was.Name]
		switch {
		case !found:
			v.forbidden(path, fmt.Sprintf("existing ephemeral containers %q may not be removed\n", was.Name))
		case !apiequality.Semantic.DeepEqual(was, is):
			v.forbidden(path, fmt.Sprintf("existing ephemeral containers %q may not be changed\n%v", was.Name, diff.Diff(*was, *is)))
		}
	}
	return v.list
}

// ValidateBinding checks the decision to run a pod on a node.
func ValidateBinding(binding *corev1.Binding) field.ErrorList {
	var f findings
	target := field.NewPath("target")
	isNode := binding.Target.Kind == "" || binding.Target.Kind == "Node"
	if !isNode {
		f.add(field.NotSupported(target.Child("kind"), binding.Target.Kind, []string{"Node", "<empty>"}))
	}
	if binding.Target.Name == "" {
		f.required(target.Child("name"), "")
	} else if isNode {
		f.dnsSubdomain(binding.Target.Name, target.Child("name"))
	}
	return f.list
}

// ValidateLogOptions checks a request for a container's log.
func ValidateLogOptions(options *corev1.PodLogOptions) field.ErrorList {
	var f findings
	if options.TailLines != nil && *options.TailLines < 0 {
		f.nonNegative(*options.TailLines, field.NewPath("tailLines"))
	}
	if options.LimitBytes != nil && *options.LimitBytes < 1 {
		f.invalid(field.NewPath("limitBytes"), *options.LimitBytes, "must be greater than 0")
	}
	switch {
	case options.SinceSeconds != nil && options.SinceTime != nil:
		f.forbidden(field.NewPath(""), "at most one of `sinceTime` or `sinceSeconds` may be specified")
	case options.SinceSeconds != nil && *options.SinceSeconds < 1:
		f.invalid(field.NewPath("sinceSeconds"), *options.SinceSeconds, "must be greater than 0")
	}
	if options.Stream != nil {
		f.forbidden(field.NewPath("stream"), "may not be specified")
	}
	return f.list
}
