package apiserver

import (
	"context"
	"fmt"
	"reflect"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/internalversion"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
	genericapirequest "k8s.io/apiserver/pkg/endpoints/request"
	"k8s.io/apiserver/pkg/registry/rest"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
)

// listWatcher is what an informer is fed from.
type listWatcher interface {
	rest.Lister
	rest.Watcher
}

// InformerFactory returns a new factory whose informers read the server's own
// storage: no request, no encoding, and the parts of objects that the watch
// cache holds are shared, so handlers must not change what they get. Kinds the
// server does not store are asked for with the client.
func (s *Server) InformerFactory(client kubernetes.Interface) informers.SharedInformerFactory {
	factory := informers.NewSharedInformerFactory(client, 0)
	for _, storage := range s.listed {
		object := storage.(rest.Storage).New()
		factory.InformerFor(object, func(kubernetes.Interface, time.Duration) cache.SharedIndexInformer {
			return cache.NewSharedIndexInformer(direct(storage), object, 0, cache.Indexers{cache.NamespaceIndex: cache.MetaNamespaceIndexFunc})
		})
	}
	return factory
}

// collect remembers the storages of main resources, one for each Go type.
func (s *Server) collect(storages map[string]rest.Storage) {
	for path, storage := range storages {
		lw, ok := storage.(listWatcher)
		if !ok || strings.Contains(path, "/") {
			continue
		}
		kind := reflect.TypeOf(storage.New())
		if !s.types[kind] {
			s.types[kind] = true
			s.listed = append(s.listed, lw)
		}
	}
}

// direct reads a storage as an informer's reflector wants to.
func direct(storage listWatcher) cache.ListerWatcher {
	everywhere := func(ctx context.Context) context.Context {
		return genericapirequest.WithNamespace(ctx, metav1.NamespaceAll)
	}
	return &cache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, options metav1.ListOptions) (runtime.Object, error) {
			// The reflector's wish for pages is left aside: nothing is copied anyway.
			return storage.List(everywhere(ctx), &internalversion.ListOptions{ResourceVersion: options.ResourceVersion, ResourceVersionMatch: options.ResourceVersionMatch})
		},
		WatchFuncWithContext: func(ctx context.Context, options metav1.ListOptions) (watch.Interface, error) {
			events, err := storage.Watch(everywhere(ctx), &internalversion.ListOptions{
				ResourceVersion: options.ResourceVersion, ResourceVersionMatch: options.ResourceVersionMatch,
				AllowWatchBookmarks: options.AllowWatchBookmarks, SendInitialEvents: options.SendInitialEvents,
			})
			if err != nil {
				return nil, err
			}
			return watch.Filter(events, unwrap), nil
		},
	}
}

// unwrap takes the object out of what the watch cache prepares for encoding.
func unwrap(event watch.Event) (watch.Event, bool) {
	if prepared, ok := event.Object.(runtime.CacheableObject); ok {
		event.Object = prepared.GetObject()
	}
	return event, true
}

// reader reads single objects of a main resource.
type reader struct{ storage rest.Getter }

// read returns an object, which is shared.
func read[T any](r reader, namespace, name string) (*T, error) {
	ctx := genericapirequest.WithNamespace(context.Background(), namespace)
	// Not older than anything: from the watch cache.
	object, err := r.storage.Get(ctx, name, &metav1.GetOptions{ResourceVersion: "0"})
	if err != nil {
		return nil, err
	}
	typed, ok := any(object).(*T)
	if !ok {
		return nil, fmt.Errorf("read %s: got %T", name, object)
	}
	return typed, nil
}
