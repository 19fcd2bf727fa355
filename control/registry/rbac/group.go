package rbac

import (
	"fmt"

	rbacv1 "k8s.io/api/rbac/v1"

	"github.com/skiff-run/skiff/control/registry"
)

// add puts the storages of a kind into the group's.
type add func(*registry.Dependencies, registry.Storages) error

// Group builds the rbac.authorization.k8s.io group. The authorizers of deps are
// read at each request: they are themselves made from what the group stores.
func Group(deps *registry.Dependencies) (registry.Group, error) {
	storages := registry.Storages{}
	for _, each := range []add{addRoles, addRoleBindings, addClusterRoles, addClusterRoleBindings} {
		if err := each(deps, storages); err != nil {
			return registry.Group{}, fmt.Errorf("rbac group: %w", err)
		}
	}
	return registry.Group{Name: rbacv1.GroupName, Versions: map[string]registry.Storages{"v1": storages}}, nil
}
