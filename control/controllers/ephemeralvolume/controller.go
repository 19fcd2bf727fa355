// Package ephemeralvolume makes the claims of generic ephemeral volumes:
// kube-controller-manager's ephemeral-volume-controller. In flow pods and claims by
// informer, out flow claims that belong to their pod and go with it.
package ephemeralvolume

import (
	"context"
	"fmt"
	"log/slog"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	corelisters "k8s.io/client-go/listers/core/v1"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/record"
	"k8s.io/component-helpers/storage/ephemeral"

	"github.com/skiff-run/skiff/control/controllers/podstate"
	"github.com/skiff-run/skiff/control/controllers/reconcile"
)

// Controller makes claims.
type Controller struct {
	client  kubernetes.Interface
	pods    corelisters.PodLister
	byClaim cache.Indexer
	claims  corelisters.PersistentVolumeClaimLister
	sources []reconcile.Source
	queue   *reconcile.Queue[reconcile.Key]
	events  record.EventRecorder
}

// New returns a controller on the client and the informers, which the caller starts.
func New(client kubernetes.Interface, factory informers.SharedInformerFactory, logger *slog.Logger) (*Controller, error) {
	pods, claims := factory.Core().V1().Pods(), factory.Core().V1().PersistentVolumeClaims()
	if err := podstate.IndexByVolumeClaim(pods.Informer()); err != nil {
		return nil, err
	}
	c := &Controller{client: client, pods: pods.Lister(), byClaim: pods.Informer().GetIndexer(), claims: claims.Lister()}
	c.queue = reconcile.NewQueue("ephemeralvolume", 4, logger, c.reconcile)
	c.sources = []reconcile.Source{
		// Volumes do not change: a pod's first appearance is enough.
		{Informer: pods.Informer(), Handler: reconcile.Handler(c.podAdded, nil, nil)},
		{Informer: claims.Informer(), Handler: reconcile.Handler(nil, nil, c.claimGone)},
	}
	return c, nil
}

// Run works until ctx ends.
func (c *Controller) Run(ctx context.Context) error {
	var stop func()
	c.events, stop = reconcile.StartEvents(c.client, "ephemeral_volume")
	defer stop()
	return reconcile.Run(ctx, c.sources, c.queue)
}

func (c *Controller) podAdded(pod *corev1.Pod) {
	for i := range pod.Spec.Volumes {
		if pod.Spec.Volumes[i].Ephemeral != nil {
			c.queue.Add(reconcile.KeyOf(pod))
			return
		}
	}
}

// claimGone looks again at pods that were in the way of a claim of that name, or
// whose claim was deleted before they ran.
func (c *Controller) claimGone(claim *corev1.PersistentVolumeClaim) {
	pods, err := podstate.UsingClaim(c.byClaim, claim.Namespace, claim.Name)
	if err != nil {
		return
	}
	for _, pod := range pods {
		c.podAdded(pod)
	}
}

func (c *Controller) reconcile(ctx context.Context, key reconcile.Key) error {
	pod, err := c.pods.Pods(key.Namespace).Get(key.Name)
	if apierrors.IsNotFound(err) || (err == nil && pod.DeletionTimestamp != nil) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read pod: %w", err)
	}
	for i := range pod.Spec.Volumes {
		v := &pod.Spec.Volumes[i]
		if v.Ephemeral == nil {
			continue
		}
		if err := c.ensure(ctx, pod, v); err != nil {
			c.events.Eventf(pod, corev1.EventTypeWarning, "FailedBinding", "ephemeral volume %s: %v", v.Name, err)
			return fmt.Errorf("ephemeral volume %s: %w", v.Name, err)
		}
	}
	return nil
}

func (c *Controller) ensure(ctx context.Context, pod *corev1.Pod, v *corev1.Volume) error {
	name := ephemeral.VolumeClaimName(pod, v)
	claim, err := c.claims.PersistentVolumeClaims(pod.Namespace).Get(name)
	if err == nil {
		return ephemeral.VolumeIsForPod(pod, claim)
	}
	if !apierrors.IsNotFound(err) {
		return fmt.Errorf("read PVC %s: %w", name, err)
	}
	template := v.Ephemeral.VolumeClaimTemplate.DeepCopy()
	claim = &corev1.PersistentVolumeClaim{
		ObjectMeta: metav1.ObjectMeta{
			Name: name, Labels: template.Labels, Annotations: template.Annotations,
			OwnerReferences: []metav1.OwnerReference{*metav1.NewControllerRef(pod, corev1.SchemeGroupVersion.WithKind("Pod"))},
		},
		Spec: template.Spec,
	}
	if _, err := c.client.CoreV1().PersistentVolumeClaims(pod.Namespace).Create(ctx, claim, metav1.CreateOptions{}); err != nil {
		return fmt.Errorf("create PVC %s: %w", name, err)
	}
	return nil
}
