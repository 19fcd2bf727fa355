package core

import (
	"context"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation/field"
	genericregistry "k8s.io/apiserver/pkg/registry/generic/registry"
	"k8s.io/apiserver/pkg/registry/rest"
)

// podPart is a subresource through which one part of a pod's spec can change that cannot
// otherwise: its ephemeral containers, its resources.
type podPart struct {
	store *genericregistry.Store
}

var _ rest.Patcher = (*podPart)(nil)

// newPodPart returns a part of the pods in store. It takes from an update what prepare leaves of
// it, and refuses what validate finds fault with.
func newPodPart(store *genericregistry.Store, prepare func(updated, old *corev1.Pod), validate func(updated, old *corev1.Pod) field.ErrorList) *podPart {
	own := *store
	own.UpdateStrategy = podPartStrategy{RESTUpdateStrategy: store.UpdateStrategy, prepare: prepare, validate: validate}
	own.ResetFieldsStrategy = nil
	return &podPart{&own}
}

// New implements rest.Storage.
func (p *podPart) New() runtime.Object { return &corev1.Pod{} }

// Destroy implements rest.Storage: the store is that of the pods.
func (p *podPart) Destroy() {}

// Get implements rest.Getter, which patches need.
func (p *podPart) Get(ctx context.Context, name string, options *metav1.GetOptions) (runtime.Object, error) {
	return p.store.Get(ctx, name, options)
}

// Update implements rest.Updater. It never creates.
func (p *podPart) Update(ctx context.Context, name string, object rest.UpdatedObjectInfo, validateCreate rest.ValidateObjectFunc, validateUpdate rest.ValidateObjectUpdateFunc, _ bool, options *metav1.UpdateOptions) (runtime.Object, bool, error) {
	return p.store.Update(ctx, name, object, validateCreate, validateUpdate, false, options)
}

// podPartStrategy is the pods' strategy with other rules for updates.
type podPartStrategy struct {
	rest.RESTUpdateStrategy
	prepare  func(updated, old *corev1.Pod)
	validate func(updated, old *corev1.Pod) field.ErrorList
}

// PrepareForUpdate implements rest.RESTUpdateStrategy.
func (s podPartStrategy) PrepareForUpdate(_ context.Context, object, old runtime.Object) {
	s.prepare(object.(*corev1.Pod), old.(*corev1.Pod))
}

// ValidateUpdate implements rest.RESTUpdateStrategy.
func (s podPartStrategy) ValidateUpdate(_ context.Context, object, old runtime.Object) field.ErrorList {
	return s.validate(object.(*corev1.Pod), old.(*corev1.Pod))
}

// WarningsOnUpdate implements rest.RESTUpdateStrategy.
func (s podPartStrategy) WarningsOnUpdate(context.Context, runtime.Object, runtime.Object) []string {
	return nil
}
