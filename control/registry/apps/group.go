package apps

import (
	"fmt"

	appsv1 "k8s.io/api/apps/v1"

	"github.com/skiff-run/skiff/control/registry"
)

// add puts the storages of a kind into the group's.
type add func(*registry.Dependencies, registry.Storages) error

// Group builds the apps group.
func Group(deps *registry.Dependencies) (registry.Group, error) {
	storages := registry.Storages{}
	for _, each := range []add{
		addDeployments,
		addReplicaSets,
	} {
		if err := each(deps, storages); err != nil {
			return registry.Group{}, fmt.Errorf("apps group: %w", err)
		}
	}
	return registry.Group{Name: appsv1.GroupName, Versions: map[string]registry.Storages{"v1": storages}}, nil
}
