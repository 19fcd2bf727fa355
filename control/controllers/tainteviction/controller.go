// Package tainteviction deletes pods from nodes whose NoExecute taints they do not
// tolerate, or no longer: kube-controller-manager's taint-eviction-controller.
//
// In flow pods and nodes by informer; out flow deletions and events. When a pod
// has to go is decided by the pure function deadline. A taint that pods bear for a
// while counts from when this controller noticed it, by this process's own clock:
// what another machine wrote as the time may be an hour off, and while the control
// plane was away no node could have the taint taken off.
package tainteviction

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	corelisters "k8s.io/client-go/listers/core/v1"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/record"

	"github.com/skiff-run/skiff/control/controllers/podstate"
	"github.com/skiff-run/skiff/control/controllers/reconcile"
)

// Component is the controller's name in events.
const Component = "taint-eviction-controller"

const workers = 8

// Controller evicts pods from tainted nodes.
type Controller struct {
	client  kubernetes.Interface
	pods    corelisters.PodLister
	byNode  cache.Indexer
	nodes   corelisters.NodeLister
	sources []reconcile.Source
	queue   *reconcile.Queue[reconcile.Key]
	events  record.EventRecorder
	logger  *slog.Logger
	now     func() time.Time

	mu sync.Mutex // guards both maps
	// doomed has the pods whose deletion is due at a later time.
	doomed map[reconcile.Key]doom
	// noticed has when a taint was first seen.
	noticed map[taintID]time.Time
}

// doom says that a pod has to go, and since when.
type doom struct {
	pod   types.UID
	since time.Time
}

// taintID tells taints apart, and one from what was there before it was taken off
// and added anew.
type taintID struct {
	node       string
	key, value string
	added      int64
}

func idOf(node string, taint corev1.Taint) taintID {
	id := taintID{node: node, key: taint.Key, value: taint.Value}
	if taint.TimeAdded != nil {
		id.added = taint.TimeAdded.Unix()
	}
	return id
}

// New returns a controller on the client and the informers, which the caller
// starts.
func New(client kubernetes.Interface, factory informers.SharedInformerFactory, logger *slog.Logger) (*Controller, error) {
	pods, nodes := factory.Core().V1().Pods(), factory.Core().V1().Nodes()
	if err := podstate.IndexByNode(pods.Informer()); err != nil {
		return nil, err
	}
	c := &Controller{
		client: client, pods: pods.Lister(), byNode: pods.Informer().GetIndexer(), nodes: nodes.Lister(), logger: logger, now: time.Now,
		doomed: map[reconcile.Key]doom{}, noticed: map[taintID]time.Time{},
	}
	c.queue = reconcile.NewQueue("tainteviction", workers, logger, c.reconcile)
	c.sources = []reconcile.Source{
		{Informer: nodes.Informer(), Handler: reconcile.Handler(
			func(node *corev1.Node) { c.nodeChanged(nil, node) }, c.nodeChanged, func(node *corev1.Node) { c.nodeChanged(node, nil) })},
		{Informer: pods.Informer(), Handler: reconcile.Handler(
			func(pod *corev1.Pod) { c.podChanged(nil, pod) }, c.podChanged, func(pod *corev1.Pod) { c.queue.Add(reconcile.KeyOf(pod)) })},
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

// nodeChanged looks at a node's pods again when its NoExecute taints change.
func (c *Controller) nodeChanged(old, node *corev1.Node) {
	before, after := noExecute(old), noExecute(node)
	if equality.Semantic.DeepEqual(before, after) {
		return
	}
	name := ""
	switch {
	case node != nil:
		name = node.Name
	case old != nil:
		name = old.Name
	}
	c.notice(name, after)
	pods, err := podstate.OnNode(c.byNode, name)
	if err != nil {
		return
	}
	for _, pod := range pods {
		c.queue.Add(reconcile.KeyOf(pod))
	}
}

// podChanged looks at a pod that got a node or other tolerations.
func (c *Controller) podChanged(old, pod *corev1.Pod) {
	if pod.Spec.NodeName == "" {
		return
	}
	if old != nil && old.Spec.NodeName == pod.Spec.NodeName && equality.Semantic.DeepEqual(old.Spec.Tolerations, pod.Spec.Tolerations) {
		return
	}
	node, err := c.nodes.Get(pod.Spec.NodeName)
	if old != nil || (err == nil && len(noExecute(node)) > 0) {
		c.queue.Add(reconcile.KeyOf(pod))
	}
}

// notice keeps since when a node's taints are known.
func (c *Controller) notice(node string, taints []corev1.Taint) {
	c.mu.Lock()
	defer c.mu.Unlock()
	present := map[taintID]bool{}
	for _, taint := range taints {
		id := idOf(node, taint)
		present[id] = true
		if _, known := c.noticed[id]; !known {
			c.noticed[id] = c.now()
		}
	}
	for id := range c.noticed {
		if id.node == node && !present[id] {
			delete(c.noticed, id)
		}
	}
}

// since returns from when a node's taint counts.
func (c *Controller) since(node string, taint corev1.Taint) time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	if seen, known := c.noticed[idOf(node, taint)]; known {
		return seen
	}
	return c.now()
}

// came returns from when the pod's own time on the tainted node counts: since it
// has been known that it has to go.
func (c *Controller) came(key reconcile.Key, pod *corev1.Pod) time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	if known, is := c.doomed[key]; is && known.pod == pod.UID {
		return known.since
	}
	return c.now()
}

