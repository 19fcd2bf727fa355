package networking

import (
	"fmt"

	networkingv1 "k8s.io/api/networking/v1"

	"github.com/skiff-run/skiff/control/registry"
)

// Group builds the networking.k8s.io group.
func Group(deps *registry.Dependencies) (registry.Group, error) {
	all := registry.Storages{}
	for _, build := range []func() (registry.Storages, error){
		func() (registry.Storages, error) {
			_, s, err := registry.Build(deps, networkPolicyKind())
			return s, err
		},
		func() (registry.Storages, error) { _, s, err := registry.Build(deps, ingressKind()); return s, err },
		func() (registry.Storages, error) {
			_, s, err := registry.Build(deps, ingressClassKind())
			return s, err
		},
	} {
		storages, err := build()
		if err != nil {
			return registry.Group{}, fmt.Errorf("networking group: %w", err)
		}
		all.Add(storages)
	}
	return registry.Group{Name: networkingv1.GroupName, Versions: map[string]registry.Storages{"v1": all}}, nil
}
