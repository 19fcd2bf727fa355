// Package endpointslicemirroring copies Endpoints that people write for Services
// without a selector into EndpointSlices, which is what proxies read:
// kube-controller-manager's endpointslice-mirroring-controller.
//
// In flow Services, Endpoints and EndpointSlices by informer; out flow
// EndpointSlices, one per address family and set of ports, as the pure function
// mirror decides.
package endpointslicemirroring

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	corelisters "k8s.io/client-go/listers/core/v1"
	discoverylisters "k8s.io/client-go/listers/discovery/v1"
	"k8s.io/client-go/tools/record"
	sliceutil "k8s.io/endpointslice/util"

	"github.com/skiff-run/skiff/control/controllers/reconcile"
)

// Component is the controller's name in events; ManagedBy marks its slices.
const (
	Component = "endpoint-slice-mirroring-controller"
	ManagedBy = "endpointslicemirroring-controller.k8s.io"
)

const (
	workers = 2
	// foreignChange is how long Endpoints wait after somebody else changed one of
	// their slices.
	foreignChange = time.Second
)

// Controller mirrors Endpoints.
type Controller struct {
	client    kubernetes.Interface
	services  corelisters.ServiceLister
	endpoints corelisters.EndpointsLister
	slices    discoverylisters.EndpointSliceLister
	sources   []reconcile.Source
	queue     *reconcile.Queue[reconcile.Key]
	// tracker knows what was written and is not shown by the informer yet.
	tracker *sliceutil.EndpointSliceTracker
	events  record.EventRecorder

	mu sync.Mutex // guards told
	// told has the version of Endpoints about whose flaws an event was recorded.
	told map[reconcile.Key]string
}

// New returns a controller on the client and the informers, which the caller
// starts.
func New(client kubernetes.Interface, factory informers.SharedInformerFactory, logger *slog.Logger) *Controller {
	services, endpoints, slices := factory.Core().V1().Services(), factory.Core().V1().Endpoints(), factory.Discovery().V1().EndpointSlices()
	c := &Controller{
		client: client, services: services.Lister(), endpoints: endpoints.Lister(), slices: slices.Lister(),
		tracker: sliceutil.NewEndpointSliceTracker(), told: map[reconcile.Key]string{},
	}
	c.queue = reconcile.NewQueue("endpointslicemirroring", workers, logger, c.reconcile)
	c.sources = []reconcile.Source{
		{Informer: services.Informer(), Handler: reconcile.Handler(c.serviceChanged, c.serviceUpdated, c.serviceChanged)},
		{Informer: endpoints.Informer(), Handler: reconcile.Handler(c.endpointsChanged, c.endpointsUpdated, c.endpointsChanged)},
		{Informer: slices.Informer(), Handler: reconcile.Handler(c.sliceChanged, func(_, slice *discoveryv1.EndpointSlice) { c.sliceChanged(slice) }, c.sliceDeleted)},
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

func (c *Controller) serviceChanged(service *corev1.Service) {
	if service.Spec.Selector == nil {
		c.queue.Add(reconcile.KeyOf(service))
	}
}

func (c *Controller) serviceUpdated(old, service *corev1.Service) {
	if (old.Spec.Selector == nil) != (service.Spec.Selector == nil) {
		c.queue.Add(reconcile.KeyOf(service))
	}
}

func (c *Controller) endpointsChanged(endpoints *corev1.Endpoints) {
	if wanted(endpoints) {
		c.queue.Add(reconcile.KeyOf(endpoints))
	}
}

func (c *Controller) endpointsUpdated(old, endpoints *corev1.Endpoints) {
	if wanted(old) || wanted(endpoints) {
		c.queue.Add(reconcile.KeyOf(endpoints))
	}
}

func (c *Controller) sliceChanged(slice *discoveryv1.EndpointSlice) {
	if ours(slice) && c.tracker.ShouldSync(slice) {
		c.wake(slice)
	}
}

func (c *Controller) sliceDeleted(slice *discoveryv1.EndpointSlice) {
	if ours(slice) && c.tracker.Has(slice) && !c.tracker.HandleDeletion(slice) {
		c.wake(slice)
	}
}

func (c *Controller) wake(slice *discoveryv1.EndpointSlice) {
	if name := slice.Labels[discoveryv1.LabelServiceName]; name != "" {
		c.queue.AddAfter(reconcile.Key{Namespace: slice.Namespace, Name: name}, foreignChange)
	}
}

func ours(slice *discoveryv1.EndpointSlice) bool {
	return slice.Labels[discoveryv1.LabelManagedBy] == ManagedBy
}

// reconcile brings the slices of one Endpoints object in order.
func (c *Controller) reconcile(ctx context.Context, key reconcile.Key) error {
	existing, err := c.slices.EndpointSlices(key.Namespace).List(labels.SelectorFromSet(labels.Set{
		discoveryv1.LabelServiceName: key.Name, discoveryv1.LabelManagedBy: ManagedBy,
	}))
	if err != nil {
		return fmt.Errorf("list endpoint slices: %w", err)
	}
	service, err := c.services.Services(key.Namespace).Get(key.Name)
	if err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("read service: %w", err)
	}
	noService := err != nil
	endpoints, err := c.endpoints.Endpoints(key.Namespace).Get(key.Name)
	if err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("read endpoints: %w", err)
	}
	if noService || err != nil || !wanted(endpoints) || service.Spec.Selector != nil {
		c.tracker.DeleteService(key.Namespace, key.Name)
		c.mu.Lock()
		delete(c.told, key)
		c.mu.Unlock()
		return c.write(ctx, key, nil, existing)
	}
	if c.tracker.StaleSlices(service, existing) {
		return fmt.Errorf("mirrored slices of %s: %w", key, reconcile.ErrBehind)
	}
	desired, flaws := mirror(endpoints)
	c.tell(key, endpoints, flaws)
	return c.write(ctx, key, desired, existing)
}

