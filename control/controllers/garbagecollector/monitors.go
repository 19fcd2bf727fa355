package garbagecollector

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"strings"
	"sync"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/metadata/metadatainformer"
	"k8s.io/client-go/tools/cache"

	"github.com/skiff-run/skiff/control/controllers/reconcile"
)

// servedKind is a kind the API serves.
type servedKind struct {
	resource   schema.GroupVersionResource
	kind       schema.GroupVersionKind
	namespaced bool
}

// monitor watches the objects of one resource.
type monitor struct {
	resource     schema.GroupVersionResource
	kind         schema.GroupVersionKind
	informer     cache.SharedIndexInformer
	subscription reconcile.Subscriptions
	// stop ends an informer that is the garbage collector's own; nil for shared ones.
	stop func()
}

func (m *monitor) get(namespace, name string) (metav1.Object, bool) {
	key := name
	if namespace != "" {
		key = namespace + "/" + name
	}
	found, exists, err := m.informer.GetStore().GetByKey(key)
	if err != nil || !exists {
		return nil, false
	}
	object, ok := found.(metav1.Object)
	return object, ok
}

// hasUID looks through all objects; it is for telling users of mistakes.
func (m *monitor) hasUID(uid types.UID) bool {
	for _, found := range m.informer.GetStore().List() {
		if object, ok := found.(metav1.Object); ok && object.GetUID() == uid {
			return true
		}
	}
	return false
}

// monitors has one monitor per resource that can be collected, as discovery tells
// them.
type monitors struct {
	discovery  discovery.DiscoveryInterface
	metadata   metadata.Interface
	factory    informers.SharedInformerFactory
	rediscover time.Duration
	handler    func(*monitor) cache.ResourceEventHandler
	logger     *slog.Logger
	running    sync.WaitGroup

	mu        sync.RWMutex // guards both maps
	kinds     map[schema.GroupVersionKind]servedKind
	resources map[schema.GroupResource]*monitor
}

func newMonitors(d discovery.DiscoveryInterface, objects metadata.Interface, factory informers.SharedInformerFactory,
	rediscover time.Duration, handler func(*monitor) cache.ResourceEventHandler, logger *slog.Logger,
) *monitors {
	return &monitors{
		discovery: d, metadata: objects, factory: factory, rediscover: rediscover, handler: handler, logger: logger,
		kinds: map[schema.GroupVersionKind]servedKind{}, resources: map[schema.GroupResource]*monitor{},
	}
}

// kind returns what is served for a reference's apiVersion and kind.
func (m *monitors) kind(apiVersion, kind string) (servedKind, bool) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	served, ok := m.kinds[schema.FromAPIVersionAndKind(apiVersion, kind)]
	return served, ok
}

// of returns a resource's monitor; nil if it has none.
func (m *monitors) of(resource schema.GroupResource) *monitor {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return m.resources[resource]
}

// start watches everything served now and waits until all of it is known, for an
// owner that is not known yet looks like one that is gone; false means that ctx
// ended before.
func (m *monitors) start(ctx context.Context) bool {
	for delay := 100 * time.Millisecond; ; delay = min(2*delay, 5*time.Second) {
		err := m.refresh(ctx)
		if err == nil {
			return m.waitForSync(ctx)
		}
		m.logger.Warn("discovering what can be collected failed; it will be tried again", "error", err)
		select {
		case <-ctx.Done():
			return false
		case <-time.After(delay):
		}
	}
}

// follow keeps up with kinds that come and go until ctx ends.
func (m *monitors) follow(ctx context.Context) {
	ticker := time.NewTicker(m.rediscover)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		if err := m.refresh(ctx); err != nil && ctx.Err() == nil {
			m.logger.Warn("discovering what can be collected failed; it will be tried again", "error", err)
		}
	}
}

