package registry

import (
	"context"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/apiserver/pkg/registry/rest"
)

// Object is an API object of Go type *X.
type Object interface {
	runtime.Object
	metav1.Object
}

// Kind describes a kind served as a resource. T is the pointer type of its
// objects. Zero values of optional functions mean: nothing particular.
// Functions get objects they may change unless they are called old.
type Kind[T Object] struct {
	// Version, Plural and Singular name the resource: apps/v1, deployments, deployment.
	Version          schema.GroupVersion
	Plural, Singular string
	ShortNames       []string
	// Categories such as "all", by which kubectl get finds the resource.
	Categories []string
	// ClusterScoped resources live in no namespace.
	ClusterScoped bool

	New     func() T
	NewList func() runtime.Object

	// Default completes an object as it comes from a client or from the store.
	Default func(T)

	// Spec and Status point to those parts of an object. A kind with a Status
	// has a status subresource: the main resource ignores changes of the status,
	// the subresource everything but.
	Spec, Status func(T) any
	// KeepStatusOnCreate lets clients create objects with a status: agents do with nodes.
	KeepStatusOnCreate bool
	// Generation counts changes of the spec in metadata.generation.
	Generation bool

	// ValidateName checks metadata.name beyond what every name must be.
	ValidateName func(name string, prefix bool) []string

	PrepareForCreate func(ctx context.Context, object T)
	PrepareForUpdate func(ctx context.Context, object, old T)
	Validate         func(ctx context.Context, object T) field.ErrorList
	// ValidateUpdate is called after Validate has accepted the new object alone.
	ValidateUpdate func(ctx context.Context, object, old T) field.ErrorList
	// ValidateUpdateOnly replaces that: Validate is then not called on updates,
	// for kinds whose stored objects may not satisfy today's rules.
	ValidateUpdateOnly bool
	// Warnings go to the client; old is the zero value of T on create.
	Warnings func(ctx context.Context, object, old T) []string
	// Canonicalize tidies an object after it has been validated.
	Canonicalize func(T)

	PrepareStatus  func(ctx context.Context, object, old T)
	ValidateStatus func(ctx context.Context, object, old T) field.ErrorList
	StatusWarnings func(ctx context.Context, object, old T) []string

	// CreateOnUpdate lets PUT create an object that is not there.
	CreateOnUpdate bool
	// ConditionalUpdateOnly refuses updates without a resourceVersion.
	ConditionalUpdateOnly bool

	// GracefulDelete says whether deletion first only marks the object, and sets
	// the options' grace period then. Nil: objects go at once.
	GracefulDelete func(ctx context.Context, object T, options *metav1.DeleteOptions) bool
	// Held keeps an object that is being deleted though metadata.finalizers is
	// empty: namespaces have finalizers of their own.
	Held func(object T) bool
	// OrphanByDefault keeps dependents when a client does not say otherwise.
	OrphanByDefault bool
	// NoDependents says that objects of this kind own nothing, whatever a client
	// says about dependents when it deletes one.
	NoDependents bool

	// Fields are what field selectors may ask for beyond metadata.name and
	// metadata.namespace. Index names those of them that have an index.
	Fields func(T) fields.Set
	Index  []string
	// TTL in seconds after which an object vanishes by itself; 0: never.
	TTL uint64

	// Columns and Row are the table that kubectl get prints; without them it has
	// name and age. Row returns one cell a column.
	Columns []metav1.TableColumnDefinition
	Row     func(T) []any

	// Hooks run around the writing of an object, see genericregistry.Store. The
	// functions that Begin hooks return are told whether it succeeded.
	BeginCreate func(ctx context.Context, object T, options *metav1.CreateOptions) (func(ctx context.Context, success bool), error)
	BeginUpdate func(ctx context.Context, object, old T, options *metav1.UpdateOptions) (func(ctx context.Context, success bool), error)
	AfterDelete func(object T, options *metav1.DeleteOptions)
	// Decorate changes what clients read, without storing it.
	Decorate func(T)
}

// Resource is the group and plural of the kind.
func (k *Kind[T]) Resource() schema.GroupResource {
	return schema.GroupResource{Group: k.Version.Group, Resource: k.Plural}
}

// Storages are what a group serves, by path: "pods", "pods/status".
type Storages map[string]rest.Storage

// Add adds other storages; a path of both is taken from other.
func (s Storages) Add(other Storages) Storages {
	for path, storage := range other {
		s[path] = storage
	}
	return s
}
