// Package endpointslice keeps the EndpointSlices of every Service that has a
// selector: kube-controller-manager's endpointslice-controller.
//
// In flow Services, pods, nodes and EndpointSlices by informer; out flow
// EndpointSlices. What a slice contains, and with how few writes it gets there,
// is decided by Kubernetes' own k8s.io/endpointslice; this package only tells it
// when to look. Several pods that change while a Service is being worked on
// become one further look.
package endpointslice

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/go-logr/logr"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	corelisters "k8s.io/client-go/listers/core/v1"
	discoverylisters "k8s.io/client-go/listers/discovery/v1"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/record"
	slicereconciler "k8s.io/endpointslice"
	"k8s.io/endpointslice/topologycache"
	sliceutil "k8s.io/endpointslice/util"

	"github.com/skiff-run/skiff/control/controllers/podstate"
	"github.com/skiff-run/skiff/control/controllers/reconcile"
)

// Component is the controller's name in events; ManagedBy marks its slices.
const (
	Component = "endpoint-slice-controller"
	ManagedBy = "endpointslice-controller.k8s.io"
)

const (
	workers = 5
	// perSlice is how many endpoints one slice holds at most.
	perSlice = 100
	// foreignChange is how long a Service waits after somebody else changed one of
	// its slices, so that two who disagree do not do so at full speed.
	foreignChange = time.Second
)

// Controller keeps EndpointSlices.
type Controller struct {
	client   kubernetes.Interface
	services corelisters.ServiceLister
	pods     corelisters.PodLister
	byNode   cache.Indexer
	nodes    corelisters.NodeLister
	slices   discoverylisters.EndpointSliceLister
	sources  []reconcile.Source
	queue    *reconcile.Queue[string]
	topology *topologycache.TopologyCache
	tracker  *sliceutil.EndpointSliceTracker
	triggers *sliceutil.TriggerTimeTracker
	inner    *slicereconciler.Reconciler
	events   record.EventRecorder
	logger   logr.Logger
}

// New returns a controller on the client and the informers, which the caller
// starts.
func New(client kubernetes.Interface, factory informers.SharedInformerFactory, logger *slog.Logger) (*Controller, error) {
	core := factory.Core().V1()
	if err := podstate.IndexByNode(core.Pods().Informer()); err != nil {
		return nil, err
	}
	c := &Controller{
		client: client, services: core.Services().Lister(), pods: core.Pods().Lister(), nodes: core.Nodes().Lister(),
		slices: factory.Discovery().V1().EndpointSlices().Lister(), topology: topologycache.NewTopologyCache(),
		byNode:  core.Pods().Informer().GetIndexer(),
		tracker: sliceutil.NewEndpointSliceTracker(), triggers: sliceutil.NewTriggerTimeTracker(),
		// What the library finds worth telling on every change of a node is for
		// debugging.
		logger: logr.FromSlogHandler(logger.Handler()).V(4),
	}
	c.queue = reconcile.NewQueue("endpointslice", workers, logger, c.reconcile)
	c.sources = []reconcile.Source{
		{Informer: core.Services().Informer(), Handler: reconcile.OnAny(c.serviceChanged)},
		{Informer: core.Pods().Informer(), Handler: cache.ResourceEventHandlerFuncs{
			AddFunc:    func(object any) { c.podChanged(nil, object) },
			UpdateFunc: c.podChanged,
			DeleteFunc: func(object any) { c.podChanged(object, nil) },
		}},
		{Informer: core.Nodes().Informer(), Handler: reconcile.Handler(c.nodesChanged, c.nodeUpdated, c.nodesChanged)},
		{Informer: core.Nodes().Informer(), Handler: cache.ResourceEventHandlerDetailedFuncs{AddFunc: c.nodeAppeared}},
		{Informer: factory.Discovery().V1().EndpointSlices().Informer(), Handler: reconcile.Handler(c.sliceAdded, c.sliceUpdated, c.sliceDeleted)},
	}
	return c, nil
}

// Run works until ctx ends.
func (c *Controller) Run(ctx context.Context) error {
	recorder, stop := reconcile.StartEvents(c.client, Component)
	defer stop()
	c.start(recorder)
	return reconcile.Run(ctx, c.sources, c.queue)
}

// start builds what needs the recorder.
func (c *Controller) start(recorder record.EventRecorder) {
	c.events = recorder
	c.inner = slicereconciler.NewReconciler(c.client, c.nodes, perSlice, c.tracker, c.topology, recorder, ManagedBy,
		slicereconciler.WithPreferSameTrafficDistributionEnabled(true))
}

