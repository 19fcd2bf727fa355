// Package nodelifecycle notices nodes that are no longer heard of and tells the
// cluster: kube-controller-manager's node-lifecycle-controller.
//
// In flow nodes, their leases and pods by informer; out flow node conditions
// (Unknown), taints, the readiness of a lost node's pods, so that no traffic goes
// there, and events. Whether a node is lost is decided against this process's own
// clock, from when a sign of life was last seen; what taints it should have, and
// whether its zone allows pods to be driven away, by pure functions. Deleting pods
// is tainteviction's part.
//
// When every node seems lost it is likelier that the control plane is: then nothing
// is driven away, and for a while after the first node is back neither.
package nodelifecycle

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	coordinationlisters "k8s.io/client-go/listers/coordination/v1"
	corelisters "k8s.io/client-go/listers/core/v1"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/record"

	"golang.org/x/time/rate"

	"github.com/skiff-run/skiff/control/controllers/podstate"
	"github.com/skiff-run/skiff/control/controllers/reconcile"
)

// Component is the controller's name in events.
const Component = "node-controller"

// Options are the times after which a node is given up, and how fast nodes may be.
type Options struct {
	// MonitorGrace is how long a node may be silent.
	MonitorGrace time.Duration
	// StartupGrace is how long a new node may take to report for the first time.
	StartupGrace time.Duration
	// EvictionRate is how many nodes per second and zone may be tainted so that their
	// pods go; ReducedRate the same while most of a large zone is lost.
	EvictionRate, ReducedRate float64
	// LargeZone is the size above which ReducedRate is used; in smaller zones nothing
	// is evicted while most of it is lost.
	LargeZone int
	// UnhealthyZone is the part of a zone's nodes that is "most".
	UnhealthyZone float64
}

// DefaultOptions are upstream's, but for a shorter grace period.
func DefaultOptions() Options {
	return Options{
		MonitorGrace: 15 * time.Second, StartupGrace: time.Minute,
		EvictionRate: 0.1, ReducedRate: 0.01, LargeZone: 50, UnhealthyZone: 0.55,
	}
}

// Controller watches over nodes.
type Controller struct {
	client  kubernetes.Interface
	nodes   corelisters.NodeLister
	leases  coordinationlisters.LeaseNamespaceLister
	pods    cache.Indexer
	options Options
	sources []reconcile.Source
	// queue has one worker, which alone touches known, limits, allLost
	// and (after the start) holdUntil.
	queue *reconcile.Queue[string]
	pulse pulse
	signs *signsOfLife
	known map[string]types.UID
	// limits bound how fast nodes are tainted, by zone.
	limits  map[string]*rate.Limiter
	allLost bool
	// holdUntil is before when no pods are driven away.
	holdUntil time.Time
	events    record.EventRecorder
	logger    *slog.Logger
	now       func() time.Time
}

// New returns a controller on the client and the informers, which the caller
// starts.
func New(client kubernetes.Interface, factory informers.SharedInformerFactory, options Options, logger *slog.Logger) (*Controller, error) {
	nodes, pods, leases := factory.Core().V1().Nodes(), factory.Core().V1().Pods(), factory.Coordination().V1().Leases()
	if err := podstate.IndexByNode(pods.Informer()); err != nil {
		return nil, err
	}
	c := &Controller{
		client: client, nodes: nodes.Lister(), leases: leases.Lister().Leases(corev1.NamespaceNodeLease), pods: pods.Informer().GetIndexer(),
		options: options, signs: newSignsOfLife(), pulse: pulse{every: options.MonitorGrace / pulsesPerGrace}, known: map[string]types.UID{}, limits: map[string]*rate.Limiter{}, logger: logger, now: time.Now,
	}
	c.queue = reconcile.NewQueue("nodelifecycle", 1, logger, c.reconcile)
	c.sources = []reconcile.Source{
		{Informer: nodes.Informer(), Handler: reconcile.Handler(c.nodeAdded, c.nodeUpdated, c.nodeDeleted)},
		{Informer: leases.Informer(), Handler: reconcile.Handler(c.leaseChanged, func(_, lease *coordinationv1.Lease) { c.leaseChanged(lease) }, nil)},
		{Informer: pods.Informer(), Handler: reconcile.Handler(
			func(pod *corev1.Pod) { c.podChanged(nil, pod) }, c.podChanged, nil)},
	}
	return c, nil
}

