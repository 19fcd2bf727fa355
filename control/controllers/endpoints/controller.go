// Package endpoints keeps the legacy Endpoints object of every Service that has a
// selector: kube-controller-manager's endpoint-controller.
//
// In flow Services, pods and Endpoints by informer; out flow Endpoints. What the
// object contains is decided by the pure function desired. New clients read
// EndpointSlices; this is for the old ones.
package endpoints

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	corelisters "k8s.io/client-go/listers/core/v1"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/leaderelection/resourcelock"
	"k8s.io/client-go/tools/record"
	sliceutil "k8s.io/endpointslice/util"

	"github.com/skiff-run/skiff/control/controllers/reconcile"
)

// Component is the controller's name in events and in the label ManagedByLabel.
const Component = "endpoint-controller"

// ManagedByLabel marks the Endpoints this controller writes.
const ManagedByLabel = "endpoints.kubernetes.io/managed-by"

const workers = 5

// Controller keeps Endpoints.
type Controller struct {
	client    kubernetes.Interface
	services  corelisters.ServiceLister
	pods      corelisters.PodLister
	endpoints corelisters.EndpointsLister
	sources   []reconcile.Source
	queue     *reconcile.Queue[string]
	triggers  *sliceutil.TriggerTimeTracker
	events    record.EventRecorder

	mu sync.Mutex // guards overwritten
	// overwritten has the version of each Endpoints object that was last replaced:
	// while the informer still shows it, deciding on it would be deciding twice.
	overwritten map[string]string
}

// New returns a controller on the client and the informers, which the caller
// starts.
func New(client kubernetes.Interface, factory informers.SharedInformerFactory, logger *slog.Logger) *Controller {
	core := factory.Core().V1()
	c := &Controller{
		client: client, services: core.Services().Lister(), pods: core.Pods().Lister(), endpoints: core.Endpoints().Lister(),
		triggers: sliceutil.NewTriggerTimeTracker(), overwritten: map[string]string{},
	}
	c.queue = reconcile.NewQueue("endpoints", workers, logger, c.reconcile)
	c.sources = []reconcile.Source{
		{Informer: core.Services().Informer(), Handler: reconcile.OnAny(c.serviceChanged)},
		{Informer: core.Pods().Informer(), Handler: cache.ResourceEventHandlerFuncs{
			AddFunc:    func(object any) { c.podChanged(nil, object) },
			UpdateFunc: c.podChanged,
			DeleteFunc: func(object any) { c.podChanged(object, nil) },
		}},
		{Informer: core.Endpoints().Informer(), Handler: cache.ResourceEventHandlerDetailedFuncs{
			AddFunc:    c.endpointsAdded,
			DeleteFunc: c.endpointsDeleted,
		}},
	}
	return c
}

// Run works until ctx ends.
func (c *Controller) Run(ctx context.Context) error {
	recorder, stop := reconcile.StartEvents(c.client, Component)
	defer stop()
	c.events = recorder
	return reconcile.Run(ctx, c.sources, c.queue)
}

