package registry

import (
	"context"
	"fmt"
	"maps"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apiserver/pkg/registry/generic"
	genericregistry "k8s.io/apiserver/pkg/registry/generic/registry"
	"k8s.io/apiserver/pkg/registry/rest"
	"k8s.io/apiserver/pkg/storage"
	"k8s.io/client-go/tools/cache"
	"sigs.k8s.io/structured-merge-diff/v6/fieldpath"

	"github.com/skiff-run/skiff/control/storage/cached"
)

// Store serves the main resource of a kind.
type Store[T Object] struct {
	*genericregistry.Store
	kind *Kind[T]
}

// ShortNames implements rest.ShortNamesProvider.
func (s *Store[T]) ShortNames() []string { return s.kind.ShortNames }

// Categories implements rest.CategoriesProvider.
func (s *Store[T]) Categories() []string { return s.kind.Categories }

// Source feeds informers of this process, which share its objects with the
// server. Nil: objects of this resource are not kept decoded.
func (s *Store[T]) Source() cache.ListerWatcher {
	objects, shared := s.Store.Storage.Storage.(*cached.Store)
	if !shared {
		return nil
	}
	return objects.Source(s.NewListFunc)
}

// Read returns an object by name; the context carries the namespace. It is
// shared: read-only.
func (s *Store[T]) Read(ctx context.Context, name string) (T, error) {
	var none T
	object, err := s.Store.Get(ctx, name, &metav1.GetOptions{})
	if err != nil {
		return none, err
	}
	typed, ok := object.(T)
	if !ok {
		return none, fmt.Errorf("read %s %q: got %T", s.kind.Singular, name, object)
	}
	return typed, nil
}

// Build makes the storage of a kind: the main resource and, with a Status, the
// status subresource.
func Build[T Object](deps *Dependencies, kind Kind[T]) (*Store[T], Storages, error) {
	if kind.Default != nil {
		deps.Scheme.AddTypeDefaultingFunc(kind.New(), func(object any) { kind.Default(object.(T)) })
		addListDefaults(deps, &kind)
	}
	strategy := newStrategy[T](deps.Scheme, &kind)
	store := &genericregistry.Store{
		NewFunc:                   func() runtime.Object { return kind.New() },
		NewListFunc:               kind.NewList,
		DefaultQualifiedResource:  kind.Resource(),
		SingularQualifiedResource: kind.Version.WithResource(kind.Singular).GroupResource(),
		CreateStrategy:            strategy,
		UpdateStrategy:            strategy,
		DeleteStrategy:            strategy,
		ResetFieldsStrategy:       strategy,
		TableConvertor:            table[T]{&kind},
	}
	if kind.GracefulDelete != nil {
		store.DeleteStrategy = gracefulStrategy[T]{strategy}
	}
	if kind.TTL > 0 {
		store.TTLFunc = func(runtime.Object, uint64, bool) (uint64, error) { return kind.TTL, nil }
	}
	if kind.Held != nil {
		// For the subresources, too: they are copies of this store.
		store.ShouldDeleteDuringUpdate = func(_ context.Context, _ string, object, _ runtime.Object) bool { return !kind.Held(object.(T)) }
	}
	addHooks(store, &kind)
	options := &generic.StoreOptions{RESTOptions: deps.RESTOptions, AttrFunc: kind.attributes}
	if len(kind.Index) > 0 {
		options.TriggerFunc, options.Indexers = storage.IndexerFuncs{}, &cache.Indexers{}
		for _, name := range kind.Index {
			value := func(object runtime.Object) string { return kind.Fields(object.(T))[name] }
			options.TriggerFunc[name] = value
			(*options.Indexers)[storage.FieldIndex(name)] = func(object any) ([]string, error) {
				return []string{value(object.(runtime.Object))}, nil
			}
		}
	}
	if err := store.CompleteWithOptions(options); err != nil {
		return nil, nil, fmt.Errorf("build storage of %s: %w", kind.Resource(), err)
	}
	main := &Store[T]{store, &kind}
	storages := Storages{kind.Plural: main}
	if kind.Status != nil {
		storages[kind.Plural+"/status"] = NewSubresource(store, statusStrategy[T]{strategy})
	}
	return main, storages, nil
}

