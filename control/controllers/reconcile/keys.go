package reconcile

import (
	"k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/cache"
)

// Key names an object; the namespace is empty for cluster-scoped ones.
type Key = types.NamespacedName

// KeyOf returns object's key.
func KeyOf(object v1.Object) Key {
	return Key{Namespace: object.GetNamespace(), Name: object.GetName()}
}

// Deleted returns the object of a deletion event, also when the informer only
// found out later that the object is gone.
func Deleted[T any](object any) (T, bool) {
	if tombstone, ok := object.(cache.DeletedFinalStateUnknown); ok {
		object = tombstone.Obj
	}
	typed, ok := object.(T)
	return typed, ok
}

// Handler returns an event handler for objects of type T. Nil functions are
// skipped; an update without a change, as a resync sends it, is not delivered.
func Handler[T v1.Object](added func(T), updated func(old, new T), deleted func(T)) cache.ResourceEventHandler {
	return cache.ResourceEventHandlerFuncs{
		AddFunc: func(object any) {
			if typed, ok := object.(T); ok && added != nil {
				added(typed)
			}
		},
		UpdateFunc: func(before, after any) {
			old, ok := before.(T)
			current, ok2 := after.(T)
			if !ok || !ok2 || updated == nil || old.GetResourceVersion() == current.GetResourceVersion() {
				return
			}
			updated(old, current)
		},
		DeleteFunc: func(object any) {
			if typed, ok := Deleted[T](object); ok && deleted != nil {
				deleted(typed)
			}
		},
	}
}

// OnAny returns an event handler that calls f for every event, with the newest
// state known of the object.
func OnAny[T v1.Object](f func(T)) cache.ResourceEventHandler {
	return Handler(f, func(_, current T) { f(current) }, f)
}
