// Package namespace empties namespaces that are being deleted and lets them go:
// kube-controller-manager's namespace-controller.
//
// In flow namespaces and pods by informer and the list of served resources by
// discovery; out flow deletions of whatever the namespace contains, conditions
// that tell what is in the way, and at last the finalization. Contents are
// handled as metadata, so any kind of object will do. Pods go first
// (KEP-5080), so that nothing running loses what it relies on.
package namespace

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	corelisters "k8s.io/client-go/listers/core/v1"
	"k8s.io/client-go/metadata"

	"github.com/skiff-run/skiff/control/controllers/reconcile"
)

const (
	workers = 5
	// settle is how long after its deletion a namespace is looked through for the
	// last time: until then an API server may not have heard that nothing is to be
	// created in it. It is two because the API's times have no fractions.
	settle = 2 * time.Second
	// A namespace whose contents have finalizers is looked at again after a quarter
	// of the time it has been waiting, within these bounds.
	shortestWait = 500 * time.Millisecond
	longestWait  = 8 * time.Second
)

// Controller empties namespaces.
type Controller struct {
	client     kubernetes.Interface
	metadata   metadata.Interface
	namespaces corelisters.NamespaceLister
	pods       corelisters.PodLister
	sources    []reconcile.Source
	queue      *reconcile.Queue[string]
	logger     *slog.Logger
	now        func() time.Time
}

// New returns a controller on the clients and the informers, which the caller
// starts.
func New(client kubernetes.Interface, contents metadata.Interface, factory informers.SharedInformerFactory, logger *slog.Logger) *Controller {
	namespaces, pods := factory.Core().V1().Namespaces(), factory.Core().V1().Pods()
	c := &Controller{
		client: client, metadata: contents, namespaces: namespaces.Lister(), pods: pods.Lister(), logger: logger, now: time.Now,
	}
	c.queue = reconcile.NewQueue("namespace", workers, logger, c.reconcile)
	c.sources = []reconcile.Source{
		{Informer: namespaces.Informer(), Handler: reconcile.Handler(c.changed, func(_, ns *corev1.Namespace) { c.changed(ns) }, nil)},
		{Informer: pods.Informer(), Handler: reconcile.Handler(nil, nil, c.podDeleted)},
	}
	return c
}

// Run works until ctx ends.
func (c *Controller) Run(ctx context.Context) error {
	return reconcile.Run(ctx, c.sources, c.queue)
}

func (c *Controller) changed(ns *corev1.Namespace) {
	if ns.DeletionTimestamp != nil {
		c.queue.Add(ns.Name)
	}
}

// podDeleted goes on with a namespace at once when a pod it waited for is gone.
func (c *Controller) podDeleted(pod *corev1.Pod) {
	if ns, err := c.namespaces.Get(pod.Namespace); err == nil {
		c.changed(ns)
	}
}

// reconcile takes the deletion of one namespace as far as it goes.
func (c *Controller) reconcile(ctx context.Context, name string) error {
	known, err := c.namespaces.Get(name)
	if apierrors.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read namespace: %w", err)
	}
	if known.DeletionTimestamp == nil {
		return nil
	}
	ns := known.DeepCopy()
	if ns.Status.Phase != corev1.NamespaceTerminating {
		ns.Status.Phase = corev1.NamespaceTerminating
		if ns, err = c.client.CoreV1().Namespaces().UpdateStatus(ctx, ns, metav1.UpdateOptions{}); err != nil {
			return ignoreGone("update status", err)
		}
	}
	if !holdsFinalizer(ns) {
		return nil
	}
	deletedFor := c.now().Sub(ns.DeletionTimestamp.Time)
	found := c.empty(ctx, ns)
	if ns, err = c.tell(ctx, ns, found); err != nil {
		return ignoreGone("update status", err)
	}
	if err := found.failure(); err != nil {
		return err
	}
	if found.left() {
		c.queue.AddAfter(name, min(max(deletedFor/4, shortestWait), longestWait))
		return nil
	}
	if deletedFor < settle {
		c.queue.AddAfter(name, settle-deletedFor)
		return nil
	}
	return c.finalize(ctx, ns)
}

// holdsFinalizer tells whether Kubernetes' finalizer is still on the namespace.
func holdsFinalizer(ns *corev1.Namespace) bool {
	for _, finalizer := range ns.Spec.Finalizers {
		if finalizer == corev1.FinalizerKubernetes {
			return true
		}
	}
	return false
}

// finalize takes Kubernetes' finalizer off, which removes the namespace unless
// somebody else has one on it.
func (c *Controller) finalize(ctx context.Context, ns *corev1.Namespace) error {
	ns = ns.DeepCopy()
	var rest []corev1.FinalizerName
	for _, finalizer := range ns.Spec.Finalizers {
		if finalizer != corev1.FinalizerKubernetes {
			rest = append(rest, finalizer)
		}
	}
	ns.Spec.Finalizers = rest
	_, err := c.client.CoreV1().Namespaces().Finalize(ctx, ns, metav1.UpdateOptions{})
	return ignoreGone("finalize", err)
}

func ignoreGone(what string, err error) error {
	if err == nil || apierrors.IsNotFound(err) {
		return nil
	}
	return fmt.Errorf("%s: %w", what, err)
}
