package apps

import (
	"context"
	"fmt"

	appsv1 "k8s.io/api/apps/v1"
	autoscalingv1 "k8s.io/api/autoscaling/v1"
	"k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	metavalidation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/managedfields"
	"k8s.io/apimachinery/pkg/util/validation/field"
	genericregistry "k8s.io/apiserver/pkg/registry/generic/registry"
	"k8s.io/apiserver/pkg/registry/rest"
	"sigs.k8s.io/structured-merge-diff/v6/fieldpath"

	"github.com/skiff-run/skiff/control/registry"
)

// scaled says where a workload keeps what its scale shows. replicas must not return nil.
type scaled[T registry.Object] struct {
	resource string
	replicas func(T) *int32
	current  func(T) int32
	selector func(T) *metav1.LabelSelector
}

// scale serves the scale subresource of a workload: the number of its pods, in a form that is the
// same for all workloads.
type scale[T registry.Object] struct {
	store *genericregistry.Store
	of    scaled[T]
}

var (
	_ rest.Patcher                  = (*scale[*appsv1.Deployment])(nil)
	_ rest.GroupVersionKindProvider = (*scale[*appsv1.Deployment])(nil)
	_ rest.TableConvertor           = (*scale[*appsv1.Deployment])(nil)
)

func newScale[T registry.Object](store *genericregistry.Store, of scaled[T]) *scale[T] {
	return &scale[T]{store: store, of: of}
}

// GroupVersionKind implements rest.GroupVersionKindProvider: scales are of another group.
func (s *scale[T]) GroupVersionKind(schema.GroupVersion) schema.GroupVersionKind {
	return autoscalingv1.SchemeGroupVersion.WithKind("Scale")
}

// New implements rest.Storage.
func (s *scale[T]) New() runtime.Object { return &autoscalingv1.Scale{} }

// Destroy implements rest.Storage: the store is the workload's.
func (s *scale[T]) Destroy() {}

// ConvertToTable implements rest.TableConvertor.
func (s *scale[T]) ConvertToTable(ctx context.Context, object, options runtime.Object) (*metav1.Table, error) {
	return rest.NewDefaultTableConvertor(autoscalingv1.Resource("scales")).ConvertToTable(ctx, object, options)
}

// Get implements rest.Getter.
func (s *scale[T]) Get(ctx context.Context, name string, options *metav1.GetOptions) (runtime.Object, error) {
	object, err := s.store.Get(ctx, name, options)
	if err != nil {
		return nil, err
	}
	return s.from(object)
}

// Update implements rest.Updater. The workload's own strategy judges the change.
func (s *scale[T]) Update(ctx context.Context, name string, object rest.UpdatedObjectInfo, validateCreate rest.ValidateObjectFunc, validateUpdate rest.ValidateObjectUpdateFunc, _ bool, options *metav1.UpdateOptions) (runtime.Object, bool, error) {
	create := func(ctx context.Context, object runtime.Object) error {
		return s.validated(ctx, validateCreate, object)
	}
	update := func(ctx context.Context, object, old runtime.Object) error {
		return s.validatedUpdate(ctx, validateUpdate, object, old)
	}
	stored, _, err := s.store.Update(ctx, name, &scaleUpdate[T]{scale: s, name: name, request: object}, create, update, false, options)
	if err != nil {
		return nil, false, err
	}
	result, err := s.from(stored)
	return result, false, err
}

func (s *scale[T]) validated(ctx context.Context, validate rest.ValidateObjectFunc, object runtime.Object) error {
	own, err := s.from(object)
	if err != nil || validate == nil {
		return err
	}
	return validate(ctx, own)
}

func (s *scale[T]) validatedUpdate(ctx context.Context, validate rest.ValidateObjectUpdateFunc, object, old runtime.Object) error {
	own, err := s.from(object)
	if err != nil {
		return err
	}
	before, err := s.from(old)
	if err != nil || validate == nil {
		return err
	}
	return validate(ctx, own, before)
}

