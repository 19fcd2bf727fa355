package apiserver

import (
	"fmt"
	"sync/atomic"

	"k8s.io/client-go/tools/cache"
)

// snapshot keeps the list of all objects of an informer until one of them
// changes: what every request asks for is not copied for each.
type snapshot[T any] struct {
	changes atomic.Int64
	taken   atomic.Pointer[taken[T]]
}

type taken[T any] struct {
	changes int64
	all     []T
}

// follow makes the snapshot notice changes of the informer's objects.
func (s *snapshot[T]) follow(informer cache.SharedIndexInformer) error {
	changed := func() { s.changes.Add(1) }
	if _, err := informer.AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc: func(any) { changed() }, UpdateFunc: func(any, any) { changed() }, DeleteFunc: func(any) { changed() },
	}); err != nil {
		return fmt.Errorf("follow changes for a snapshot: %w", err)
	}
	return nil
}

// get returns the list, which nobody may change. A list that is read while a
// change arrives counts as older than the change, so it is read again next time.
func (s *snapshot[T]) get(list func() ([]T, error)) ([]T, error) {
	changes := s.changes.Load()
	if known := s.taken.Load(); known != nil && known.changes == changes {
		return known.all, nil
	}
	all, err := list()
	if err == nil {
		s.taken.Store(&taken[T]{changes, all})
	}
	return all, err
}