// refresh asks what is served and starts and stops monitors accordingly. When
// some groups cannot be asked, what was known of them stays.
func (m *monitors) refresh(ctx context.Context) error {
	groups, all, err := m.discovery.ServerGroupsAndResources()
	var partial *discovery.ErrGroupDiscoveryFailed
	failed := errors.As(err, &partial)
	if err != nil && !failed {
		return err
	}
	kinds, wanted := served(all), collectable(groups, all)
	m.mu.Lock()
	if failed {
		// What was served is taken to be served still.
		merged := maps.Clone(m.kinds)
		maps.Copy(merged, kinds)
		kinds = merged
	}
	m.kinds = kinds
	var started, stopped []*monitor
	for resource, kind := range wanted {
		if m.resources[resource] == nil {
			one := m.monitor(kind)
			m.resources[resource] = one
			started = append(started, one)
		}
	}
	for resource, one := range m.resources {
		if _, still := wanted[resource]; !still && !failed {
			delete(m.resources, resource)
			stopped = append(stopped, one)
		}
	}
	m.mu.Unlock()

	for _, one := range stopped {
		one.close()
	}
	for _, one := range started {
		subscription, err := reconcile.Subscribe(reconcile.Source{Informer: one.informer, Handler: m.handler(one)})
		if err != nil {
			return err
		}
		m.mu.Lock()
		one.subscription = subscription
		m.mu.Unlock()
		if one.stop != nil {
			own, cancel := context.WithCancel(ctx)
			one.stop = cancel
			m.running.Go(func() { one.informer.RunWithContext(own) })
		}
	}
	m.factory.StartWithContext(ctx)
	return nil
}

// monitor returns a monitor of kind on a shared informer, or on one of its own
// that keeps metadata only when the kind is not built in.
func (m *monitors) monitor(kind servedKind) *monitor {
	one := &monitor{resource: kind.resource, kind: kind.kind}
	if shared, err := m.factory.ForResource(kind.resource); err == nil {
		one.informer = shared.Informer()
		return one
	}
	one.informer = metadatainformer.NewFilteredMetadataInformer(m.metadata, kind.resource, metav1.NamespaceAll, 0,
		cache.Indexers{}, nil).Informer()
	one.stop = func() {}
	return one
}

func (m *monitors) waitForSync(ctx context.Context) bool {
	m.mu.RLock()
	all := make([]*monitor, 0, len(m.resources))
	for _, one := range m.resources {
		all = append(all, one)
	}
	m.mu.RUnlock()
	for _, one := range all {
		if !one.subscription.WaitForSync(ctx) {
			return false
		}
	}
	return true
}

// close takes all handlers out and waits for the informers that are the garbage
// collector's own.
func (m *monitors) close() {
	m.mu.Lock()
	all := m.resources
	m.resources = map[schema.GroupResource]*monitor{}
	m.mu.Unlock()
	for _, one := range all {
		one.close()
	}
	m.running.Wait()
}

func (m *monitor) close() {
	m.subscription.Close()
	if m.stop != nil {
		m.stop()
	}
}

// served returns every kind of every served version.
func served(lists []*metav1.APIResourceList) map[schema.GroupVersionKind]servedKind {
	kinds := map[schema.GroupVersionKind]servedKind{}
	each(lists, func(kind servedKind, _ metav1.APIResource) { kinds[kind.kind] = kind })
	return kinds
}

// collectable returns the resources whose objects can be owners or dependents, in
// their groups' preferred versions where those have them. Events are not
// collectable: they are many, own nothing and end by themselves.
func collectable(groups []*metav1.APIGroup, lists []*metav1.APIResourceList) map[schema.GroupResource]servedKind {
	preferred := map[string]bool{}
	for _, group := range groups {
		preferred[group.PreferredVersion.GroupVersion] = true
	}
	resources := map[schema.GroupResource]servedKind{}
	verbs := discovery.SupportsAllVerbs{Verbs: []string{"delete", "list", "watch"}}
	each(lists, func(kind servedKind, resource metav1.APIResource) {
		if !verbs.Match("", &resource) || kind.resource.Resource == "events" {
			return
		}
		if _, known := resources[kind.resource.GroupResource()]; !known || preferred[kind.resource.GroupVersion().String()] {
			resources[kind.resource.GroupResource()] = kind
		}
	})
	return resources
}

// each calls f for every resource that is not a subresource.
func each(lists []*metav1.APIResourceList, f func(servedKind, metav1.APIResource)) {
	for _, list := range lists {
		version, err := schema.ParseGroupVersion(list.GroupVersion)
		if err != nil {
			continue
		}
		for _, resource := range list.APIResources {
			if !strings.Contains(resource.Name, "/") {
				f(servedKind{resource: version.WithResource(resource.Name), kind: version.WithKind(resource.Kind), namespaced: resource.Namespaced}, resource)
			}
		}
	}
}
