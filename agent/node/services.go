package node

import (
	"context"
	"fmt"
	"sync"
	"time"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
)

// Services follows the services that have an address, trimmed to what the
// environment variables of pods are made from.
type Services struct {
	client kubernetes.Interface
	once   sync.Once
	synced chan struct{}

	// mu guards services.
	mu       sync.Mutex
	services map[types.UID]*v1.Service
}

// NewServices returns a follower.
func NewServices(client kubernetes.Interface) *Services {
	return &Services{client: client, synced: make(chan struct{}), services: map[types.UID]*v1.Service{}}
}

// Run follows the services until ctx ends.
func (s *Services) Run(ctx context.Context) {
	lw := &cache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) {
			return s.client.CoreV1().Services(metav1.NamespaceAll).List(ctx, o)
		},
		WatchFuncWithContext: func(ctx context.Context, o metav1.ListOptions) (watch.Interface, error) {
			return s.client.CoreV1().Services(metav1.NamespaceAll).Watch(ctx, o)
		},
	}
	cache.NewReflectorWithOptions(cache.ToListWatcherWithWatchListSemantics(lw, s.client), &v1.Service{}, s, cache.ReflectorOptions{Name: "services"}).RunWithContext(ctx)
}

// firstRead is how long a container waits for the services.
const firstRead = 10 * time.Second

// Services returns all services with an address, once they were read.
func (s *Services) Services(ctx context.Context) ([]*v1.Service, error) {
	ctx, cancel := context.WithTimeout(ctx, firstRead)
	defer cancel()
	select {
	case <-s.synced:
	case <-ctx.Done():
		return nil, fmt.Errorf("services have not yet been read at least once, cannot construct envvars")
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	list := make([]*v1.Service, 0, len(s.services))
	for _, service := range s.services {
		list = append(list, service)
	}
	return list, nil
}

// Add, Update, Delete, Replace and Resync make Services a cache.ReflectorStore.
func (s *Services) Add(object any) error { return s.Update(object) }
func (s *Services) Resync() error        { return nil }

// Update takes over one service.
func (s *Services) Update(object any) error {
	service, ok := object.(*v1.Service)
	if !ok {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.services, service.UID)
	if hasAddress(service) {
		s.services[service.UID] = trim(service)
	}
	return nil
}

func hasAddress(service *v1.Service) bool {
	return service.Spec.ClusterIP != "" && service.Spec.ClusterIP != v1.ClusterIPNone
}

// Delete forgets one service.
func (s *Services) Delete(object any) error {
	if service, ok := object.(*v1.Service); ok {
		s.mu.Lock()
		delete(s.services, service.UID)
		s.mu.Unlock()
	}
	return nil
}

// Replace takes over all services, after a list.
func (s *Services) Replace(objects []any, _ string) error {
	next := map[types.UID]*v1.Service{}
	for _, o := range objects {
		if service, ok := o.(*v1.Service); ok && hasAddress(service) {
			next[service.UID] = trim(service)
		}
	}
	s.mu.Lock()
	s.services = next
	s.mu.Unlock()
	s.once.Do(func() { close(s.synced) })
	return nil
}

func trim(service *v1.Service) *v1.Service {
	return &v1.Service{
		ObjectMeta: metav1.ObjectMeta{Name: service.Name, Namespace: service.Namespace, UID: service.UID},
		Spec:       v1.ServiceSpec{ClusterIP: service.Spec.ClusterIP, Ports: service.Spec.Ports},
	}
}