// addListDefaults makes the objects of a list get their defaults too.
func addListDefaults[T Object](deps *Dependencies, kind *Kind[T]) {
	list := kind.NewList()
	deps.Scheme.AddTypeDefaultingFunc(list, func(object any) {
		// The only error is a type that is no list.
		_ = eachItem(object.(runtime.Object), func(item runtime.Object) { kind.Default(item.(T)) })
	})
}

func addHooks[T Object](store *genericregistry.Store, kind *Kind[T]) {
	if kind.BeginCreate != nil {
		store.BeginCreate = func(ctx context.Context, object runtime.Object, options *metav1.CreateOptions) (genericregistry.FinishFunc, error) {
			finish, err := kind.BeginCreate(ctx, object.(T), options)
			return finisher(finish), err
		}
	}
	if kind.BeginUpdate != nil {
		store.BeginUpdate = func(ctx context.Context, object, old runtime.Object, options *metav1.UpdateOptions) (genericregistry.FinishFunc, error) {
			finish, err := kind.BeginUpdate(ctx, object.(T), old.(T), options)
			return finisher(finish), err
		}
	}
	if kind.AfterDelete != nil {
		store.AfterDelete = func(object runtime.Object, options *metav1.DeleteOptions) { kind.AfterDelete(object.(T), options) }
	}
	if kind.Decorate != nil {
		store.Decorator = func(object runtime.Object) {
			if one, ok := object.(T); ok {
				kind.Decorate(one)
				return
			}
			// A list, whose items the store has copied for this answer.
			_ = eachItem(object, func(item runtime.Object) { kind.Decorate(item.(T)) })
		}
	}
}

// finisher lets a Begin hook that has nothing to finish return nil.
func finisher(finish func(context.Context, bool)) genericregistry.FinishFunc {
	if finish == nil {
		return func(context.Context, bool) {}
	}
	return finish
}

// attributes are what selectors see of an object.
func (k *Kind[T]) attributes(object runtime.Object) (labels.Set, fields.Set, error) {
	o, ok := object.(T)
	if !ok {
		return nil, nil, fmt.Errorf("%T is no %s", object, k.Singular)
	}
	set := fields.Set{"metadata.name": o.GetName()}
	if !k.ClusterScoped {
		set["metadata.namespace"] = o.GetNamespace()
	}
	if k.Fields != nil {
		maps.Copy(set, k.Fields(o))
	}
	return o.GetLabels(), set, nil
}

// Subresource serves GET and writes of one object under a strategy of its own,
// such as a status.
type Subresource struct {
	store *genericregistry.Store
	reset rest.ResetFieldsStrategy
}

// SubresourceStrategy is how a subresource updates its object.
type SubresourceStrategy interface {
	rest.RESTUpdateStrategy
	rest.ResetFieldsStrategy
}

// NewSubresource returns a subresource of what the store serves.
func NewSubresource(store *genericregistry.Store, strategy SubresourceStrategy) *Subresource {
	own := *store
	own.UpdateStrategy, own.ResetFieldsStrategy = strategy, strategy
	own.BeginUpdate, own.AfterUpdate = nil, nil
	return &Subresource{store: &own, reset: strategy}
}

// New implements rest.Storage.
func (s *Subresource) New() runtime.Object { return s.store.New() }

// Destroy implements rest.Storage: the store is the main resource's.
func (s *Subresource) Destroy() {}

// Get implements rest.Getter.
func (s *Subresource) Get(ctx context.Context, name string, options *metav1.GetOptions) (runtime.Object, error) {
	return s.store.Get(ctx, name, options)
}

// Update implements rest.Updater. It never creates.
func (s *Subresource) Update(ctx context.Context, name string, object rest.UpdatedObjectInfo, validateCreate rest.ValidateObjectFunc, validateUpdate rest.ValidateObjectUpdateFunc, _ bool, options *metav1.UpdateOptions) (runtime.Object, bool, error) {
	return s.store.Update(ctx, name, object, validateCreate, validateUpdate, false, options)
}

// GetResetFields implements rest.ResetFieldsStrategy.
func (s *Subresource) GetResetFields() map[fieldpath.APIVersion]*fieldpath.Set {
	return s.reset.GetResetFields()
}

// ConvertToTable implements rest.TableConvertor.
func (s *Subresource) ConvertToTable(ctx context.Context, object, options runtime.Object) (*metav1.Table, error) {
	return s.store.ConvertToTable(ctx, object, options)
}
