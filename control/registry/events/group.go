// Package events serves the events of the core group in the group
// events.k8s.io: one storage, two ways to read it.
package events

import (
	"errors"

	eventsv1 "k8s.io/api/events/v1"
	"k8s.io/apiserver/pkg/registry/rest"

	"github.com/skiff-run/skiff/control/registry"
)

// Group builds the group on the core group's storage of events.
func Group(_ *registry.Dependencies, events rest.Storage) (registry.Group, error) {
	if events == nil {
		return registry.Group{}, errors.New("events group: the core group has no events")
	}
	return registry.Group{Name: eventsv1.GroupName, Versions: map[string]registry.Storages{"v1": {"events": events}}}, nil
}