// from makes the scale of a workload.
func (s *scale[T]) from(object runtime.Object) (*autoscalingv1.Scale, error) {
	workload, ok := object.(T)
	if !ok {
		return nil, errors.NewBadRequest(fmt.Sprintf("%T is none of %s", object, s.of.resource))
	}
	// The workload may be shared with other readers: its replicas are read from a copy if they
	// have to be made up.
	workload = workload.DeepCopyObject().(T)
	selector, err := metav1.LabelSelectorAsSelector(s.of.selector(workload))
	if err != nil {
		return nil, errors.NewBadRequest(err.Error())
	}
	return &autoscalingv1.Scale{
		ObjectMeta: metav1.ObjectMeta{
			Name: workload.GetName(), Namespace: workload.GetNamespace(), UID: workload.GetUID(),
			ResourceVersion: workload.GetResourceVersion(), CreationTimestamp: workload.GetCreationTimestamp(),
		},
		Spec:   autoscalingv1.ScaleSpec{Replicas: *s.of.replicas(workload)},
		Status: autoscalingv1.ScaleStatus{Replicas: s.of.current(workload), Selector: selector.String()},
	}, nil
}

// scaleUpdate turns the workload into its scale, lets the request change that, and carries the
// change back into the workload.
type scaleUpdate[T registry.Object] struct {
	scale   *scale[T]
	name    string
	request rest.UpdatedObjectInfo
}

// Preconditions implements rest.UpdatedObjectInfo.
func (u *scaleUpdate[T]) Preconditions() *metav1.Preconditions { return u.request.Preconditions() }

// UpdatedObject implements rest.UpdatedObjectInfo.
func (u *scaleUpdate[T]) UpdatedObject(ctx context.Context, old runtime.Object) (runtime.Object, error) {
	workload, ok := old.DeepCopyObject().(T)
	if !ok {
		return nil, errors.NewBadRequest(fmt.Sprintf("%T is none of %s", old, u.scale.of.resource))
	}
	resource := appsv1.Resource(u.scale.of.resource + "/scale")
	if workload.GetResourceVersion() == "" {
		return nil, errors.NewNotFound(resource, u.name)
	}
	before, err := u.scale.from(workload)
	if err != nil {
		return nil, err
	}
	// Who owns spec.replicas of the scale owns it of the workload.
	path := managedfields.ResourcePathMappings{appsv1.SchemeGroupVersion.String(): fieldpath.MakePathOrDie("spec", "replicas")}
	owners := managedfields.NewScaleHandler(workload.GetManagedFields(), appsv1.SchemeGroupVersion, path)
	if before.ManagedFields, err = owners.ToSubresource(); err != nil {
		return nil, err
	}
	object, err := u.request.UpdatedObject(ctx, before)
	if err != nil {
		return nil, err
	}
	after, ok := object.(*autoscalingv1.Scale)
	if !ok {
		return nil, errors.NewBadRequest(fmt.Sprintf("expected input object type to be Scale, but %T", object))
	}
	if errs := validateScale(after); len(errs) > 0 {
		return nil, errors.NewInvalid(autoscalingv1.SchemeGroupVersion.WithKind("Scale").GroupKind(), workload.GetName(), errs)
	}
	if after.UID != "" && after.UID != workload.GetUID() {
		return nil, errors.NewConflict(resource, workload.GetName(),
			fmt.Errorf("Precondition failed: UID in precondition: %v, UID in object meta: %v", after.UID, workload.GetUID())) //nolint:staticcheck // the wording clients know
	}
	*u.scale.of.replicas(workload) = after.Spec.Replicas
	workload.SetResourceVersion(after.ResourceVersion)
	fields, err := owners.ToParent(after.ManagedFields)
	if err != nil {
		return nil, err
	}
	workload.SetManagedFields(fields)
	return workload, nil
}

func validateScale(s *autoscalingv1.Scale) field.ErrorList {
	errs := metavalidation.ValidateManagedFields(s.ManagedFields, field.NewPath("metadata", "managedFields"))
	return append(errs, nonNegative(int64(s.Spec.Replicas), field.NewPath("spec", "replicas"))...)
}