// reconcile deletes one pod if its time has come, or comes back when it has.
func (c *Controller) reconcile(ctx context.Context, key reconcile.Key) error {
	pod, err := c.pods.Pods(key.Namespace).Get(key.Name)
	if apierrors.IsNotFound(err) {
		c.cancel(key, nil)
		return nil
	}
	if err != nil {
		return fmt.Errorf("read pod: %w", err)
	}
	if pod.DeletionTimestamp != nil || pod.Spec.NodeName == "" {
		c.cancel(key, nil)
		return nil
	}
	node, err := c.nodes.Get(pod.Spec.NodeName)
	if err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("read node: %w", err)
	}
	came := c.came(key, pod)
	at, due := deadline(pod, came, noExecute(node), func(taint corev1.Taint) time.Time { return c.since(pod.Spec.NodeName, taint) })
	if !due {
		c.cancel(key, pod)
		return nil
	}
	if left := at.Sub(c.now()); left > 0 {
		c.mu.Lock()
		c.doomed[key] = doom{pod.UID, came}
		c.mu.Unlock()
		c.queue.AddAfter(key, left)
		return nil
	}
	c.cancel(key, nil)
	return c.evict(ctx, pod)
}

// cancel forgets that a pod was to be deleted, and tells so if there is a pod to
// tell about.
func (c *Controller) cancel(key reconcile.Key, pod *corev1.Pod) {
	c.mu.Lock()
	_, was := c.doomed[key]
	delete(c.doomed, key)
	c.mu.Unlock()
	if was && pod != nil {
		c.events.Eventf(pod, corev1.EventTypeNormal, "TaintManagerEviction", "Cancelling deletion of Pod %s", key.String())
	}
}

// evict marks a pod as disrupted and deletes it.
func (c *Controller) evict(ctx context.Context, pod *corev1.Pod) error {
	name := pod.Namespace + "/" + pod.Name
	c.logger.Info("deleting a pod because of its node's taints", "pod", name, "node", pod.Spec.NodeName)
	c.events.Eventf(pod, corev1.EventTypeNormal, "TaintManagerEviction", "Marking for deletion Pod %s", name)
	marked := pod.DeepCopy()
	if podstate.SetCondition(marked, corev1.PodCondition{
		Type: corev1.DisruptionTarget, Status: corev1.ConditionTrue,
		Reason: "DeletionByTaintManager", Message: "Taint manager: deleting due to NoExecute taint",
	}, c.now()) {
		err := podstate.PatchStatus(ctx, c.client, pod, marked)
		if apierrors.IsNotFound(err) {
			return nil
		}
		if err != nil {
			return err
		}
	}
	err := c.client.CoreV1().Pods(pod.Namespace).Delete(ctx, pod.Name, metav1.DeleteOptions{
		Preconditions: metav1.NewUIDPreconditions(string(pod.UID)),
	})
	if err != nil && !apierrors.IsNotFound(err) && !apierrors.IsConflict(err) {
		return fmt.Errorf("delete pod %s: %w", name, err)
	}
	return nil
}
