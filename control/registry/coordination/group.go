package coordination

import (
	"fmt"

	coordinationv1 "k8s.io/api/coordination/v1"

	"github.com/skiff-run/skiff/control/registry"
)

// Group builds the coordination.k8s.io group.
func Group(deps *registry.Dependencies) (registry.Group, error) {
	_, storages, err := registry.Build(deps, leaseKind())
	if err != nil {
		return registry.Group{}, fmt.Errorf("coordination group: %w", err)
	}
	return registry.Group{Name: coordinationv1.GroupName, Versions: map[string]registry.Storages{"v1": storages}}, nil
}
