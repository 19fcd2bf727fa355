package scheduling

import (
	"context"
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
	schedulingv1 "k8s.io/api/scheduling/v1"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/utils/ptr"

	"github.com/skiff-run/skiff/control/registry"
)

// Limits of the values of priority classes: users' below, the system's above.
const (
	highestUserValue = 1000000000
	systemPrefix     = "system-"
)

// systemValues are the classes that may bear the system's prefix.
var systemValues = map[string]int32{"system-node-critical": 2000001000, "system-cluster-critical": 2000000000}

// priorityClassKind serves PriorityClasses.
func priorityClassKind() registry.Kind[*schedulingv1.PriorityClass] {
	doc := schedulingv1.PriorityClass{}.SwaggerDoc()
	return registry.Kind[*schedulingv1.PriorityClass]{
		Version: schedulingv1.SchemeGroupVersion, Plural: "priorityclasses", Singular: "priorityclass", ShortNames: []string{"pc"}, ClusterScoped: true,
		New:     func() *schedulingv1.PriorityClass { return &schedulingv1.PriorityClass{} },
		NewList: func() runtime.Object { return &schedulingv1.PriorityClassList{} },
		Default: func(c *schedulingv1.PriorityClass) {
			if c.PreemptionPolicy == nil {
				c.PreemptionPolicy = ptr.To(corev1.PreemptLowerPriority)
			}
		},
		ValidateName:     apivalidation.NameIsDNSSubdomain,
		PrepareForCreate: func(_ context.Context, c *schedulingv1.PriorityClass) { c.Generation = 1 },
		Validate: func(_ context.Context, c *schedulingv1.PriorityClass) field.ErrorList {
			return validatePriorityClass(c)
		},
		// What cannot change needs no second look.
		ValidateUpdateOnly: true,
		ValidateUpdate: func(_ context.Context, c, old *schedulingv1.PriorityClass) field.ErrorList {
			return validatePriorityClassUpdate(c, old)
		},
		Columns: []metav1.TableColumnDefinition{
			registry.NameColumn(),
			registry.Column("Value", "integer", doc["value"]),
			registry.Column("Global-Default", "boolean", doc["globalDefault"]),
			registry.AgeColumn(),
			registry.Column("PreemptionPolicy", "string", doc["preemptionPolicy"]),
		},
		Row: func(c *schedulingv1.PriorityClass) []any {
			return []any{c.Name, int64(c.Value), c.GlobalDefault, registry.Age(c.CreationTimestamp), string(ptr.Deref(c.PreemptionPolicy, corev1.PreemptLowerPriority))}
		},
	}
}

func validatePriorityClass(c *schedulingv1.PriorityClass) field.ErrorList {
	var errs field.ErrorList
	if strings.HasPrefix(c.Name, systemPrefix) {
		if why := notOfTheSystem(c); why != "" {
			errs = append(errs, field.Forbidden(field.NewPath("metadata", "name"),
				"priority class names with '"+systemPrefix+"' prefix are reserved for system use only. error: "+why))
		}
	} else if c.Value > highestUserValue {
		errs = append(errs, field.Forbidden(field.NewPath("value"), fmt.Sprintf("maximum allowed value of a user defined priority is %v", highestUserValue)))
	}
	if c.PreemptionPolicy == nil {
		return errs
	}
	path := field.NewPath("preemptionPolicy")
	switch *c.PreemptionPolicy {
	case corev1.PreemptLowerPriority, corev1.PreemptNever:
	case "":
		errs = append(errs, field.Required(path, ""))
	default:
		errs = append(errs, field.NotSupported(path, *c.PreemptionPolicy, []corev1.PreemptionPolicy{corev1.PreemptLowerPriority, corev1.PreemptNever}))
	}
	return errs
}

// notOfTheSystem says why a class with the system's prefix is not one of the
// system's own; empty when it is.
func notOfTheSystem(c *schedulingv1.PriorityClass) string {
	value, known := systemValues[c.Name]
	switch {
	case !known:
		return c.Name + " is not a known system priority class"
	case value != c.Value:
		return fmt.Sprintf("value of %v PriorityClass must be %v", c.Name, value)
	case c.GlobalDefault:
		return fmt.Sprintf("globalDefault of %v PriorityClass must be false", c.Name)
	}
	return ""
}

func validatePriorityClassUpdate(c, old *schedulingv1.PriorityClass) field.ErrorList {
	var errs field.ErrorList
	if c.Value != old.Value {
		errs = append(errs, field.Forbidden(field.NewPath("value"), "may not be changed in an update."))
	}
	return append(errs, apivalidation.ValidateImmutableField(c.PreemptionPolicy, old.PreemptionPolicy, field.NewPath("preemptionPolicy"))...)
}
