package apiserver

import (
	"context"
	"fmt"
	"reflect"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	genericapirequest "k8s.io/apiserver/pkg/endpoints/request"
	"k8s.io/apiserver/pkg/registry/rest"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
)

// source is a resource whose objects informers of this process share.
type source interface {
	rest.Storage
	// Source is nil if nothing is shared.
	Source() cache.ListerWatcher
}

// InformerFactory returns a new factory whose informers keep the very objects
// that the server's storage keeps decoded: no request, no encoding, no copies,
// so handlers must not change what they get. Kinds the server does not keep are
// asked for with the client.
func (s *Server) InformerFactory(client kubernetes.Interface) informers.SharedInformerFactory {
	factory := informers.NewSharedInformerFactory(client, 0)
	for _, storage := range s.sources {
		object := storage.New()
		factory.InformerFor(object, func(kubernetes.Interface, time.Duration) cache.SharedIndexInformer {
			return cache.NewSharedIndexInformer(storage.Source(), object, 0, cache.Indexers{cache.NamespaceIndex: cache.MetaNamespaceIndexFunc})
		})
	}
	return factory
}

// collect remembers the storages of main resources, one for each Go type.
func (s *Server) collect(storages map[string]rest.Storage) {
	for path, storage := range storages {
		shared, ok := storage.(source)
		if !ok || strings.Contains(path, "/") || shared.Source() == nil {
			continue
		}
		kind := reflect.TypeOf(storage.New())
		if !s.types[kind] {
			s.types[kind] = true
			s.sources = append(s.sources, shared)
		}
	}
}

// reader reads single objects of a main resource.
type reader struct{ storage rest.Getter }

// read returns an object, which is shared.
func read[T any](r reader, namespace, name string) (*T, error) {
	ctx := genericapirequest.WithNamespace(context.Background(), namespace)
	// Not older than anything: whatever is here now.
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
