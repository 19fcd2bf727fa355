// Package storage holds the resources of the group storage.k8s.io: which kinds
// of volumes there are, which drivers provide them, and where they are attached.
package storage

import (
	"fmt"

	storagev1 "k8s.io/api/storage/v1"

	"github.com/skiff-run/skiff/control/registry"
)

// Group builds the group.
func Group(deps *registry.Dependencies) (registry.Group, error) {
	storages := registry.Storages{}
	for _, add := range []func(*registry.Dependencies, registry.Storages) error{
		with(storageClassKind), with(csiDriverKind), with(csiNodeKind), with(csiStorageCapacityKind), with(volumeAttachmentKind), with(volumeAttributesClassKind),
	} {
		if err := add(deps, storages); err != nil {
			return registry.Group{}, fmt.Errorf("storage group: %w", err)
		}
	}
	markDefaultClass(storages)
	return registry.Group{Name: storagev1.GroupName, Versions: map[string]registry.Storages{"v1": storages}}, nil
}

// with adds what a kind is served by.
func with[T registry.Object](kind func() registry.Kind[T]) func(*registry.Dependencies, registry.Storages) error {
	return func(deps *registry.Dependencies, storages registry.Storages) error {
		_, own, err := registry.Build(deps, kind())
		if err != nil {
			return err
		}
		storages.Add(own)
		return nil
	}
}
