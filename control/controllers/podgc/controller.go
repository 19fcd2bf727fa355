// Package podgc removes pods that nobody else will: kube-controller-manager's
// pod-garbage-collector-controller.
//
// In flow pods and nodes by informer; out flow forced deletions of pods whose node
// is gone, of pods being deleted that never got a node, of pods being deleted on a
// node which an operator has declared out of service, and of the oldest finished
// pods beyond a threshold. Pods of a node that is gone are removed only after a
// quarantine and after the API has confirmed it.
package podgc

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	corelisters "k8s.io/client-go/listers/core/v1"
	"k8s.io/client-go/tools/cache"

	"github.com/skiff-run/skiff/control/controllers/podstate"
	"github.com/skiff-run/skiff/control/controllers/reconcile"
)

// Threshold is how many finished pods are kept by default.
const Threshold = 12500

const (
	// quarantine is how long after a node's disappearance its pods are left alone.
	quarantine = 40 * time.Second
	// countDelay bounds how often finished pods are counted.
	countDelay = 20 * time.Second
)

// task is what the queue holds: a pod or a node to look at, or, when it is empty,
// the finished pods to count.
type task struct {
	pod  reconcile.Key
	node string
}

// Controller removes pods.
type Controller struct {
	client    kubernetes.Interface
	pods      corelisters.PodLister
	byNode    cache.Indexer
	nodes     corelisters.NodeLister
	threshold int
	sources   []reconcile.Source
	queue     *reconcile.Queue[task]
	logger    *slog.Logger
}

// New returns a controller that keeps threshold finished pods (all, if it is not
// positive), on the client and the informers, which the caller starts.
func New(client kubernetes.Interface, factory informers.SharedInformerFactory, threshold int, logger *slog.Logger) (*Controller, error) {
	pods, nodes := factory.Core().V1().Pods(), factory.Core().V1().Nodes()
	if err := podstate.IndexByNode(pods.Informer()); err != nil {
		return nil, err
	}
	c := &Controller{
		client: client, pods: pods.Lister(), byNode: pods.Informer().GetIndexer(), nodes: nodes.Lister(),
		threshold: threshold, logger: logger,
	}
	c.queue = reconcile.NewQueue("podgc", 4, logger, c.reconcile)
	c.sources = []reconcile.Source{
		{Informer: nodes.Informer(), Handler: reconcile.Handler(nil, c.nodeUpdated, c.nodeGone)},
		{Informer: pods.Informer(), Handler: reconcile.Handler(
			func(pod *corev1.Pod) { c.podChanged(nil, pod) }, c.podChanged, nil)},
	}
	return c, nil
}

// Run works until ctx ends.
func (c *Controller) Run(ctx context.Context) error {
	return reconcile.Run(ctx, c.sources, c.queue)
}

func (c *Controller) nodeGone(node *corev1.Node) {
	c.queue.AddAfter(task{node: node.Name}, quarantine)
}

func (c *Controller) nodeUpdated(_, node *corev1.Node) {
	if outOfService(node) {
		c.queue.Add(task{node: node.Name})
	}
}

func (c *Controller) podChanged(old, pod *corev1.Pod) {
	if podstate.Finished(pod) && (old == nil || !podstate.Finished(old)) {
		c.queue.AddAfter(task{}, countDelay)
	}
	if pod.DeletionTimestamp != nil {
		c.queue.Add(task{pod: reconcile.KeyOf(pod)})
	}
	if pod.Spec.NodeName == "" || (old != nil && old.Spec.NodeName == pod.Spec.NodeName) {
		return
	}
	if _, err := c.nodes.Get(pod.Spec.NodeName); apierrors.IsNotFound(err) {
		c.queue.AddAfter(task{node: pod.Spec.NodeName}, quarantine)
	}
}

func (c *Controller) reconcile(ctx context.Context, todo task) error {
	switch {
	case todo.node != "":
		return c.lookAtNode(ctx, todo.node)
	case todo.pod.Name != "":
		return c.lookAtPod(ctx, todo.pod)
	}
	return c.trim(ctx)
}

