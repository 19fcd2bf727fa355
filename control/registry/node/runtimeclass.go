package node

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	nodev1 "k8s.io/api/node/v1"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	metavalidation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/skiff-run/skiff/control/registry"
	"github.com/skiff-run/skiff/control/registry/core/podspec"
)

// runtimeClassKind serves RuntimeClasses.
func runtimeClassKind() registry.Kind[*nodev1.RuntimeClass] {
	return registry.Kind[*nodev1.RuntimeClass]{
		Version: nodev1.SchemeGroupVersion, Plural: "runtimeclasses", Singular: "runtimeclass", ClusterScoped: true,
		New:          func() *nodev1.RuntimeClass { return &nodev1.RuntimeClass{} },
		NewList:      func() runtime.Object { return &nodev1.RuntimeClassList{} },
		ValidateName: apivalidation.NameIsDNSSubdomain,
		Validate:     func(_ context.Context, c *nodev1.RuntimeClass) field.ErrorList { return validateRuntimeClass(c) },
		ValidateUpdate: func(_ context.Context, c, old *nodev1.RuntimeClass) field.ErrorList {
			return apivalidation.ValidateImmutableField(c.Handler, old.Handler, field.NewPath("handler"))
		},
		Warnings:              func(_ context.Context, c, _ *nodev1.RuntimeClass) []string { return runtimeClassWarnings(c) },
		CreateOnUpdate:        true,
		ConditionalUpdateOnly: true,
		Columns: []metav1.TableColumnDefinition{
			registry.NameColumn(), registry.Column("Handler", "string", nodev1.RuntimeClass{}.SwaggerDoc()["handler"]), registry.AgeColumn(),
		},
		Row: func(c *nodev1.RuntimeClass) []any { return []any{c.Name, c.Handler, registry.Age(c.CreationTimestamp)} },
	}
}

func validateRuntimeClass(c *nodev1.RuntimeClass) field.ErrorList {
	var errs field.ErrorList
	if handler := field.NewPath("handler"); c.Handler == "" {
		errs = append(errs, field.Required(handler, ""))
	} else {
		for _, message := range apivalidation.NameIsDNSLabel(c.Handler, false) {
			errs = append(errs, field.Invalid(handler, c.Handler, message))
		}
	}
	if c.Overhead != nil {
		errs = append(errs, podspec.ValidateOverhead(c.Overhead.PodFixed, field.NewPath("overhead"))...)
	}
	if c.Scheduling == nil {
		return errs
	}
	path := field.NewPath("scheduling")
	if c.Scheduling.NodeSelector != nil {
		errs = append(errs, metavalidation.ValidateLabels(c.Scheduling.NodeSelector, path.Child("nodeSelector"))...)
	}
	tolerations := path.Child("tolerations")
	errs = append(errs, podspec.ValidateTolerations(c.Scheduling.Tolerations, tolerations)...)
	seen := map[corev1.Toleration]bool{}
	for i, t := range c.Scheduling.Tolerations {
		key := corev1.Toleration{Key: t.Key, Operator: t.Operator, Value: t.Value, Effect: t.Effect}
		if seen[key] {
			errs = append(errs, field.Duplicate(tolerations.Index(i), t))
		}
		seen[key] = true
	}
	return errs
}

// runtimeClassWarnings tell of labels that nodes will not have for ever.
func runtimeClassWarnings(c *nodev1.RuntimeClass) []string {
	if c == nil || c.Scheduling == nil {
		return nil
	}
	var warnings []string
	for key := range c.Scheduling.NodeSelector {
		if message, deprecated := podspec.DeprecatedNodeLabel(key); deprecated {
			warnings = append(warnings, fmt.Sprintf("%s: %s", field.NewPath("scheduling", "nodeSelector"), message))
		}
	}
	return warnings
}
