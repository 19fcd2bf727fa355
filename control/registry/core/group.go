package core

import (
	"fmt"

	"github.com/skiff-run/skiff/control/registry"
)

// add puts the storages of a kind into the group's.
type add func(*registry.Dependencies, registry.Storages) error

// Group builds the core group.
func Group(deps *registry.Dependencies) (registry.Group, error) {
	storages := registry.Storages{}
	for _, each := range []add{
		addNodesAndPods,
		addPodTemplates,
		addConfigMaps,
		addNamespaces,
		addSecrets,
		addServiceAccounts,
		addEndpoints,
		addEvents,
		addComponentStatuses,
		addServices,
		addPersistentVolumes,
	} {
		if err := each(deps, storages); err != nil {
			return registry.Group{}, fmt.Errorf("core group: %w", err)
		}
	}
	return registry.Group{Versions: map[string]registry.Storages{"v1": storages}}, nil
}
