package rbac

import (
	"context"
	"fmt"

	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apiserver/pkg/endpoints/request"
	"k8s.io/apiserver/pkg/registry/rest"

	"github.com/skiff-run/skiff/control/registry"
)

// guarded is the storage of a kind whose objects grant rights. Its check runs
// before validation and admission, as whoever may not grant something need not
// learn whether it would be well-formed.
type guarded[T copier[T]] struct {
	*registry.Store[T]
	// exempt says whether the request needs no check.
	exempt func(ctx context.Context) bool
	// check returns an error when the user may not write the object; old is the
	// zero object on create.
	check func(ctx context.Context, object, old T) error
}

// Create implements rest.Creater.
func (s *guarded[T]) Create(ctx context.Context, object runtime.Object, validate rest.ValidateObjectFunc, options *metav1.CreateOptions) (runtime.Object, error) {
	if !s.exempt(ctx) {
		typed, ok := object.(T)
		if !ok {
			return nil, apierrors.NewBadRequest(fmt.Sprintf("unexpected object: %T", object))
		}
		if err := s.check(ctx, typed, s.New().(T)); err != nil {
			return nil, err
		}
	}
	return s.Store.Create(ctx, object, validate, options)
}

// Update implements rest.Updater.
func (s *guarded[T]) Update(ctx context.Context, name string, object rest.UpdatedObjectInfo, validateCreate rest.ValidateObjectFunc, validateUpdate rest.ValidateObjectUpdateFunc, forceCreate bool, options *metav1.UpdateOptions) (runtime.Object, bool, error) {
	if !s.exempt(ctx) {
		object = rest.WrapUpdatedObjectInfo(object, func(ctx context.Context, changed, old runtime.Object) (runtime.Object, error) {
			typed, ok := changed.(T)
			before, alsoOk := old.(T)
			if !ok || !alsoOk {
				return nil, apierrors.NewBadRequest(fmt.Sprintf("unexpected object: %T", changed))
			}
			if onlyCollected(typed, before) {
				return changed, nil
			}
			return changed, s.check(ctx, typed, before)
		})
	}
	return s.Store.Update(ctx, name, object, validateCreate, validateUpdate, forceCreate, options)
}

// addGuarded builds a kind and puts it into the group behind its guard.
func addGuarded[T copier[T]](deps *registry.Dependencies, storages registry.Storages, kind registry.Kind[T], exempt func(context.Context) bool, check func(ctx context.Context, object, old T) error) error {
	store, own, err := registry.Build(deps, kind)
	if err != nil {
		return err
	}
	storages.Add(own)
	storages[kind.Plural] = &guarded[T]{Store: store, exempt: exempt, check: check}
	return nil
}

func addRoles(deps *registry.Dependencies, storages registry.Storages) error {
	g := guard{deps}
	return addGuarded(deps, storages, roleKind(),
		func(ctx context.Context) bool { return privileged(ctx) || g.mayEscalate(ctx, "roles") },
		func(ctx context.Context, role, _ *rbacv1.Role) error {
			return g.checkRole(ctx, "roles", role.Name, role.Rules)
		})
}

func addClusterRoles(deps *registry.Dependencies, storages registry.Storages) error {
	g := guard{deps}
	return addGuarded(deps, storages, clusterRoleKind(),
		func(ctx context.Context) bool { return privileged(ctx) || g.mayEscalate(ctx, "clusterroles") },
		g.checkClusterRole)
}

// checkClusterRole also keeps others from loosening and from tightening what a
// role gathers by itself.
func (g guard) checkClusterRole(ctx context.Context, role, old *rbacv1.ClusterRole) error {
	if err := g.checkRole(ctx, "clusterroles", role.Name, role.Rules); err != nil {
		return err
	}
	if aggregates(role) || aggregates(old) {
		return g.checkAggregation(ctx, role.Name)
	}
	return nil
}

func aggregates(role *rbacv1.ClusterRole) bool {
	return role.AggregationRule != nil && len(role.AggregationRule.ClusterRoleSelectors) > 0
}

func addRoleBindings(deps *registry.Dependencies, storages registry.Storages) error {
	g := guard{deps}
	return addGuarded(deps, storages, roleBindingKind(), privileged,
		func(ctx context.Context, binding, _ *rbacv1.RoleBinding) error {
			// The object's own namespace may still be empty.
			namespace := request.NamespaceValue(ctx)
			if namespace == "" {
				return apierrors.NewBadRequest("namespace is required")
			}
			return g.checkBinding(ctx, "rolebindings", binding.Name, binding.RoleRef, namespace)
		})
}

func addClusterRoleBindings(deps *registry.Dependencies, storages registry.Storages) error {
	g := guard{deps}
	return addGuarded(deps, storages, clusterRoleBindingKind(), privileged,
		func(ctx context.Context, binding, _ *rbacv1.ClusterRoleBinding) error {
			return g.checkBinding(ctx, "clusterrolebindings", binding.Name, binding.RoleRef, metav1.NamespaceNone)
		})
}
