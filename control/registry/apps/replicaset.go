package apps

import (
	"context"
	"strconv"

	appsv1 "k8s.io/api/apps/v1"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/utils/ptr"

	"github.com/skiff-run/skiff/control/registry"
	"github.com/skiff-run/skiff/control/registry/core/podspec"
)

// replicaSetKind serves ReplicaSets.
func replicaSetKind() registry.Kind[*appsv1.ReplicaSet] {
	return registry.Kind[*appsv1.ReplicaSet]{
		Version: appsv1.SchemeGroupVersion, Plural: "replicasets", Singular: "replicaset", ShortNames: []string{"rs"}, Categories: []string{"all"},
		New:     func() *appsv1.ReplicaSet { return &appsv1.ReplicaSet{} },
		NewList: func() runtime.Object { return &appsv1.ReplicaSetList{} },
		Default: func(r *appsv1.ReplicaSet) {
			setIfNil(&r.Spec.Replicas, 1)
			podspec.SetTemplateDefaults(&r.Spec.Template)
		},
		Spec:       func(r *appsv1.ReplicaSet) any { return &r.Spec },
		Status:     func(r *appsv1.ReplicaSet) any { return &r.Status },
		Generation: true,
		PrepareForCreate: func(_ context.Context, r *appsv1.ReplicaSet) {
			podspec.DropUnsupportedInTemplate(&r.Spec.Template)
		},
		PrepareForUpdate: func(_ context.Context, r, _ *appsv1.ReplicaSet) {
			podspec.DropUnsupportedInTemplate(&r.Spec.Template)
		},
		Validate: func(_ context.Context, r *appsv1.ReplicaSet) field.ErrorList { return validateReplicaSet(r) },
		ValidateUpdate: func(_ context.Context, r, old *appsv1.ReplicaSet) field.ErrorList {
			return validateReplicaSetUpdate(r, old)
		},
		ValidateUpdateOnly: true,
		Warnings: func(_ context.Context, r, old *appsv1.ReplicaSet) []string {
			if old == nil {
				return workloadWarnings(&r.ObjectMeta, nil, &r.Spec.Template)
			}
			return workloadWarnings(&r.ObjectMeta, &old.ObjectMeta, &r.Spec.Template)
		},
		ValidateStatus: func(_ context.Context, r, old *appsv1.ReplicaSet) field.ErrorList {
			return validateReplicaSetStatusUpdate(r, old)
		},
		Fields: func(r *appsv1.ReplicaSet) fields.Set {
			return fields.Set{"status.replicas": strconv.Itoa(int(r.Status.Replicas))}
		},
		Columns: append([]metav1.TableColumnDefinition{
			registry.NameColumn(),
			registry.Column("Desired", "integer", appsv1.ReplicaSetSpec{}.SwaggerDoc()["replicas"]),
			registry.Column("Current", "integer", appsv1.ReplicaSetStatus{}.SwaggerDoc()["replicas"]),
			registry.Column("Ready", "integer", appsv1.ReplicaSetStatus{}.SwaggerDoc()["readyReplicas"]),
			registry.AgeColumn(),
		}, templateColumns(appsv1.ReplicaSetSpec{}.SwaggerDoc()["selector"])...),
		Row: func(r *appsv1.ReplicaSet) []any {
			names, images := podspec.NamesAndImages(&r.Spec.Template.Spec)
			return []any{
				r.Name, int64(replicas(r.Spec.Replicas)), int64(r.Status.Replicas), int64(r.Status.ReadyReplicas), registry.Age(r.CreationTimestamp),
				names, images, metav1.FormatLabelSelector(r.Spec.Selector),
			}
		},
	}
}

func validateReplicaSet(r *appsv1.ReplicaSet) field.ErrorList {
	errs := podspec.ValidateObjectMeta(&r.ObjectMeta, true, apivalidation.NameIsDNSSubdomain)
	return append(errs, validateReplicaSetSpec(&r.Spec, field.NewPath("spec"))...)
}

func validateReplicaSetUpdate(r, old *appsv1.ReplicaSet) field.ErrorList {
	errs := podspec.ValidateObjectMetaUpdate(&r.ObjectMeta, &old.ObjectMeta)
	errs = append(errs, validateReplicaSetSpec(&r.Spec, field.NewPath("spec"))...)
	return append(errs, apivalidation.ValidateImmutableField(r.Spec.Selector, old.Spec.Selector, field.NewPath("spec", "selector"))...)
}

func validateReplicaSetSpec(spec *appsv1.ReplicaSetSpec, path *field.Path) field.ErrorList {
	errs := nonNegative(int64(replicas(spec.Replicas)), path.Child("replicas"))
	errs = append(errs, nonNegative(int64(spec.MinReadySeconds), path.Child("minReadySeconds"))...)
	return append(errs, validateSelectorAndTemplate(spec.Selector, &spec.Template, path)...)
}

// validateReplicaSetStatusUpdate checks what the ReplicaSet controller counted.
func validateReplicaSetStatusUpdate(r, old *appsv1.ReplicaSet) field.ErrorList {
	path, status := field.NewPath("status"), &r.Status
	labelled := count{"fullyLabeledReplicas", int64(status.FullyLabeledReplicas)}
	ready := count{"readyReplicas", int64(status.ReadyReplicas)}
	available := count{"availableReplicas", int64(status.AvailableReplicas)}
	errs := podspec.ValidateObjectMetaUpdate(&r.ObjectMeta, &old.ObjectMeta)
	errs = append(errs, countsNonNegative(path,
		count{"replicas", int64(status.Replicas)}, labelled, ready, available,
		count{"observedGeneration", status.ObservedGeneration},
		count{"terminatingReplicas", int64(ptr.Deref(status.TerminatingReplicas, 0))})...)
	errs = append(errs, notMoreThanReplicas(path, status.Replicas, labelled, ready, available)...)
	if status.AvailableReplicas > status.ReadyReplicas {
		errs = append(errs, field.Invalid(path.Child("availableReplicas"), status.AvailableReplicas, "cannot be greater than readyReplicas"))
	}
	return errs
}

func addReplicaSets(deps *registry.Dependencies, storages registry.Storages) error {
	store, own, err := registry.Build(deps, replicaSetKind())
	if err != nil {
		return err
	}
	storages.Add(own)
	storages["replicasets/scale"] = newScale(store.Store, scaled[*appsv1.ReplicaSet]{
		resource: "replicasets",
		replicas: func(r *appsv1.ReplicaSet) *int32 { setIfNil(&r.Spec.Replicas, 1); return r.Spec.Replicas },
		current:  func(r *appsv1.ReplicaSet) int32 { return r.Status.Replicas },
		selector: func(r *appsv1.ReplicaSet) *metav1.LabelSelector { return r.Spec.Selector },
	})
	return nil
}
