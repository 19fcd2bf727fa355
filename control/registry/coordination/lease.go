package coordination

import (
	"context"

	coordinationv1 "k8s.io/api/coordination/v1"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/utils/ptr"

	"github.com/skiff-run/skiff/control/registry"
)

// leaseKind serves Leases.
func leaseKind() registry.Kind[*coordinationv1.Lease] {
	return registry.Kind[*coordinationv1.Lease]{
		Version: coordinationv1.SchemeGroupVersion, Plural: "leases", Singular: "lease",
		New:          func() *coordinationv1.Lease { return &coordinationv1.Lease{} },
		NewList:      func() runtime.Object { return &coordinationv1.LeaseList{} },
		ValidateName: apivalidation.NameIsDNSSubdomain,
		PrepareForCreate: func(_ context.Context, l *coordinationv1.Lease) {
			dropCoordination(l)
		},
		PrepareForUpdate: func(_ context.Context, l, _ *coordinationv1.Lease) { dropCoordination(l) },
		Validate:         func(_ context.Context, l *coordinationv1.Lease) field.ErrorList { return validateLease(l) },
		CreateOnUpdate:   true,
		// Two candidates must not overwrite each other's lease unseen.
		ConditionalUpdateOnly: true,
		Columns: []metav1.TableColumnDefinition{
			registry.NameColumn(),
			registry.Column("Holder", "string", coordinationv1.LeaseSpec{}.SwaggerDoc()["holderIdentity"]),
			registry.AgeColumn(),
		},
		Row: func(l *coordinationv1.Lease) []any {
			return []any{l.Name, ptr.Deref(l.Spec.HolderIdentity, ""), registry.Age(l.CreationTimestamp)}
		},
	}
}

// dropCoordination clears the fields of coordinated leader election, a feature
// that Kubernetes has switched off unless asked for.
func dropCoordination(l *coordinationv1.Lease) {
	l.Spec.Strategy, l.Spec.PreferredHolder = nil, nil
}

func validateLease(l *coordinationv1.Lease) field.ErrorList {
	var errs field.ErrorList
	spec := field.NewPath("spec")
	if seconds := l.Spec.LeaseDurationSeconds; seconds != nil && *seconds <= 0 {
		errs = append(errs, field.Invalid(spec.Child("leaseDurationSeconds"), *seconds, "must be greater than 0"))
	}
	if transitions := l.Spec.LeaseTransitions; transitions != nil && *transitions < 0 {
		errs = append(errs, field.Invalid(spec.Child("leaseTransitions"), *transitions, "must be greater than or equal to 0"))
	}
	return errs
}
