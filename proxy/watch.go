package proxy

import (
	"context"
	"fmt"
	"maps"
	"slices"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/client-go/informers"

	"github.com/skiff-run/skiff/internal/addresspool"
	"github.com/skiff-run/skiff/proxy/table"
)

// read reads the whole state from the API.
func (p *Proxy) read(ctx context.Context) (*table.Table, error) {
	ctx, cancel := context.WithCancel(ctx)
	p.start(ctx)
	defer p.stop()
	defer cancel()
	if !p.synced(ctx) {
		return nil, fmt.Errorf("read the state of the cluster: %w", ctx.Err())
	}
	return p.table()
}

func (p *Proxy) start(ctx context.Context) {
	p.factory.StartWithContext(ctx)
	p.own.StartWithContext(ctx)
}

// stop waits for the watches to end after their context has.
func (p *Proxy) stop() {
	p.factory.Shutdown()
	p.own.Shutdown()
}

// synced waits until the whole state has been read once.
func (p *Proxy) synced(ctx context.Context) bool {
	for _, factory := range []informers.SharedInformerFactory{p.factory, p.own} {
		for _, synced := range factory.WaitForCacheSync(ctx.Done()) {
			if !synced {
				return false
			}
		}
	}
	if p.names != nil {
		p.names.Ready()
	}
	return true
}

// table builds the desired state from what was watched.
func (p *Proxy) table() (*table.Table, error) {
	services, err := p.services.List(labels.Everything())
	if err != nil {
		return nil, fmt.Errorf("list services: %w", err)
	}
	node := p.node
	node.NodePorts = *p.nodePorts.Load()
	// A machine that has not registered yet has no zone and no primary address.
	if object, err := p.nodes.Get(p.config.NodeName); err == nil {
		node = node.WithObject(object)
		p.health.eligible.Store(eligible(object))
	}
	return p.builder.Build(node, services, p.slicesOf), nil
}

// notice says that something changed; a second change before the first is
// looked at adds nothing.
func (p *Proxy) notice() {
	p.health.noticed()
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
		mark, marked := o.Annotations[addresspool.Mark]
		o.ManagedFields, o.Annotations = nil, nil
		if marked {
			o.Annotations = map[string]string{addresspool.Mark: mark}
		}
	case *discoveryv1.EndpointSlice:
		o.ManagedFields, o.Annotations, o.OwnerReferences = nil, nil, nil
	case *corev1.Namespace:
		o.ManagedFields, o.Annotations, o.Labels = nil, nil, nil
	case *corev1.Node:
		o.ManagedFields, o.Annotations, o.Status.Images, o.Status.VolumesInUse, o.Status.VolumesAttached = nil, nil, nil, nil, nil
	}
	return object, nil
}

// concernsUs says whether an update needs a sync: a Node changes with every
// report of its agent.
func concernsUs(before, after any) bool {
	was, one := before.(*corev1.Node)
	is, two := after.(*corev1.Node)
	if !one || !two {
		return true
	}
	return !maps.Equal(was.Labels, is.Labels) || !slices.Equal(was.Status.Addresses, is.Status.Addresses) || eligible(was) != eligible(is)
}

// toBeDeleted is the taint of a node that the cluster autoscaler removes.
const toBeDeleted = "ToBeDeletedByClusterAutoscaler"

// eligible says whether load balancers should send new connections to the node
// (KEP-3836).
func eligible(node *corev1.Node) bool {
	return node.DeletionTimestamp == nil && !slices.ContainsFunc(node.Spec.Taints, func(t corev1.Taint) bool { return t.Key == toBeDeleted })
}