// reconcile brings one Service's slices in order; key is namespace/name.
func (c *Controller) reconcile(_ context.Context, key string) error {
	namespace, name, err := cache.SplitMetaNamespaceKey(key)
	if err != nil {
		return fmt.Errorf("key %q: %w", key, err)
	}
	service, err := c.services.Services(namespace).Get(name)
	if apierrors.IsNotFound(err) {
		// The garbage collector takes the slices, which are owned by the Service.
		c.triggers.DeleteService(namespace, name)
		c.inner.DeleteService(namespace, name)
		c.tracker.DeleteService(namespace, name)
		return nil
	}
	if err != nil {
		return fmt.Errorf("read service: %w", err)
	}
	if service.Spec.Type == corev1.ServiceTypeExternalName || service.Spec.Selector == nil {
		return nil
	}
	pods, err := c.pods.Pods(namespace).List(labels.SelectorFromSet(service.Spec.Selector))
	if err != nil {
		return fmt.Errorf("list pods: %w", err)
	}
	existing, err := c.slices.EndpointSlices(namespace).List(labels.SelectorFromSet(labels.Set{
		discoveryv1.LabelServiceName: name, discoveryv1.LabelManagedBy: ManagedBy,
	}))
	if err != nil {
		return fmt.Errorf("list endpoint slices: %w", err)
	}
	existing = slices.DeleteFunc(existing, func(slice *discoveryv1.EndpointSlice) bool { return slice.DeletionTimestamp != nil })
	if c.tracker.StaleSlices(service, existing) {
		return fmt.Errorf("endpoint slices of service %s: %w", key, reconcile.ErrBehind)
	}
	trigger := c.triggers.ComputeEndpointLastChangeTriggerTime(namespace, service, pods)
	if err := c.inner.Reconcile(c.logger, service, pods, existing, trigger); err != nil {
		if !apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause) {
			c.events.Eventf(service, corev1.EventTypeWarning, "FailedToUpdateEndpointSlices",
				"Error updating Endpoint Slices for Service %s/%s: %v", namespace, name, err)
		}
		return err
	}
	return nil
}

func (c *Controller) serviceChanged(service *corev1.Service) {
	c.queue.Add(service.Namespace + "/" + service.Name)
}

// podChanged wakes the Services that select the pod now or did before.
func (c *Controller) podChanged(old, current any) {
	change := sliceutil.GetPodUpdateProjectionKey(old, current)
	if change == nil {
		return
	}
	services, err := sliceutil.GetServicesToUpdate(c.services, change)
	if err != nil {
		return
	}
	for service := range services {
		c.queue.Add(service)
	}
}

func (c *Controller) sliceAdded(slice *discoveryv1.EndpointSlice) {
	if c.inner.ManagedByController(slice) && c.tracker.ShouldSync(slice) {
		c.wakeServiceOf(slice)
	}
}

func (c *Controller) sliceUpdated(old, slice *discoveryv1.EndpointSlice) {
	switch {
	case old.Labels[discoveryv1.LabelServiceName] != slice.Labels[discoveryv1.LabelServiceName]:
		c.wakeServiceOf(old)
		c.wakeServiceOf(slice)
	case c.inner.ManagedByChanged(old, slice), c.inner.ManagedByController(slice) && c.tracker.ShouldSync(slice):
		c.wakeServiceOf(slice)
	}
}

func (c *Controller) sliceDeleted(slice *discoveryv1.EndpointSlice) {
	// What the tracker expects is our own deletion.
	if c.inner.ManagedByController(slice) && c.tracker.Has(slice) && !c.tracker.HandleDeletion(slice) {
		c.wakeServiceOf(slice)
	}
}

func (c *Controller) wakeServiceOf(slice *discoveryv1.EndpointSlice) {
	key, err := slicereconciler.ServiceControllerKey(slice)
	if err == nil {
		c.queue.AddAfter(key, foreignChange)
	}
}

func (c *Controller) nodeUpdated(old, node *corev1.Node) {
	if ready(old) != ready(node) || old.Labels[corev1.LabelTopologyZone] != node.Labels[corev1.LabelTopologyZone] {
		c.nodesChanged(node)
	}
}

// nodesChanged gives the topology hints the nodes they are computed from, and
// wakes the Services whose hints no longer fit.
func (c *Controller) nodesChanged(*corev1.Node) {
	nodes, err := c.nodes.List(labels.Everything())
	if err != nil {
		return
	}
	c.topology.SetNodes(c.logger, nodes)
	for _, service := range c.topology.GetOverloadedServices() {
		c.queue.Add(service)
	}
}

// nodeAppeared wakes the Services of pods that were left out because their node was
// not known yet.
func (c *Controller) nodeAppeared(object any, isInInitialList bool) {
	node, ok := object.(*corev1.Node)
	if !ok || isInInitialList {
		return
	}
	pods, err := podstate.OnNode(c.byNode, node.Name)
	if err != nil {
		return
	}
	for _, pod := range pods {
		c.podChanged(nil, pod)
	}
}

func ready(node *corev1.Node) bool {
	return slices.ContainsFunc(node.Status.Conditions, func(condition corev1.NodeCondition) bool {
		return condition.Type == corev1.NodeReady && condition.Status == corev1.ConditionTrue
	})
}
