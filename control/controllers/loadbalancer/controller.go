// Package loadbalancer gives Services of type LoadBalancer addresses of a pool:
// the service controller's role in a cluster without a cloud. In flow Services by
// informer, out flow their status. The proxies announce the addresses.
//
// Services with another loadBalancerClass than ours are somebody else's, and
// without a pool so are all; those that have an address of ours are told from
// others by an annotation.
package loadbalancer

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	corelisters "k8s.io/client-go/listers/core/v1"
	"k8s.io/client-go/tools/record"
	"k8s.io/utils/ptr"

	"github.com/skiff-run/skiff/control/controllers/reconcile"
	"github.com/skiff-run/skiff/internal/addresspool"
)

// finalizer keeps a service until its address is given back; it is Kubernetes'.
const finalizer = "service.kubernetes.io/load-balancer-cleanup"

// component is the source of events, by Kubernetes' name.
const component = "service-controller"

// marked is the value of the annotation addresspool.Mark.
const marked = "pool"

// Controller hands out the addresses of a pool.
type Controller struct {
	client   kubernetes.Interface
	services corelisters.ServiceLister
	pool     addresspool.Pool
	sources  []reconcile.Source
	queue    *reconcile.Queue[reconcile.Key]
	events   record.EventRecorder
	// held are the addresses and the services that have them; of the one worker.
	// It is newer than the informer.
	held   map[netip.Addr]reconcile.Key
	filled bool
}

// New returns a controller on the client and the informers, which the caller starts.
func New(client kubernetes.Interface, factory informers.SharedInformerFactory, pool addresspool.Pool, logger *slog.Logger) *Controller {
	services := factory.Core().V1().Services()
	c := &Controller{client: client, services: services.Lister(), pool: pool, held: map[netip.Addr]reconcile.Key{}}
	c.queue = reconcile.NewQueue("loadbalancer", 1, logger, c.reconcile)
	c.sources = []reconcile.Source{{Informer: services.Informer(), Handler: reconcile.Handler(
		func(s *corev1.Service) { c.queue.Add(reconcile.KeyOf(s)) },
		func(_, s *corev1.Service) { c.queue.Add(reconcile.KeyOf(s)) },
		func(s *corev1.Service) {
			c.queue.Add(reconcile.KeyOf(s))
			// Somebody may have waited for its address.
			c.wakeWaiting()
		},
	)}}
	return c
}

// Run works until ctx ends.
func (c *Controller) Run(ctx context.Context) error {
	recorder, stop := reconcile.StartEvents(c.client, component)
	defer stop()
	c.events = recorder
	return reconcile.Run(ctx, c.sources, c.queue)
}

// wakeWaiting has services looked at again that want an address and have none.
func (c *Controller) wakeWaiting() {
	services, err := c.services.List(labels.Everything())
	if err != nil {
		return
	}
	for _, s := range services {
		if c.wants(s) && len(s.Status.LoadBalancer.Ingress) == 0 {
			c.queue.Add(reconcile.KeyOf(s))
		}
	}
}

// wants says whether the service should have addresses of the pool.
func (c *Controller) wants(s *corev1.Service) bool {
	return len(c.pool) > 0 && s.Spec.Type == corev1.ServiceTypeLoadBalancer && s.DeletionTimestamp == nil &&
		ptr.Deref(s.Spec.LoadBalancerClass, addresspool.Class) == addresspool.Class
}

func ours(s *corev1.Service) bool { return s.Annotations[addresspool.Mark] == marked }

// ingress are the addresses that a service of ours has.
func ingress(s *corev1.Service) []netip.Addr {
	var out []netip.Addr
	for _, i := range s.Status.LoadBalancer.Ingress {
		if address, err := netip.ParseAddr(i.IP); err == nil {
			out = append(out, address)
		}
	}
	return out
}

// fill learns once who has what. Of two that have the same the older keeps it.
func (c *Controller) fill() error {
	if c.filled {
		return nil
	}
	services, err := c.services.List(labels.Everything())
	if err != nil {
		return fmt.Errorf("list services: %w", err)
	}
	slices.SortFunc(services, func(a, b *corev1.Service) int { return a.CreationTimestamp.Compare(b.CreationTimestamp.Time) })
	for _, s := range services {
		for _, address := range ingress(s) {
			if _, taken := c.held[address]; !taken && ours(s) {
				c.held[address] = reconcile.KeyOf(s)
			}
		}
	}
	c.filled = true
	return nil
}

func (c *Controller) reconcile(ctx context.Context, key reconcile.Key) error {
	if err := c.fill(); err != nil {
		return err
	}
	s, err := c.services.Services(key.Namespace).Get(key.Name)
	if apierrors.IsNotFound(err) {
		return c.release(ctx, key, nil)
	}
	if err != nil {
		return fmt.Errorf("read service: %w", err)
	}
	if !c.wants(s) {
		if !ours(s) {
			return nil
		}
		return c.takeBack(ctx, s)
	}
	addresses, err := c.choose(s)
	if err != nil {
		c.events.Eventf(s, corev1.EventTypeWarning, "SyncLoadBalancerFailed", "Error syncing load balancer: failed to ensure load balancer: %v", err)
		// It keeps what it has; a change or an address that comes free wakes it.
		return nil
	}
	changed := s.DeepCopy()
	metav1.SetMetaDataAnnotation(&changed.ObjectMeta, addresspool.Mark, marked)
	if !slices.Contains(changed.Finalizers, finalizer) {
		changed.Finalizers = append(changed.Finalizers, finalizer)
	}
	changed.Status.LoadBalancer.Ingress = nil
	for _, address := range addresses {
		changed.Status.LoadBalancer.Ingress = append(changed.Status.LoadBalancer.Ingress, corev1.LoadBalancerIngress{
			IP: address.String(), IPMode: ptr.To(corev1.LoadBalancerIPModeVIP),
		})
	}
	for _, address := range addresses {
		c.held[address] = key
	}
	if apiequality.Semantic.DeepEqual(s, changed) {
		return c.release(ctx, key, addresses)
	}
	c.events.Eventf(s, corev1.EventTypeNormal, "EnsuringLoadBalancer", "Ensuring load balancer")
	if err := c.write(ctx, changed); err != nil {
		return err
	}
	c.events.Eventf(s, corev1.EventTypeNormal, "EnsuredLoadBalancer", "Ensured load balancer")
	return c.release(ctx, key, addresses)
}

