// Package node holds the resources of the group node.k8s.io.
package node

import (
	"fmt"

	nodev1 "k8s.io/api/node/v1"

	"github.com/skiff-run/skiff/control/registry"
)

// Group builds the group.
func Group(deps *registry.Dependencies) (registry.Group, error) {
	_, storages, err := registry.Build(deps, runtimeClassKind())
	if err != nil {
		return registry.Group{}, fmt.Errorf("node group: %w", err)
	}
	return registry.Group{Name: nodev1.GroupName, Versions: map[string]registry.Storages{"v1": storages}}, nil
}
