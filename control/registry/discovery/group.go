package discovery

import (
	"fmt"

	discoveryv1 "k8s.io/api/discovery/v1"

	"github.com/skiff-run/skiff/control/registry"
)

// Group builds the discovery.k8s.io group.
func Group(deps *registry.Dependencies) (registry.Group, error) {
	_, storages, err := registry.Build(deps, endpointSliceKind())
	if err != nil {
		return registry.Group{}, fmt.Errorf("discovery group: %w", err)
	}
	return registry.Group{Name: discoveryv1.GroupName, Versions: map[string]registry.Storages{"v1": storages}}, nil
}
