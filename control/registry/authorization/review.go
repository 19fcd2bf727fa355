package authorization

import (
	"context"
	"fmt"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apiserver/pkg/registry/rest"
)

// reviews serves a kind of review: a POST is the question, its response the
// question with the answer in its status. T is the pointer type of the kind.
type reviews[T runtime.Object] struct {
	kind, singular string
	namespaced     bool
	make           func() T
	// check refuses questions that cannot be answered.
	check func(ctx context.Context, review T) error
	// answer may complete the review that it gets or return another one.
	answer func(ctx context.Context, review T) (T, error)
}

// New implements rest.Storage.
func (r *reviews[T]) New() runtime.Object { return r.make() }

// Destroy implements rest.Storage: nothing is stored.
func (*reviews[T]) Destroy() {}

// NamespaceScoped implements rest.Scoper.
func (r *reviews[T]) NamespaceScoped() bool { return r.namespaced }

// GetSingularName implements rest.SingularNameProvider.
func (r *reviews[T]) GetSingularName() string { return r.singular }

// Create implements rest.Creater.
func (r *reviews[T]) Create(ctx context.Context, object runtime.Object, validate rest.ValidateObjectFunc, _ *metav1.CreateOptions) (runtime.Object, error) {
	review, ok := object.(T)
	if !ok {
		return nil, apierrors.NewBadRequest(fmt.Sprintf("not a %s: %#v", r.kind, object))
	}
	if err := r.check(ctx, review); err != nil {
		return nil, err
	}
	if validate != nil {
		if err := validate(ctx, object.DeepCopyObject()); err != nil {
			return nil, err
		}
	}
	answered, err := r.answer(ctx, review)
	if err != nil {
		return nil, err
	}
	return answered, nil
}
