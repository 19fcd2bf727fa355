package registry

import (
	"context"
	"reflect"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/apiserver/pkg/registry/rest"
	"k8s.io/apiserver/pkg/storage/names"
	"sigs.k8s.io/structured-merge-diff/v6/fieldpath"

	apivalidation "k8s.io/apimachinery/pkg/api/validation"
)

// strategy applies a Kind to creation, update and deletion.
type strategy[T Object] struct {
	runtime.ObjectTyper
	names.NameGenerator
	kind *Kind[T]
}

func newStrategy[T Object](typer runtime.ObjectTyper, kind *Kind[T]) *strategy[T] {
	return &strategy[T]{ObjectTyper: typer, NameGenerator: names.SimpleNameGenerator, kind: kind}
}

func (s *strategy[T]) NamespaceScoped() bool                    { return !s.kind.ClusterScoped }
func (s *strategy[T]) AllowCreateOnUpdate(context.Context) bool { return s.kind.CreateOnUpdate }
func (s *strategy[T]) AllowUnconditionalUpdate(context.Context) bool {
	return !s.kind.ConditionalUpdateOnly
}

func (s *strategy[T]) Canonicalize(object runtime.Object) {
	if s.kind.Canonicalize != nil {
		s.kind.Canonicalize(object.(T))
	}
}

// assign sets *to = *from for two pointers of one type.
func assign(to, from any) { reflect.ValueOf(to).Elem().Set(reflect.ValueOf(from).Elem()) }

func (s *strategy[T]) PrepareForCreate(ctx context.Context, object runtime.Object) {
	o := object.(T)
	if s.kind.Status != nil && !s.kind.KeepStatusOnCreate {
		reflect.ValueOf(s.kind.Status(o)).Elem().SetZero()
	}
	if s.kind.Generation {
		o.SetGeneration(1)
	}
	if s.kind.PrepareForCreate != nil {
		s.kind.PrepareForCreate(ctx, o)
	}
}

func (s *strategy[T]) PrepareForUpdate(ctx context.Context, object, old runtime.Object) {
	o, before := object.(T), old.(T)
	if s.kind.Status != nil {
		assign(s.kind.Status(o), s.kind.Status(before))
	}
	if s.kind.PrepareForUpdate != nil {
		s.kind.PrepareForUpdate(ctx, o, before)
	}
	if s.kind.Generation {
		s.countGeneration(o, before)
	}
}

// countGeneration follows the API conventions: any change of the spec, and the
// start of a deletion, is a new generation.
func (s *strategy[T]) countGeneration(object, old T) {
	object.SetGeneration(old.GetGeneration())
	if !apiequality.Semantic.DeepEqual(s.kind.Spec(object), s.kind.Spec(old)) {
		object.SetGeneration(old.GetGeneration() + 1)
	}
}

func (s *strategy[T]) validateMeta(o T) field.ErrorList {
	if s.kind.ValidateName == nil {
		return nil
	}
	path := field.NewPath("metadata")
	errs := apivalidation.ValidateObjectMetaAccessor(o, !s.kind.ClusterScoped, s.kind.ValidateName, path)
	return append(errs, validateFinalizers(o, path)...)
}

func (s *strategy[T]) validateMetaUpdate(o, old T) field.ErrorList {
	path := field.NewPath("metadata")
	errs := apivalidation.ValidateObjectMetaAccessorUpdate(o, old, path)
	if s.kind.ValidateName == nil {
		return errs
	}
	return append(errs, validateFinalizers(o, path)...)
}

func validateFinalizers(o metav1.Object, metadata *field.Path) field.ErrorList {
	var errs field.ErrorList
	for i, name := range o.GetFinalizers() {
		errs = append(errs, ValidateFinalizer(name, metadata.Child("finalizers").Index(i))...)
	}
	return errs
}

// ValidateFinalizer says that a finalizer without a domain has to be one of the
// three Kubernetes knows.
func ValidateFinalizer(name string, path *field.Path) field.ErrorList {
	switch name {
	case string(corev1.FinalizerKubernetes), metav1.FinalizerOrphanDependents, metav1.FinalizerDeleteDependents:
		return nil
	}
	if strings.Contains(name, "/") {
		return nil
	}
	return field.ErrorList{field.Invalid(path, name, "name is neither a standard finalizer name nor is it fully qualified")}
}

