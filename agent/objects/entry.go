package objects

import (
	"context"
	"slices"
	"sync"
	"time"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
)

// firstAnswer is how long a reader waits for the first list.
const firstAnswer = 10 * time.Second

// entry is the reflector's store for one object.
type entry struct {
	// users is guarded by the store's mutex.
	name    string
	users   map[types.UID]bool
	stop    context.CancelFunc
	changed func()

	once   sync.Once
	synced chan struct{}

	// mu guards object.
	mu     sync.Mutex
	object runtime.Object
}

func (e *entry) current() runtime.Object {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.object
}

func (e *entry) set(object any) {
	next, _ := object.(runtime.Object)
	e.mu.Lock()
	before := e.object
	e.object = trim(next)
	e.mu.Unlock()
	if before != nil || next != nil {
		e.changed()
	}
	if immutable(next) {
		// Its content cannot change; a re-created object has other users.
		e.stop()
	}
}

// Add, Update, Delete, Replace and Resync make entry a cache.ReflectorStore.
func (e *entry) Add(object any) error { return e.Update(object) }
func (e *entry) Resync() error        { return nil }

// Update takes over the object.
func (e *entry) Update(object any) error {
	if e.mine(object) {
		e.set(object)
	}
	return nil
}

// Delete notes that the object is gone.
func (e *entry) Delete(object any) error {
	if e.mine(object) {
		e.set(nil)
	}
	return nil
}

func (e *entry) mine(object any) bool {
	named, ok := object.(metav1.Object)
	return ok && named.GetName() == e.name
}

// Replace takes over a list of at most this one object.

func (e *entry) Replace(list []any, _ string) error {
	// A server that ignores the field selector must not confuse objects.
	i := slices.IndexFunc(list, e.mine)
	if i >= 0 {
		e.set(list[i])
	} else {
		e.set(nil)
	}
	e.once.Do(func() { close(e.synced) })
	return nil
}

// trim drops what no pod can see.
func trim(object runtime.Object) runtime.Object {
	switch o := object.(type) {
	case *v1.ConfigMap:
		o.ManagedFields = nil
		return o
	case *v1.Secret:
		o.ManagedFields = nil
		return o
	}
	return nil
}

func immutable(object runtime.Object) bool {
	switch o := object.(type) {
	case *v1.ConfigMap:
		return o != nil && o.Immutable != nil && *o.Immutable
	case *v1.Secret:
		return o != nil && o.Immutable != nil && *o.Immutable
	}
	return false
}
