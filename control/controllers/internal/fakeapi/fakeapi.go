// Package fakeapi is client-go's fake clientset with what controllers rely on and
// the fake does not do: generated names, UIDs, versions that conflict when stale,
// generations that count changes of the spec. It is for tests; validation,
// defaulting, finalizers and graceful deletion are left to the real API server.
package fakeapi

import (
	"context"
	"fmt"
	"reflect"
	"strconv"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"
)

// Client is a clientset on an API of its own.
type Client struct {
	*fake.Clientset
	watching chan struct{}
}

// New returns a clientset on an empty API.
func New() *Client {
	// The newer constructor keeps managed fields, for which it parses the whole
	// schema at the start of every test.
	client := fake.NewSimpleClientset() //nolint:staticcheck // see above
	client.PrependReactor("*", "*", clienttesting.ObjectReaction(&api{ObjectTracker: client.Tracker()}))
	watching := make(chan struct{}, 1000)
	client.PrependWatchReactor("*", func(action clienttesting.Action) (bool, watch.Interface, error) {
		watcher, err := client.Tracker().Watch(action.GetResource(), action.GetNamespace())
		watching <- struct{}{}
		return true, watcher, err
	})
	return &Client{Clientset: client, watching: watching}
}

// Start starts the factory's informers and returns when they are all watching. To
// wait for their first list would not do: what happens between that and the watch
// is never shown by the fake.
func (c *Client) Start(ctx context.Context, factory informers.SharedInformerFactory) {
	factory.StartWithContext(ctx)
	for range factory.WaitForCacheSync(ctx.Done()) {
		select {
		case <-c.watching:
		case <-ctx.Done():
		}
	}
}

// api is a tracker that keeps the server's part of the metadata.
type api struct {
	clienttesting.ObjectTracker

	mu      sync.Mutex // guards version, and makes check and write one step
	version int
}

// Create gives the object its name, UID, version and generation.
func (a *api) Create(gvr schema.GroupVersionResource, object runtime.Object, ns string, opts ...metav1.CreateOptions) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	m, err := meta.Accessor(object)
	if err != nil {
		return fmt.Errorf("metadata of a new object: %w", err)
	}
	a.version++
	if m.GetName() == "" {
		m.SetName(m.GetGenerateName() + fmt.Sprintf("%05d", a.version))
	}
	if m.GetUID() == "" {
		m.SetUID(types.UID("uid-" + strconv.Itoa(a.version)))
	}
	if created := m.GetCreationTimestamp(); created.IsZero() {
		m.SetCreationTimestamp(metav1.NewTime(time.Now()))
	}
	if m.GetNamespace() == "" {
		m.SetNamespace(ns)
	}
	m.SetResourceVersion(strconv.Itoa(a.version))
	m.SetGeneration(1)
	return a.ObjectTracker.Create(gvr, object, ns, opts...)
}

// Update refuses a stale version and counts the change.
func (a *api) Update(gvr schema.GroupVersionResource, object runtime.Object, ns string, opts ...metav1.UpdateOptions) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if err := a.stamp(gvr, object, ns); err != nil {
		return err
	}
	return a.ObjectTracker.Update(gvr, object, ns, opts...)
}

// Patch does the same for the outcome of a patch.
func (a *api) Patch(gvr schema.GroupVersionResource, object runtime.Object, ns string, opts ...metav1.PatchOptions) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if err := a.stamp(gvr, object, ns); err != nil {
		return err
	}
	return a.ObjectTracker.Patch(gvr, object, ns, opts...)
}

// stamp checks and raises the object's version and, if its spec changed, its
// generation; the caller holds the mutex.
func (a *api) stamp(gvr schema.GroupVersionResource, object runtime.Object, ns string) error {
	m, err := meta.Accessor(object)
	if err != nil {
		return fmt.Errorf("metadata of an object: %w", err)
	}
	old, err := a.Get(gvr, ns, m.GetName())
	if err != nil {
		return err
	}
	before, err := meta.Accessor(old)
	if err != nil {
		return fmt.Errorf("metadata of an object: %w", err)
	}
	if m.GetResourceVersion() != "" && m.GetResourceVersion() != before.GetResourceVersion() {
		return apierrors.NewConflict(gvr.GroupResource(), m.GetName(), fmt.Errorf("the object has been modified"))
	}
	a.version++
	m.SetUID(before.GetUID())
	m.SetCreationTimestamp(before.GetCreationTimestamp())
	m.SetResourceVersion(strconv.Itoa(a.version))
	m.SetGeneration(before.GetGeneration())
	if !equality.Semantic.DeepEqual(spec(old), spec(object)) {
		m.SetGeneration(before.GetGeneration() + 1)
	}
	return nil
}

// spec returns the object's spec, nil if its kind has none.
func spec(object runtime.Object) any {
	field := reflect.ValueOf(object).Elem().FieldByName("Spec")
	if !field.IsValid() {
		return nil
	}
	return field.Interface()
}
