// Package replicaset keeps as many pods running as every ReplicaSet asks for:
// kube-controller-manager's replicaset-controller.
//
// In flow ReplicaSets and pods by informer; out flow pod creations, deletions and
// adoptions, the ReplicaSets' status, and events. Which pod is deleted first is
// decided by the pure function victims, the status by the pure function
// newStatus. The package does not know what made the ReplicaSet.
package replicaset

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	appslisters "k8s.io/client-go/listers/apps/v1"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/record"

	"github.com/skiff-run/skiff/control/controllers/ownership"
	"github.com/skiff-run/skiff/control/controllers/podstate"
	"github.com/skiff-run/skiff/control/controllers/reconcile"
)

// Component is the controller's name in events.
const Component = "replicaset-controller"

// workers is how many ReplicaSets are worked on at once.
const workers = 5

var kind = appsv1.SchemeGroupVersion.WithKind("ReplicaSet")

// Controller keeps ReplicaSets' pods.
type Controller struct {
	client   kubernetes.Interface
	sets     appslisters.ReplicaSetLister
	pods     cache.Indexer
	sources  []reconcile.Source
	queue    *reconcile.Queue[reconcile.Key]
	expected *expectations
	events   record.EventRecorder
	logger   *slog.Logger
	now      func() time.Time
}

// New returns a controller on the client and the informers, which the caller
// starts.
func New(client kubernetes.Interface, factory informers.SharedInformerFactory, logger *slog.Logger) (*Controller, error) {
	sets, pods := factory.Apps().V1().ReplicaSets(), factory.Core().V1().Pods()
	if err := podstate.IndexByController(pods.Informer()); err != nil {
		return nil, err
	}
	c := &Controller{
		client: client, sets: sets.Lister(), pods: pods.Informer().GetIndexer(),
		expected: newExpectations(time.Now), logger: logger, now: time.Now,
	}
	c.queue = reconcile.NewQueue("replicaset", workers, logger, c.reconcile)
	c.sources = []reconcile.Source{
		{Informer: sets.Informer(), Handler: reconcile.Handler(c.setChanged, c.setUpdated, c.setDeleted)},
		{Informer: pods.Informer(), Handler: reconcile.Handler(c.podAdded, c.podUpdated, c.podDeleted)},
	}
	return c, nil
}

// Run works until ctx ends.
func (c *Controller) Run(ctx context.Context) error {
	recorder, stop := reconcile.StartEvents(c.client, Component)
	defer stop()
	c.events = recorder
	return reconcile.Run(ctx, c.sources, c.queue)
}

// reconcile brings one ReplicaSet's pods and its status in order.
func (c *Controller) reconcile(ctx context.Context, key reconcile.Key) error {
	set, err := c.sets.ReplicaSets(key.Namespace).Get(key.Name)
	if apierrors.IsNotFound(err) {
		c.expected.forget(key)
		return nil
	}
	if err != nil {
		return fmt.Errorf("read replica set: %w", err)
	}
	selector, err := metav1.LabelSelectorAsSelector(set.Spec.Selector)
	if err != nil {
		c.logger.Warn("a replica set's selector is invalid; it is left alone", "replicaSet", key, "error", err)
		return nil
	}
	// Asked before the pods are read: what is seen later is in the pods as well.
	wait := c.expected.wait(key)
	active, terminating, err := c.claimedPods(ctx, set, selector)
	if err != nil {
		return err
	}
	var failure error
	if wait == 0 && set.DeletionTimestamp == nil {
		failure = c.scale(ctx, set, active)
	}
	if wait > 0 {
		// An event will come before this; if it never does, the set must not hang.
		c.queue.AddAfter(key, wait+time.Second)
	}
	now := c.now()
	updated, err := c.writeStatus(ctx, set, newStatus(set, active, terminating, failure, now))
	if err != nil {
		return err
	}
	if failure != nil {
		return failure
	}
	if next := nextAvailability(active, updated, now); next > 0 {
		c.queue.AddAfter(key, next)
	}
	return nil
}

// claimedPods returns the set's active pods, after adopting and releasing, and
// those of its pods that are on their way out.
func (c *Controller) claimedPods(ctx context.Context, set *appsv1.ReplicaSet, selector labels.Selector) (active, terminating []*corev1.Pod, err error) {
	own, err := podstate.ControlledBy(c.pods, set.UID)
	if err != nil {
		return nil, nil, err
	}
	orphans, err := podstate.Orphans(c.pods, set.Namespace)
	if err != nil {
		return nil, nil, err
	}
	candidates := make([]*corev1.Pod, 0, len(own))
	for _, pod := range own {
		switch {
		case podstate.Active(pod):
			candidates = append(candidates, pod)
		case podstate.Terminating(pod) && selector.Matches(labels.Set(pod.Labels)):
			terminating = append(terminating, pod)
		}
	}
	for _, pod := range orphans {
		if podstate.Active(pod) {
			candidates = append(candidates, pod)
		}
	}
	claim := ownership.Claim[*corev1.Pod]{
		Owner: set, Kind: kind, Selector: selector,
		Reread: func(ctx context.Context) (metav1.Object, error) {
			return c.client.AppsV1().ReplicaSets(set.Namespace).Get(ctx, set.Name, metav1.GetOptions{})
		},
		Patch: func(ctx context.Context, pod *corev1.Pod, patch []byte) error {
			_, err := c.client.CoreV1().Pods(pod.Namespace).Patch(ctx, pod.Name, types.StrategicMergePatchType, patch, metav1.PatchOptions{})
			return err
		},
	}
	active, err = claim.Objects(ctx, candidates)
	return active, terminating, err
}

// nextAvailability returns after which time a ready pod may have become
// available; zero when no clock needs to be watched.
func nextAvailability(active []*corev1.Pod, set *appsv1.ReplicaSet, now time.Time) time.Duration {
	minReady := time.Duration(set.Spec.MinReadySeconds) * time.Second
	if minReady == 0 || set.Status.ReadyReplicas == set.Status.AvailableReplicas {
		return 0
	}
	next := minReady
	for _, pod := range active {
		since := podstate.ReadySince(pod)
		if since.IsZero() {
			continue
		}
		if left := since.Add(minReady).Sub(now); left > 0 {
			next = min(next, left)
		}
	}
	return next
}
