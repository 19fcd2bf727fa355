package certificates

import (
	"fmt"

	certificatesv1 "k8s.io/api/certificates/v1"

	"github.com/skiff-run/skiff/control/registry"
)

// Group builds the certificates.k8s.io group.
func Group(deps *registry.Dependencies) (registry.Group, error) {
	store, storages, err := registry.Build(deps, requestKind())
	if err != nil {
		return registry.Group{}, fmt.Errorf("certificates group: %w", err)
	}
	storages["certificatesigningrequests/approval"] = registry.NewSubresource(store.Store, approvalStrategy{store.UpdateStrategy})
	_, bundles, err := registry.Build(deps, trustBundleKind())
	if err != nil {
		return registry.Group{}, fmt.Errorf("certificates group: %w", err)
	}
	storages.Add(bundles)
	return registry.Group{Name: certificatesv1.GroupName, Versions: map[string]registry.Storages{"v1": storages}}, nil
}