// lookAtNode removes the pods of a node that is gone, and those on their way out
// of one that is out of service.
func (c *Controller) lookAtNode(ctx context.Context, name string) error {
	pods, err := podstate.OnNode(c.byNode, name)
	if err != nil {
		return err
	}
	var condition *corev1.PodCondition
	node, err := c.nodes.Get(name)
	switch {
	case apierrors.IsNotFound(err):
		if len(pods) == 0 {
			return nil
		}
		// The informer may be late, and the node only just be back.
		if _, err := c.client.CoreV1().Nodes().Get(ctx, name, metav1.GetOptions{}); !apierrors.IsNotFound(err) {
			return err
		}
		condition = &corev1.PodCondition{
			Type: corev1.DisruptionTarget, Status: corev1.ConditionTrue,
			Reason: "DeletionByPodGC", Message: "PodGC: node no longer exists",
		}
	case err != nil:
		return fmt.Errorf("read node: %w", err)
	case !outOfService(node):
		return nil
	default:
		pods = slices.DeleteFunc(pods, func(pod *corev1.Pod) bool { return pod.DeletionTimestamp == nil })
	}
	var failures []error
	for _, pod := range pods {
		failures = append(failures, c.remove(ctx, pod, condition))
	}
	return errors.Join(failures...)
}

// lookAtPod removes a pod being deleted when no agent will finish that.
func (c *Controller) lookAtPod(ctx context.Context, key reconcile.Key) error {
	pod, err := c.pods.Pods(key.Namespace).Get(key.Name)
	if apierrors.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read pod: %w", err)
	}
	if pod.DeletionTimestamp == nil {
		return nil
	}
	if pod.Spec.NodeName != "" {
		node, err := c.nodes.Get(pod.Spec.NodeName)
		if err != nil || !outOfService(node) {
			return nil
		}
	}
	return c.remove(ctx, pod, nil)
}

// trim removes the oldest finished pods beyond the threshold, evicted ones first.
func (c *Controller) trim(ctx context.Context) error {
	pods, err := c.pods.List(labels.Everything())
	if err != nil {
		return fmt.Errorf("list pods: %w", err)
	}
	var failures []error
	for _, pod := range surplus(pods, c.threshold) {
		failures = append(failures, c.remove(ctx, pod, nil))
	}
	return errors.Join(failures...)
}

// surplus returns which finished pods go when threshold of them are kept.
func surplus(pods []*corev1.Pod, threshold int) []*corev1.Pod {
	finished := slices.DeleteFunc(slices.Clone(pods), func(pod *corev1.Pod) bool { return !podstate.Finished(pod) })
	if threshold <= 0 || len(finished) <= threshold {
		return nil
	}
	slices.SortFunc(finished, func(a, b *corev1.Pod) int {
		if evicted(a) != evicted(b) {
			if evicted(a) {
				return -1
			}
			return 1
		}
		return cmp.Or(a.CreationTimestamp.Compare(b.CreationTimestamp.Time), cmp.Compare(a.Name, b.Name))
	})
	return finished[:len(finished)-threshold]
}

func evicted(pod *corev1.Pod) bool {
	return pod.Status.Phase == corev1.PodFailed && pod.Status.Reason == "Evicted"
}

// remove marks a pod failed, unless it has finished, and deletes it at once.
func (c *Controller) remove(ctx context.Context, pod *corev1.Pod, condition *corev1.PodCondition) error {
	if !podstate.Finished(pod) {
		failed := pod.DeepCopy()
		failed.Status.Phase = corev1.PodFailed
		failed.Status.ObservedGeneration = pod.Generation
		if condition != nil {
			podstate.SetCondition(failed, *condition, time.Now())
		}
		err := podstate.PatchStatus(ctx, c.client, pod, failed)
		if apierrors.IsNotFound(err) {
			return nil
		}
		if err != nil {
			return err
		}
	}
	options := metav1.NewDeleteOptions(0)
	options.Preconditions = metav1.NewUIDPreconditions(string(pod.UID))
	err := c.client.CoreV1().Pods(pod.Namespace).Delete(ctx, pod.Name, *options)
	if err != nil && !apierrors.IsNotFound(err) && !apierrors.IsConflict(err) {
		return fmt.Errorf("delete pod %s/%s: %w", pod.Namespace, pod.Name, err)
	}
	c.logger.Info("a pod that nobody looks after was removed", "pod", pod.Namespace+"/"+pod.Name, "node", pod.Spec.NodeName)
	return nil
}

// outOfService tells whether an operator says that the node is down and fenced.
func outOfService(node *corev1.Node) bool {
	ready := slices.ContainsFunc(node.Status.Conditions, func(condition corev1.NodeCondition) bool {
		return condition.Type == corev1.NodeReady && condition.Status == corev1.ConditionTrue
	})
	return !ready && slices.ContainsFunc(node.Spec.Taints, func(taint corev1.Taint) bool {
		return taint.Key == corev1.TaintNodeOutOfService
	})
}