// write stores finalizer, annotation and status by one write.
func (c *Controller) write(ctx context.Context, s *corev1.Service) error {
	_, err := c.client.CoreV1().Services(s.Namespace).UpdateStatus(ctx, s, metav1.UpdateOptions{})
	if apierrors.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("update status of service: %w", err)
	}
	return nil
}

// takeBack ends what a service has of ours.
func (c *Controller) takeBack(ctx context.Context, s *corev1.Service) error {
	c.events.Eventf(s, corev1.EventTypeNormal, "DeletingLoadBalancer", "Deleting load balancer")
	changed := s.DeepCopy()
	changed.Status.LoadBalancer.Ingress = nil
	delete(changed.Annotations, addresspool.Mark)
	changed.Finalizers = slices.DeleteFunc(changed.Finalizers, func(f string) bool { return f == finalizer })
	if err := c.write(ctx, changed); err != nil {
		return err
	}
	c.events.Eventf(s, corev1.EventTypeNormal, "DeletedLoadBalancer", "Deleted load balancer")
	return c.release(ctx, reconcile.KeyOf(s), nil)
}

// release gives up the addresses of a service that it does not keep.
func (c *Controller) release(ctx context.Context, key reconcile.Key, keep []netip.Addr) error {
	var errs []error
	freed := false
	for address, holder := range c.held {
		if holder != key || slices.Contains(keep, address) {
			continue
		}
		err := c.client.CoordinationV1().Leases(addresspool.LeaseNamespace).Delete(ctx, addresspool.LeaseName(address), metav1.DeleteOptions{})
		if err != nil && !apierrors.IsNotFound(err) {
			errs = append(errs, fmt.Errorf("delete the lease of address %s: %w", address, err))
			continue
		}
		delete(c.held, address)
		freed = true
	}
	if freed {
		c.wakeWaiting()
	}
	return errors.Join(errs...)
}

// choose returns the addresses that the service should have: those that it has
// while they are right, or new ones, in the order of its families.
func (c *Controller) choose(s *corev1.Service) ([]netip.Addr, error) {
	requested, err := requests(s)
	if err != nil {
		return nil, err
	}
	families := s.Spec.IPFamilies
	if len(families) == 0 {
		families = []corev1.IPFamily{corev1.IPv4Protocol}
	}
	var out []netip.Addr
	for _, family := range families {
		address, err := c.one(s, family == corev1.IPv6Protocol, requested)
		if err != nil {
			// A service that would rather have both families gets what there is.
			if ptr.Deref(s.Spec.IPFamilyPolicy, "") == corev1.IPFamilyPolicyPreferDualStack && !c.pool.Has(family == corev1.IPv6Protocol) {
				continue
			}
			return nil, err
		}
		out = append(out, address)
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("the address pool has no range of the families %v", families)
	}
	for _, r := range requested {
		if !slices.Contains(out, r) {
			return nil, fmt.Errorf("requested address %s is of none of the service's families", r)
		}
	}
	return out, nil
}

// one returns the address of one family.
func (c *Controller) one(s *corev1.Service, six bool, requested []netip.Addr) (netip.Addr, error) {
	key := reconcile.KeyOf(s)
	free := func(address netip.Addr) bool {
		holder, taken := c.held[address]
		return !taken || holder == key
	}
	for _, address := range requested {
		switch {
		case address.Is6() != six:
			continue
		case !c.pool.Contains(address):
			return address, fmt.Errorf("requested address %s is not in the address pool", address)
		case !free(address):
			return address, fmt.Errorf("requested address %s is in use by service %s", address, c.held[address])
		}
		return address, nil
	}
	for _, address := range ingress(s) {
		if address.Is6() == six && c.pool.Contains(address) && free(address) {
			return address, nil
		}
	}
	address, found := c.pool.Free(six, func(a netip.Addr) bool { return !free(a) })
	if !found {
		family := corev1.IPv4Protocol
		if six {
			family = corev1.IPv6Protocol
		}
		if !c.pool.Has(six) {
			return address, fmt.Errorf("the address pool has no range of the family %s", family)
		}
		return address, fmt.Errorf("the address pool has no free address of the family %s", family)
	}
	return address, nil
}

// requests are the addresses that a service asks for.
func requests(s *corev1.Service) ([]netip.Addr, error) {
	text := s.Spec.LoadBalancerIP
	if annotation := s.Annotations[addresspool.Requested]; annotation != "" {
		text = annotation
	}
	var out []netip.Addr
	for _, each := range strings.FieldsFunc(text, func(r rune) bool { return r == ',' || r == ' ' }) {
		address, err := netip.ParseAddr(each)
		if err != nil {
			return nil, fmt.Errorf("requested address %q is no IP address", each)
		}
		out = append(out, address)
	}
	return out, nil
}
