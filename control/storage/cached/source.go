package cached

import (
	"context"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/apiserver/pkg/storage"
	"k8s.io/client-go/tools/cache"
)

// Source feeds an informer of this process with all objects of the resource.
// The informer keeps the very objects that reads and watches of clients share:
// whoever gets one from it must not change it.
//
// NewList makes the list that is answered when an informer falls back from a
// watch with initial events to listing.
func (s *Store) Source(newList func() runtime.Object) cache.ListerWatcher {
	return &cache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, options metav1.ListOptions) (runtime.Object, error) {
			list := newList()
			return list, s.GetList(ctx, s.ResourcePrefix, everything(options), list)
		},
		WatchFuncWithContext: func(ctx context.Context, options metav1.ListOptions) (watch.Interface, error) {
			return s.watch(ctx, s.ResourcePrefix, everything(options), true)
		},
	}
}

// everything is what a reflector's options mean to the storage. Pages and time
// limits spare a network and a server, and there is neither between us.
func everything(options metav1.ListOptions) storage.ListOptions {
	predicate := storage.Everything
	predicate.AllowWatchBookmarks = options.AllowWatchBookmarks
	return storage.ListOptions{
		ResourceVersion: options.ResourceVersion, ResourceVersionMatch: options.ResourceVersionMatch,
		SendInitialEvents: options.SendInitialEvents, Recursive: true, Predicate: predicate,
	}
}
