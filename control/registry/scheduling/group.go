// Package scheduling holds the resources of the group scheduling.k8s.io.
package scheduling

import (
	"fmt"

	schedulingv1 "k8s.io/api/scheduling/v1"

	"github.com/skiff-run/skiff/control/registry"
)

// Group builds the group.
func Group(deps *registry.Dependencies) (registry.Group, error) {
	storages := registry.Storages{}
	if err := addPriorityClasses(deps, storages); err != nil {
		return registry.Group{}, fmt.Errorf("scheduling group: %w", err)
	}
	return registry.Group{Name: schedulingv1.GroupName, Versions: map[string]registry.Storages{"v1": storages}}, nil
}
