package scheduling

import (
	"context"
	"errors"
	"fmt"

	schedulingv1 "k8s.io/api/scheduling/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/internalversion"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apiserver/pkg/registry/rest"

	"github.com/skiff-run/skiff/control/registry"
)

// priorityClasses is the storage of priority classes, of which the system's own
// stay.
type priorityClasses struct {
	*registry.Store[*schedulingv1.PriorityClass]
}

// Delete implements rest.GracefulDeleter.
func (s *priorityClasses) Delete(ctx context.Context, name string, validate rest.ValidateObjectFunc, options *metav1.DeleteOptions) (runtime.Object, bool, error) {
	if _, own := systemValues[name]; own {
		return nil, false, apierrors.NewForbidden(schedulingv1.Resource("priorityclasses"), name, errors.New("this is a system priority class and cannot be deleted"))
	}
	return s.Store.Delete(ctx, name, validate, options)
}

// checkDefault refuses a second class that is the cluster's default. Two written
// at the same instant can both pass: the lower one counts then.
func (s *priorityClasses) checkDefault(ctx context.Context, class *schedulingv1.PriorityClass) error {
	if !class.GlobalDefault {
		return nil
	}
	listed, err := s.List(ctx, &internalversion.ListOptions{})
	if err != nil {
		return fmt.Errorf("failed to get default priority class: %w", err)
	}
	list, ok := listed.(*schedulingv1.PriorityClassList)
	if !ok {
		return fmt.Errorf("failed to get default priority class: got %T", listed)
	}
	for i := range list.Items {
		if other := &list.Items[i]; other.GlobalDefault && other.Name != class.Name {
			return apierrors.NewForbidden(schedulingv1.Resource("priorityclasses"), class.Name,
				fmt.Errorf("PriorityClass %v is already marked as default. Only one default can exist", other.Name))
		}
	}
	return nil
}

func addPriorityClasses(deps *registry.Dependencies, storages registry.Storages) error {
	classes := &priorityClasses{}
	kind := priorityClassKind()
	kind.BeginCreate = func(ctx context.Context, class *schedulingv1.PriorityClass, _ *metav1.CreateOptions) (func(context.Context, bool), error) {
		return nil, classes.checkDefault(ctx, class)
	}
	kind.BeginUpdate = func(ctx context.Context, class, _ *schedulingv1.PriorityClass, _ *metav1.UpdateOptions) (func(context.Context, bool), error) {
		return nil, classes.checkDefault(ctx, class)
	}
	store, own, err := registry.Build(deps, kind)
	if err != nil {
		return err
	}
	classes.Store = store
	storages.Add(own)
	storages[kind.Plural] = classes
	return nil
}
