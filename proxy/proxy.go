// Package proxy serves service addresses and cluster DNS on one machine:
// kube-proxy's role, and the name server's.
//
// It watches Services and EndpointSlices, builds from them the table of this
// node (package table, pure), and has a backend bring the kernel to it. Every
// sync starts from the whole desired state, so a missed event or a crash heals
// by itself; the rules of the last run serve on until the first sync replaces
// them. It talks to nobody but the API server.
package proxy

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"time"

	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	corelisters "k8s.io/client-go/listers/core/v1"
	"k8s.io/client-go/tools/cache"

	"github.com/skiff-run/skiff/proxy/conntrack"
	"github.com/skiff-run/skiff/proxy/dns"
	"github.com/skiff-run/skiff/proxy/table"
)

// settle is how long changes are collected before they are programmed: long
// enough for the two halves of one change (a service and its slices), too
// short for a person to notice.
const settle = 10 * time.Millisecond

// retry is how long a failed sync waits for its next try.
const retry = time.Second

// Backend brings the kernel to a table.
type Backend interface {
	Sync(ctx context.Context, t *table.Table) error
}

// Config of a proxy.
type Config struct {
	Client   kubernetes.Interface
	NodeName string
	Backend  Backend
	// DNS serves names too; nil turns it off.
	DNS *dns.Config
	// HealthAddress and MetricsAddress are host:port; empty turns one off.
	HealthAddress, MetricsAddress string
	Logger                        *slog.Logger
}

// Proxy serves one machine.
type Proxy struct {
	config   Config
	node     table.Node
	factory  informers.SharedInformerFactory
	services corelisters.ServiceLister
	slices   cache.Indexer
	changed  chan struct{}
	health   *health
	names    *dns.Server
}

// New returns a proxy that Run starts.
func New(config Config) (*Proxy, error) {
	p := &Proxy{
		config: config, node: table.Node{Name: config.NodeName},
		changed: make(chan struct{}, 1), health: newHealth(),
	}
	p.factory = informers.NewSharedInformerFactoryWithOptions(config.Client, 0, informers.WithTransform(forget))
	p.services = p.factory.Core().V1().Services().Lister()
	slices := p.factory.Discovery().V1().EndpointSlices().Informer()
	if err := slices.AddIndexers(cache.Indexers{byService: indexByService}); err != nil {
		return nil, fmt.Errorf("index endpoint slices: %w", err)
	}
	p.slices = slices.GetIndexer()
	for _, informer := range []cache.SharedIndexInformer{p.factory.Core().V1().Services().Informer(), slices} {
		if _, err := informer.AddEventHandler(cache.ResourceEventHandlerFuncs{
			AddFunc: func(any) { p.notice() }, UpdateFunc: func(_, _ any) { p.notice() }, DeleteFunc: func(any) { p.notice() },
		}); err != nil {
			return nil, fmt.Errorf("watch the API: %w", err)
		}
	}
	if config.DNS != nil {
		p.node.Excluded = []netip.Addr{config.DNS.Address}
		names, err := dns.NewServer(*config.DNS, &source{p})
		if err != nil {
			return nil, err
		}
		p.names = names
	}
	return p, nil
}

// Run serves until ctx ends. What is programmed stays in the kernel. The
// kernel is that of the calling thread's network namespace.
func (p *Proxy) Run(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	if p.names != nil {
		group.Go(func() error { return p.names.Run(ctx) })
	}
	group.Go(func() error { return p.health.serve(ctx, p.config.HealthAddress, p.config.MetricsAddress) })
	p.factory.StartWithContext(ctx)
	defer p.factory.Shutdown()
	if p.synced(ctx) {
		p.loop(ctx)
	}
	if err := group.Wait(); err != nil && !errors.Is(err, context.Canceled) {
		return err
	}
	return nil
}

// synced waits until the whole state has been read once.
func (p *Proxy) synced(ctx context.Context) bool {
	for _, synced := range p.factory.WaitForCacheSync(ctx.Done()) {
		if !synced {
			return false
		}
	}
	if p.names != nil {
		p.names.Ready()
	}
	return true
}

// loop syncs once, then after each change, then again after a failure.
func (p *Proxy) loop(ctx context.Context) {
	for {
		var again <-chan time.Time
		if err := p.sync(ctx); err != nil {
			if ctx.Err() != nil {
				return
			}
			p.config.Logger.Error("programming services failed; trying again", "error", err)
			again = time.After(retry)
		}
		select {
		case <-ctx.Done():
			return
		case <-again:
			continue
		case <-p.changed:
		}
		// Let the rest of a burst arrive.
		select {
		case <-ctx.Done():
			return
		case <-time.After(settle):
		}
		select {
		case <-p.changed:
		default:
		}
	}
}

func (p *Proxy) sync(ctx context.Context) error {
	begin := time.Now()
	t, err := p.table()
	if err != nil {
		return err
	}
	if err := p.config.Backend.Sync(ctx, t); err != nil {
		return err
	}
	p.health.synced(time.Since(begin))
	// Only after the rules are in place: a flow that is forgotten earlier would
	// be made again by the old rules.
	forgotten, err := conntrack.FlowsOf(t).Forget()
	if err != nil {
		return err
	}
	p.config.Logger.Debug("services programmed", "ports", len(t.Ports), "duration", time.Since(begin), "forgottenFlows", forgotten)
	return nil
}

func (p *Proxy) table() (*table.Table, error) {
	services, err := p.services.List(labels.Everything())
	if err != nil {
		return nil, fmt.Errorf("list services: %w", err)
	}
	return table.Build(p.node, services, p.slicesOf), nil
}

// notice says that something changed; a second change before the first is
// looked at adds nothing.
func (p *Proxy) notice() {
	select {
	case p.changed <- struct{}{}:
	default:
	}
}

const byService = "service"

func indexByService(object any) ([]string, error) {
	slice, ok := object.(*discoveryv1.EndpointSlice)
	if !ok {
		return nil, nil
	}
	return []string{slice.Namespace + "/" + slice.Labels[discoveryv1.LabelServiceName]}, nil
}

func (p *Proxy) slicesOf(namespace, service string) []*discoveryv1.EndpointSlice {
	objects, err := p.slices.ByIndex(byService, namespace+"/"+service)
	if err != nil {
		return nil
	}
	found := make([]*discoveryv1.EndpointSlice, 0, len(objects))
	for _, object := range objects {
		if slice, ok := object.(*discoveryv1.EndpointSlice); ok {
			found = append(found, slice)
		}
	}
	return found
}

// forget drops what nobody here reads before an object is kept.
func forget(object any) (any, error) {
	switch o := object.(type) {
	case *corev1.Service:
		o.ManagedFields, o.Annotations = nil, nil
	case *discoveryv1.EndpointSlice:
		o.ManagedFields, o.Annotations, o.OwnerReferences = nil, nil, nil
	}
	return object, nil
}

// source lets the name server read what the proxy watches.
type source struct{ proxy *Proxy }

func (s *source) Service(namespace, name string) *corev1.Service {
	service, err := s.proxy.services.Services(namespace).Get(name)
	if err != nil {
		return nil
	}
	return service
}

func (s *source) Services() []*corev1.Service {
	services, err := s.proxy.services.List(labels.Everything())
	if err != nil {
		return nil
	}
	return services
}

func (s *source) Slices(namespace, service string) []*discoveryv1.EndpointSlice {
	return s.proxy.slicesOf(namespace, service)
}
