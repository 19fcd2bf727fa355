// Package objects keeps the config maps and secrets that this node's pods refer
// to, and nothing else.
//
// Each referenced object is followed by a watch of its own, which is all a node
// may do with secrets, shared by all pods that refer to it and ended with the
// last of them. Immutable objects are read once. Pods go in by Register, and a
// callback tells which pods are affected by a change.
package objects

import (
	"context"
	"fmt"
	"strings"
	"sync"

	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
)

// kind is the resource name: configmaps or secrets.
type kind string

const (
	configMaps kind = "configmaps"
	secrets    kind = "secrets"
)

type key struct {
	kind            kind
	namespace, name string
}

// Store holds the referenced objects.
type Store struct {
	ctx     context.Context
	client  kubernetes.Interface
	changed func(types.UID)

	// mu guards the two maps; each entry guards itself.
	mu      sync.Mutex
	entries map[key]*entry
	pods    map[types.UID]map[key]bool
}

// New returns an empty store whose watches end with ctx. changed is called for
// every pod that refers to an object that changed; it must not block.
func New(ctx context.Context, client kubernetes.Interface, changed func(types.UID)) *Store {
	return &Store{ctx: ctx, client: client, changed: changed, entries: map[key]*entry{}, pods: map[types.UID]map[key]bool{}}
}

// Register makes the store follow what the pod refers to, and forget what an
// earlier version of the pod referred to.
func (s *Store) Register(pod *v1.Pod) {
	wanted := references(pod)
	s.mu.Lock()
	defer s.mu.Unlock()
	for k := range wanted {
		e := s.entries[k]
		if e == nil {
			e = s.follow(k)
			s.entries[k] = e
		}
		e.users[pod.UID] = true
	}
	for k := range s.pods[pod.UID] {
		if !wanted[k] {
			s.release(k, pod.UID)
		}
	}
	s.pods[pod.UID] = wanted
}

// Unregister forgets the pod.
func (s *Store) Unregister(uid types.UID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for k := range s.pods[uid] {
		s.release(k, uid)
	}
	delete(s.pods, uid)
}

// ConfigMap returns a referenced config map, waiting for its first answer.
func (s *Store) ConfigMap(namespace, name string) (*v1.ConfigMap, error) {
	object, err := s.get(key{configMaps, namespace, name})
	if err != nil {
		return nil, err
	}
	return object.(*v1.ConfigMap), nil
}

// Secret returns a referenced secret, waiting for its first answer.
func (s *Store) Secret(namespace, name string) (*v1.Secret, error) {
	object, err := s.get(key{secrets, namespace, name})
	if err != nil {
		return nil, err
	}
	return object.(*v1.Secret), nil
}

func (s *Store) get(k key) (runtime.Object, error) {
	s.mu.Lock()
	e := s.entries[k]
	s.mu.Unlock()
	if e == nil {
		return nil, fmt.Errorf("object %q/%q not registered", k.namespace, k.name)
	}
	wait, cancel := context.WithTimeout(s.ctx, firstAnswer)
	defer cancel()
	select {
	case <-e.synced:
	case <-wait.Done():
		return nil, fmt.Errorf("failed to sync %s cache: timed out waiting for the condition", strings.TrimSuffix(string(k.kind), "s"))
	}
	if object := e.current(); object != nil {
		return object, nil
	}
	// In the singular, as users know the message.
	return nil, apierrors.NewNotFound(schema.GroupResource{Resource: strings.TrimSuffix(string(k.kind), "s")}, k.name)
}

// release is called with mu held.
func (s *Store) release(k key, uid types.UID) {
	e := s.entries[k]
	if e == nil {
		return
	}
	delete(e.users, uid)
	if len(e.users) == 0 {
		e.stop()
		delete(s.entries, k)
	}
}

// notify tells the pods that use an object.
func (s *Store) notify(e *entry) {
	s.mu.Lock()
	users := make([]types.UID, 0, len(e.users))
	for uid := range e.users {
		users = append(users, uid)
	}
	s.mu.Unlock()
	for _, uid := range users {
		s.changed(uid)
	}
}

// follow is called with mu held.
func (s *Store) follow(k key) *entry {
	ctx, cancel := context.WithCancel(s.ctx)
	e := &entry{name: k.name, users: map[types.UID]bool{}, synced: make(chan struct{}), stop: cancel}
	e.changed = func() { s.notify(e) }
	selector := fields.OneTermEqualSelector("metadata.name", k.name).String()
	lw := &cache.ListWatch{}
	var example runtime.Object
	switch k.kind {
	case configMaps:
		example = &v1.ConfigMap{}
		lw.ListWithContextFunc = func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) {
			o.FieldSelector = selector
			return s.client.CoreV1().ConfigMaps(k.namespace).List(ctx, o)
		}
		lw.WatchFuncWithContext = func(ctx context.Context, o metav1.ListOptions) (watch.Interface, error) {
			o.FieldSelector = selector
			return s.client.CoreV1().ConfigMaps(k.namespace).Watch(ctx, o)
		}
	case secrets:
		example = &v1.Secret{}
		lw.ListWithContextFunc = func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) {
			o.FieldSelector = selector
			return s.client.CoreV1().Secrets(k.namespace).List(ctx, o)
		}
		lw.WatchFuncWithContext = func(ctx context.Context, o metav1.ListOptions) (watch.Interface, error) {
			o.FieldSelector = selector
			return s.client.CoreV1().Secrets(k.namespace).Watch(ctx, o)
		}
	}
	reflector := cache.NewReflectorWithOptions(cache.ToListWatcherWithWatchListSemantics(lw, s.client), example, e, cache.ReflectorOptions{Name: fmt.Sprintf("%s %s/%s", k.kind, k.namespace, k.name)})
	go reflector.RunWithContext(ctx)
	return e
}