// reconcile brings one Service's Endpoints in order; key is namespace/name.
func (c *Controller) reconcile(ctx context.Context, key string) error {
	namespace, name, err := cache.SplitMetaNamespaceKey(key)
	if err != nil {
		return fmt.Errorf("key %q: %w", key, err)
	}
	service, err := c.services.Services(namespace).Get(name)
	if apierrors.IsNotFound(err) {
		return c.remove(ctx, namespace, name)
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
	// Asked on every pass, for the tracker learns from what it is shown.
	trigger := c.triggers.ComputeEndpointLastChangeTriggerTime(namespace, service, pods)
	want := desired(service, pods)
	current, err := c.endpoints.Endpoints(namespace).Get(name)
	switch {
	case apierrors.IsNotFound(err):
		return c.create(ctx, service, stamped(want, trigger))
	case err != nil:
		return fmt.Errorf("read endpoints: %w", err)
	case c.stale(key, current):
		return fmt.Errorf("endpoints %s: %w", key, reconcile.ErrBehind)
	case same(current, want):
		return nil
	}
	changed := current.DeepCopy()
	changed.Subsets, changed.Labels = want.Subsets, want.Labels
	delete(changed.Annotations, corev1.EndpointsOverCapacity)
	delete(changed.Annotations, corev1.EndpointsLastChangeTriggerTime)
	if changed.Annotations == nil {
		changed.Annotations = map[string]string{}
	}
	maps.Copy(changed.Annotations, want.Annotations)
	updated, err := c.client.CoreV1().Endpoints(namespace).Update(ctx, stamped(changed, trigger), metav1.UpdateOptions{})
	if err != nil {
		c.events.Eventf(changed, corev1.EventTypeWarning, "FailedToUpdateEndpoint", "Failed to update endpoint %v/%v: %v", namespace, name, err)
		return fmt.Errorf("update endpoints: %w", err)
	}
	if updated.ResourceVersion != current.ResourceVersion {
		c.mu.Lock()
		c.overwritten[key] = current.ResourceVersion
		c.mu.Unlock()
	}
	return nil
}

func (c *Controller) create(ctx context.Context, service *corev1.Service, want *corev1.Endpoints) error {
	_, err := c.client.CoreV1().Endpoints(service.Namespace).Create(ctx, want, metav1.CreateOptions{})
	switch {
	case err == nil, apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause):
		return nil
	case apierrors.IsAlreadyExists(err):
		// The informer will show what is there.
		return fmt.Errorf("create endpoints: %w", err)
	}
	c.events.Eventf(want, corev1.EventTypeWarning, "FailedToCreateEndpoint",
		"Failed to create endpoint for service %v/%v: %v", service.Namespace, service.Name, err)
	return fmt.Errorf("create endpoints: %w", err)
}

// remove deletes the Endpoints of a Service that is gone.
func (c *Controller) remove(ctx context.Context, namespace, name string) error {
	c.triggers.DeleteService(namespace, name)
	c.mu.Lock()
	delete(c.overwritten, namespace+"/"+name)
	c.mu.Unlock()
	if _, err := c.endpoints.Endpoints(namespace).Get(name); apierrors.IsNotFound(err) {
		return nil
	}
	err := c.client.CoreV1().Endpoints(namespace).Delete(ctx, name, metav1.DeleteOptions{})
	if err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("delete endpoints: %w", err)
	}
	return nil
}

func (c *Controller) stale(key string, current *corev1.Endpoints) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.overwritten[key] == current.ResourceVersion && current.ResourceVersion != ""
}

// stamped sets the annotation that tells when the change began, for measuring how
// long it takes to reach the nodes.
func stamped(object *corev1.Endpoints, trigger time.Time) *corev1.Endpoints {
	if !trigger.IsZero() {
		object.Annotations[corev1.EndpointsLastChangeTriggerTime] = trigger.UTC().Format(time.RFC3339Nano)
	}
	return object
}

// same tells whether current says what is wanted, the order of its addresses and
// its trigger time aside.
func same(current, want *corev1.Endpoints) bool {
	_, currentOver := current.Annotations[corev1.EndpointsOverCapacity]
	_, wantOver := want.Annotations[corev1.EndpointsOverCapacity]
	return currentOver == wantOver && maps.Equal(current.Labels, want.Labels) &&
		(equality.Semantic.DeepEqual(current.Subsets, want.Subsets) || equality.Semantic.DeepEqual(Repack(current.Subsets), want.Subsets))
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

// endpointsAdded looks at what was there at the start: its Service may have gone
// while nobody watched. Later ones may be somebody's own, made before the Service.
func (c *Controller) endpointsAdded(object any, isInInitialList bool) {
	found, ok := object.(*corev1.Endpoints)
	if !ok || !isInInitialList {
		return
	}
	if _, elects := found.Annotations[resourcelock.LeaderElectionRecordAnnotationKey]; elects {
		return
	}
	c.queue.Add(found.Namespace + "/" + found.Name)
}

func (c *Controller) endpointsDeleted(object any) {
	if gone, ok := reconcile.Deleted[*corev1.Endpoints](object); ok {
		c.queue.Add(gone.Namespace + "/" + gone.Name)
	}
}
