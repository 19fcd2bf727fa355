// Package deployment rolls Deployments out through ReplicaSets:
// kube-controller-manager's deployment-controller.
//
// In flow Deployments, ReplicaSets and (for strategy Recreate) pods by informer;
// out flow ReplicaSets and their sizes, the Deployments' status and revision
// annotations, and events. How many replicas each ReplicaSet should have is
// decided by pure functions (rolling.go, proportion.go), progress and
// availability by others (status.go, progress.go). The package touches no pod.
package deployment

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
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
const Component = "deployment-controller"

// workers is how many Deployments are worked on at once.
const workers = 5

var kind = appsv1.SchemeGroupVersion.WithKind("Deployment")

// Controller rolls out Deployments.
type Controller struct {
	client      kubernetes.Interface
	deployments appslisters.DeploymentLister
	sets        appslisters.ReplicaSetLister
	pods        cache.Indexer
	sources     []reconcile.Source
	queue       *reconcile.Queue[reconcile.Key]
	events      record.EventRecorder
	logger      *slog.Logger
	now         func() time.Time
}

// New returns a controller on the client and the informers, which the caller
// starts.
func New(client kubernetes.Interface, factory informers.SharedInformerFactory, logger *slog.Logger) (*Controller, error) {
	deployments, sets, pods := factory.Apps().V1().Deployments(), factory.Apps().V1().ReplicaSets(), factory.Core().V1().Pods()
	if err := podstate.IndexByController(pods.Informer()); err != nil {
		return nil, err
	}
	c := &Controller{
		client: client, deployments: deployments.Lister(), sets: sets.Lister(),
		pods: pods.Informer().GetIndexer(), logger: logger, now: time.Now,
	}
	c.queue = reconcile.NewQueue("deployment", workers, logger, c.reconcile)
	c.sources = []reconcile.Source{
		{Informer: deployments.Informer(), Handler: reconcile.OnAny(c.enqueue)},
		{Informer: sets.Informer(), Handler: reconcile.Handler(c.setAdded, c.setUpdated, c.setDeleted)},
		{Informer: pods.Informer(), Handler: reconcile.Handler(nil, nil, c.podDeleted)},
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

// rollout is the work on one Deployment: the object as the informer knows it, a
// copy whose status and annotations take up what is found out, and its
// ReplicaSets.
type rollout struct {
	*Controller
	observed *appsv1.Deployment
	d        *appsv1.Deployment
	newSet   *appsv1.ReplicaSet
	oldSets  []*appsv1.ReplicaSet
}

// all returns the old sets and, if there is one, the new one.
func (r *rollout) all() []*appsv1.ReplicaSet {
	all := append([]*appsv1.ReplicaSet(nil), r.oldSets...)
	if r.newSet != nil {
		all = append(all, r.newSet)
	}
	return all
}

// reconcile takes one Deployment a step further.
func (c *Controller) reconcile(ctx context.Context, key reconcile.Key) error {
	observed, err := c.deployments.Deployments(key.Namespace).Get(key.Name)
	if apierrors.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read deployment: %w", err)
	}
	r := &rollout{Controller: c, observed: observed, d: observed.DeepCopy()}
	if equality.Semantic.DeepEqual(r.d.Spec.Selector, &metav1.LabelSelector{}) {
		c.events.Event(observed, corev1.EventTypeWarning, "SelectingAll", "This deployment is selecting all pods. A non-empty selector is required.")
		r.d.Status.ObservedGeneration = r.d.Generation
		return r.writeStatus(ctx)
	}
	sets, err := c.claimedSets(ctx, r.d)
	if err != nil {
		return err
	}
	r.newSet, r.oldSets = split(r.d, sets)
	if err := r.step(ctx); err != nil {
		// What was found out so far is told, even when the step failed.
		return errors.Join(err, r.tellFailure(ctx, err))
	}
	return nil
}

// step does what the Deployment's state calls for.
func (r *rollout) step(ctx context.Context) error {
	if r.d.DeletionTimestamp != nil {
		return r.finish(ctx)
	}
	r.notePaused()
	if r.d.Spec.Paused {
		return r.resize(ctx)
	}
	if revision, wanted := rollbackRevision(r.d); wanted {
		return r.rollback(ctx, revision)
	}
	if r.scaled() {
		return r.resize(ctx)
	}
	switch r.d.Spec.Strategy.Type {
	case appsv1.RecreateDeploymentStrategyType:
		return r.recreate(ctx)
	case appsv1.RollingUpdateDeploymentStrategyType:
		return r.roll(ctx)
	}
	return fmt.Errorf("unexpected deployment strategy type: %s", r.d.Spec.Strategy.Type)
}

// scaled tells whether the Deployment's size was changed since its ReplicaSets
// were last sized.
func (r *rollout) scaled() bool {
	for _, set := range active(r.all()) {
		if desired, known := desiredReplicas(set); known && desired != *r.d.Spec.Replicas {
			return true
		}
	}
	return false
}

// resize gives the sets their shares of the wanted size, without rolling on. It
// serves scaling and paused Deployments.
func (r *rollout) resize(ctx context.Context) error {
	if err := r.syncNewSet(ctx, false); err != nil {
		return err
	}
	for _, change := range proportional(r.d, r.newSet, r.oldSets) {
		if _, err := r.scaleSet(ctx, change.set, change.size, change.always); err != nil {
			return err
		}
	}
	if r.d.Spec.Paused {
		if err := r.cleanUp(ctx); err != nil {
			return err
		}
	}
	r.d.Status = newStatus(r.d, r.newSet, r.all(), r.now())
	return r.writeStatus(ctx)
}

// finish only keeps revision and status up to date.
func (r *rollout) finish(ctx context.Context) error {
	if err := r.syncNewSet(ctx, false); err != nil {
		return err
	}
	r.d.Status = newStatus(r.d, r.newSet, r.all(), r.now())
	return r.writeStatus(ctx)
}

// claimedSets returns the ReplicaSets that are the Deployment's, after adopting
// and releasing.
func (c *Controller) claimedSets(ctx context.Context, d *appsv1.Deployment) ([]*appsv1.ReplicaSet, error) {
	selector, err := metav1.LabelSelectorAsSelector(d.Spec.Selector)
	if err != nil {
		return nil, fmt.Errorf("deployment %s/%s has invalid label selector: %w", d.Namespace, d.Name, err)
	}
	sets, err := c.sets.ReplicaSets(d.Namespace).List(labels.Everything())
	if err != nil {
		return nil, fmt.Errorf("list replica sets: %w", err)
	}
	claim := ownership.Claim[*appsv1.ReplicaSet]{
		Owner: d, Kind: kind, Selector: selector,
		Reread: func(ctx context.Context) (metav1.Object, error) {
			return c.client.AppsV1().Deployments(d.Namespace).Get(ctx, d.Name, metav1.GetOptions{})
		},
		Patch: func(ctx context.Context, set *appsv1.ReplicaSet, patch []byte) error {
			_, err := c.client.AppsV1().ReplicaSets(set.Namespace).Patch(ctx, set.Name, types.StrategicMergePatchType, patch, metav1.PatchOptions{})
			return err
		},
	}
	return claim.Objects(ctx, sets)
}