// Run works until ctx ends.
func (c *Controller) Run(ctx context.Context) error {
	recorder, stop := reconcile.StartEvents(c.client, Component)
	defer stop()
	c.events = recorder
	// Every node gets the chance to report to this leader.
	c.holdUntil = c.now().Add(c.options.MonitorGrace)
	c.pulse.start(c.now())
	ctx, cancel := context.WithCancel(ctx)
	var feeling sync.WaitGroup
	defer feeling.Wait()
	defer cancel()
	feeling.Go(func() { c.feelPulse(ctx) })
	return reconcile.Run(ctx, c.sources, c.queue)
}

func (c *Controller) nodeAdded(node *corev1.Node) { c.nodeUpdated(nil, node) }

// nodeUpdated takes a new heartbeat as a sign of life and has the node looked at
// when something else changed.
func (c *Controller) nodeUpdated(old, node *corev1.Node) {
	c.signs.condition(node, c.now())
	if old == nil || concerns(old, node) {
		c.queue.Add(node.Name)
	}
	if old == nil || status(old, corev1.NodeReady) != status(node, corev1.NodeReady) {
		c.wakeUnready(node.Name)
	}
}

func (c *Controller) nodeDeleted(node *corev1.Node) {
	c.queue.Add(node.Name)
	c.wakeUnready(node.Name)
}

// leaseChanged takes a renewed lease as a sign of life. It costs no work as long as
// the node is well: the deadline that is already set will find it.
func (c *Controller) leaseChanged(lease *coordinationv1.Lease) {
	if lease.Namespace == corev1.NamespaceNodeLease {
		c.signs.lease(lease, c.now())
	}
}

// podChanged looks at a node that gets a pod though it is lost, or whose lost pod
// says that it is ready.
func (c *Controller) podChanged(old, pod *corev1.Pod) {
	if pod.Spec.NodeName == "" || !podstate.Ready(pod) || (old != nil && podstate.Ready(old) && old.Spec.NodeName == pod.Spec.NodeName) {
		return
	}
	if node, err := c.nodes.Get(pod.Spec.NodeName); err == nil && status(node, corev1.NodeReady) == corev1.ConditionUnknown {
		c.queue.Add(node.Name)
	}
}

// reconcile looks at one node.
func (c *Controller) reconcile(ctx context.Context, name string) error {
	node, err := c.nodes.Get(name)
	if apierrors.IsNotFound(err) {
		c.forget(name)
		return nil
	}
	if err != nil {
		return fmt.Errorf("read node: %w", err)
	}
	c.meet(node)
	now := c.now()
	c.forgivePause(now)
	seen := c.signs.seen(node, now)
	silence, grace := now.Sub(seen), c.grace(node)
	if silence > grace && needsUnknown(node) {
		gaveUp, err := c.giveUp(ctx, node)
		if err != nil || gaveUp {
			// What follows from it is done when the informer shows it.
			return err
		}
		seen = now
		silence = 0
	}
	if left := grace - silence; left > 0 {
		c.queue.AddAfter(name, left+time.Millisecond)
	}
	if status(node, corev1.NodeReady) == corev1.ConditionUnknown {
		if err := c.unreadyPods(ctx, node); err != nil {
			return err
		}
	}
	return c.keepTaints(ctx, node, now)
}

// grace returns how long the node may be silent.
func (c *Controller) grace(node *corev1.Node) time.Duration {
	if condition(node, corev1.NodeReady) == nil {
		return c.options.StartupGrace
	}
	return c.options.MonitorGrace
}

// meet tells that a node is new.
func (c *Controller) meet(node *corev1.Node) {
	if c.known[node.Name] == node.UID {
		return
	}
	c.known[node.Name] = node.UID
	c.events.Eventf(reference(node.Name, node.UID), corev1.EventTypeNormal, "RegisteredNode",
		"Node %s event: Registered Node %s in Controller", node.Name, node.Name)
}

// forget tells that a node is gone.
func (c *Controller) forget(name string) {
	uid, known := c.known[name]
	if !known {
		return
	}
	delete(c.known, name)
	c.signs.forget(name)
	c.events.Eventf(reference(name, uid), corev1.EventTypeNormal, "RemovingNode",
		"Node %s event: Removing Node %s from Controller", name, name)
}

func reference(name string, uid types.UID) *corev1.ObjectReference {
	return &corev1.ObjectReference{APIVersion: "v1", Kind: "Node", Name: name, UID: uid}
}