// write creates, updates and deletes slices until those that exist are those that
// are desired.
func (c *Controller) write(ctx context.Context, key reconcile.Key, desired map[string]*discoveryv1.EndpointSlice, existing []*discoveryv1.EndpointSlice) error {
	client := c.client.DiscoveryV1().EndpointSlices(key.Namespace)
	var failures []error
	done := map[string]bool{}
	for _, slice := range existing {
		id := identity(slice.AddressType, slice.Ports)
		want := desired[id]
		if want == nil || done[id] {
			c.tracker.ExpectDeletion(slice)
			if err := client.Delete(ctx, slice.Name, metav1.DeleteOptions{}); err != nil && !apierrors.IsNotFound(err) {
				failures = append(failures, fmt.Errorf("delete slice %s: %w", slice.Name, err))
			}
			continue
		}
		done[id] = true
		if equality.Semantic.DeepEqual(want.Endpoints, slice.Endpoints) && equality.Semantic.DeepEqual(want.Labels, slice.Labels) &&
			equality.Semantic.DeepEqual(want.Annotations, slice.Annotations) {
			continue
		}
		changed := slice.DeepCopy()
		changed.Endpoints, changed.Labels, changed.Annotations = want.Endpoints, want.Labels, want.Annotations
		updated, err := client.Update(ctx, changed, metav1.UpdateOptions{})
		if err != nil {
			failures = append(failures, fmt.Errorf("update slice %s: %w", slice.Name, err))
			continue
		}
		c.tracker.Update(updated)
	}
	for id, want := range desired {
		if done[id] {
			continue
		}
		created, err := client.Create(ctx, want, metav1.CreateOptions{})
		if err != nil {
			if apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause) {
				return nil
			}
			failures = append(failures, fmt.Errorf("create slice: %w", err))
			continue
		}
		c.tracker.Update(created)
	}
	return errors.Join(failures...)
}

// tell tells about addresses that are not mirrored, once per version of the
// object.
func (c *Controller) tell(key reconcile.Key, endpoints *corev1.Endpoints, found flaws) {
	c.mu.Lock()
	known := c.told[key] == endpoints.ResourceVersion
	c.told[key] = endpoints.ResourceVersion
	c.mu.Unlock()
	if known {
		return
	}
	if found.invalid > 0 {
		c.events.Eventf(endpoints, corev1.EventTypeWarning, "InvalidIPAddress",
			"Skipped %d invalid IP addresses when mirroring to EndpointSlices", found.invalid)
	}
	if found.skipped > found.invalid {
		c.events.Eventf(endpoints, corev1.EventTypeWarning, "TooManyAddressesToMirror",
			"A max of %d addresses can be mirrored to EndpointSlices per Endpoints subset. %d addresses were skipped", perSubset, found.skipped)
	}
}
