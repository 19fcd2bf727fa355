package apps

import (
	"fmt"

	corev1 "k8s.io/api/core/v1"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	metavalidation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/skiff-run/skiff/control/registry"
	"github.com/skiff-run/skiff/control/registry/core/podspec"
)

func nonNegative(value int64, path *field.Path) field.ErrorList {
	return apivalidation.ValidateNonnegativeField(value, path)
}

// count is a field that holds a number of pods, or of anything else that cannot be negative.
type count struct {
	name  string
	value int64
}

func countsNonNegative(path *field.Path, counts ...count) (errs field.ErrorList) {
	for _, c := range counts {
		errs = append(errs, nonNegative(c.value, path.Child(c.name))...)
	}
	return errs
}

// notMoreThanReplicas checks the parts of a status against the whole.
func notMoreThanReplicas(path *field.Path, replicas int32, parts ...count) (errs field.ErrorList) {
	for _, part := range parts {
		if part.value > int64(replicas) {
			errs = append(errs, field.Invalid(path.Child(part.name), int32(part.value), "cannot be greater than status.replicas"))
		}
	}
	return errs
}

// validateSelectorAndTemplate checks which pods a workload owns and what it makes new ones from:
// it must own what it makes, and that must run until it is told to stop.
func validateSelectorAndTemplate(selector *metav1.LabelSelector, template *corev1.PodTemplateSpec, path *field.Path) field.ErrorList {
	var errs field.ErrorList
	at := path.Child("selector")
	if selector == nil {
		errs = append(errs, field.Required(at, ""))
	} else {
		errs = append(errs, metavalidation.ValidateLabelSelector(selector, metavalidation.LabelSelectorValidationOptions{}, at)...)
		if len(selector.MatchLabels)+len(selector.MatchExpressions) == 0 {
			errs = append(errs, field.Invalid(at, selector, "empty selector is invalid for deployment"))
		}
	}
	matcher, err := metav1.LabelSelectorAsSelector(selector)
	if err != nil {
		return append(errs, field.Invalid(at, selector, "invalid label selector"))
	}
	at = path.Child("template")
	if !matcher.Empty() && !matcher.Matches(labels.Set(template.Labels)) {
		errs = append(errs, field.Invalid(at.Child("metadata", "labels"), template.Labels, "`selector` does not match template `labels`"))
	}
	errs = append(errs, podspec.ValidatePodTemplateSpec(template, at)...)
	if template.Spec.RestartPolicy != corev1.RestartPolicyAlways {
		errs = append(errs, field.NotSupported(at.Child("spec", "restartPolicy"), template.Spec.RestartPolicy, []corev1.RestartPolicy{corev1.RestartPolicyAlways}))
	}
	if template.Spec.ActiveDeadlineSeconds != nil {
		errs = append(errs, field.Forbidden(at.Child("spec", "activeDeadlineSeconds"), "activeDeadlineSeconds in ReplicaSet is not Supported"))
	}
	return errs
}

// workloadWarnings are those of a new workload, or of one whose generation moved.
func workloadWarnings(meta, old *metav1.ObjectMeta, template *corev1.PodTemplateSpec) []string {
	var texts []string
	if old == nil {
		if messages := validation.IsDNS1123Label(meta.Name); len(messages) > 0 {
			texts = append(texts, fmt.Sprintf("metadata.name: this is used in Pod names and hostnames, which can result in surprising behavior; a DNS label is recommended: %v", messages))
		}
	} else if meta.Generation == old.Generation {
		return nil
	}
	return append(texts, podspec.Warnings(field.NewPath("spec", "template"), &template.Spec, &template.ObjectMeta)...)
}

// templateColumns are the wide columns of workloads.
func templateColumns(selectorDescription string) []metav1.TableColumnDefinition {
	return []metav1.TableColumnDefinition{
		registry.Wide(registry.Column("Containers", "string", "Names of each container in the template.")),
		registry.Wide(registry.Column("Images", "string", "Images referenced by each container in the template.")),
		registry.Wide(registry.Column("Selector", "string", selectorDescription)),
	}
}