func (s *strategy[T]) Validate(ctx context.Context, object runtime.Object) field.ErrorList {
	o := object.(T)
	errs := s.validateMeta(o)
	if s.kind.Validate != nil {
		errs = append(errs, s.kind.Validate(ctx, o)...)
	}
	return errs
}

func (s *strategy[T]) ValidateUpdate(ctx context.Context, object, old runtime.Object) field.ErrorList {
	o, before := object.(T), old.(T)
	errs := apivalidation.ValidateObjectMetaAccessorUpdate(o, before, field.NewPath("metadata"))
	errs = append(errs, s.validateMeta(o)...)
	if s.kind.Validate != nil && !s.kind.ValidateUpdateOnly {
		errs = append(errs, s.kind.Validate(ctx, o)...)
	}
	if s.kind.ValidateUpdate != nil {
		errs = append(errs, s.kind.ValidateUpdate(ctx, o, before)...)
	}
	return errs
}

func (s *strategy[T]) WarningsOnCreate(ctx context.Context, object runtime.Object) []string {
	if s.kind.Warnings == nil {
		return nil
	}
	var none T
	return s.kind.Warnings(ctx, object.(T), none)
}

func (s *strategy[T]) WarningsOnUpdate(ctx context.Context, object, old runtime.Object) []string {
	if s.kind.Warnings == nil {
		return nil
	}
	return s.kind.Warnings(ctx, object.(T), old.(T))
}

// DefaultGarbageCollectionPolicy implements rest.GarbageCollectionDeleteStrategy.
func (s *strategy[T]) DefaultGarbageCollectionPolicy(context.Context) rest.GarbageCollectionPolicy {
	switch {
	case s.kind.NoDependents:
		return rest.Unsupported
	case s.kind.OrphanByDefault:
		return rest.OrphanDependents
	}
	return rest.DeleteDependents
}

// GetResetFields names what the main resource ignores, for server-side apply.
func (s *strategy[T]) GetResetFields() map[fieldpath.APIVersion]*fieldpath.Set {
	if s.kind.Status == nil {
		return nil
	}
	return resetFields(s.kind.Version.String(), "status")
}

func resetFields(version string, names ...string) map[fieldpath.APIVersion]*fieldpath.Set {
	set := fieldpath.NewSet()
	for _, name := range names {
		set.Insert(fieldpath.MakePathOrDie(name))
	}
	return map[fieldpath.APIVersion]*fieldpath.Set{fieldpath.APIVersion(version): set}
}

// gracefulStrategy is the deletion strategy of kinds that are first marked.
type gracefulStrategy[T Object] struct{ *strategy[T] }

// CheckGracefulDelete implements rest.RESTGracefulDeleteStrategy.
func (s gracefulStrategy[T]) CheckGracefulDelete(ctx context.Context, object runtime.Object, options *metav1.DeleteOptions) bool {
	return s.kind.GracefulDelete(ctx, object.(T), options)
}

// statusStrategy is the update strategy of the status subresource.
type statusStrategy[T Object] struct{ *strategy[T] }

func (s statusStrategy[T]) PrepareForUpdate(ctx context.Context, object, old runtime.Object) {
	o, before := object.(T), old.(T)
	if s.kind.Spec != nil {
		assign(s.kind.Spec(o), s.kind.Spec(before))
	}
	// Whoever reports a status neither owns the object nor ends it.
	o.SetDeletionTimestamp(before.GetDeletionTimestamp())
	o.SetOwnerReferences(before.GetOwnerReferences())
	o.SetGeneration(before.GetGeneration())
	if s.kind.PrepareStatus != nil {
		s.kind.PrepareStatus(ctx, o, before)
	}
}

func (s statusStrategy[T]) ValidateUpdate(ctx context.Context, object, old runtime.Object) field.ErrorList {
	o, before := object.(T), old.(T)
	errs := s.validateMetaUpdate(o, before)
	if s.kind.ValidateStatus != nil {
		errs = append(errs, s.kind.ValidateStatus(ctx, o, before)...)
	}
	return errs
}

func (s statusStrategy[T]) WarningsOnUpdate(ctx context.Context, object, old runtime.Object) []string {
	if s.kind.StatusWarnings == nil {
		return nil
	}
	return s.kind.StatusWarnings(ctx, object.(T), old.(T))
}

func (s statusStrategy[T]) GetResetFields() map[fieldpath.APIVersion]*fieldpath.Set {
	if s.kind.Spec == nil {
		return nil
	}
	return resetFields(s.kind.Version.String(), "spec")
}
