package volumeprotection

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
	"k8s.io/component-helpers/storage/ephemeral"

	"github.com/skiff-run/skiff/control/controllers/podstate"
	"github.com/skiff-run/skiff/control/controllers/reconcile"
)

// Claims protects PersistentVolumeClaims.
type Claims struct {
	client  kubernetes.Interface
	claims  corelisters.PersistentVolumeClaimLister
	pods    cache.Indexer
	sources []reconcile.Source
	queue   *reconcile.Queue[reconcile.Key]
}

// NewClaims returns a controller on the client and the informers, which the caller starts.
func NewClaims(client kubernetes.Interface, factory informers.SharedInformerFactory, logger *slog.Logger) (*Claims, error) {
	claims, pods := factory.Core().V1().PersistentVolumeClaims(), factory.Core().V1().Pods()
	if err := podstate.IndexByVolumeClaim(pods.Informer()); err != nil {
		return nil, err
	}
	c := &Claims{client: client, claims: claims.Lister(), pods: pods.Informer().GetIndexer()}
	c.queue = reconcile.NewQueue("pvcprotection", 1, logger, c.reconcile)
	look := func(claim *corev1.PersistentVolumeClaim) {
		if waits(claim, ClaimFinalizer) || lacks(claim, ClaimFinalizer) {
			c.queue.Add(reconcile.KeyOf(claim))
		}
	}
	c.sources = []reconcile.Source{
		{Informer: claims.Informer(), Handler: reconcile.Handler(look, func(_, claim *corev1.PersistentVolumeClaim) { look(claim) }, nil)},
		{Informer: pods.Informer(), Handler: reconcile.Handler(nil, func(_, pod *corev1.Pod) {
			if shutDown(pod) {
				c.podGone(pod)
			}
		}, c.podGone)},
	}
	return c, nil
}

// Run works until ctx ends.
func (c *Claims) Run(ctx context.Context) error { return reconcile.Run(ctx, c.sources, c.queue) }

func (c *Claims) podGone(pod *corev1.Pod) {
	for _, name := range podstate.VolumeClaims(pod) {
		c.queue.Add(reconcile.Key{Namespace: pod.Namespace, Name: name})
	}
}

func (c *Claims) reconcile(ctx context.Context, key reconcile.Key) error {
	claim, err := c.claims.PersistentVolumeClaims(key.Namespace).Get(key.Name)
	if apierrors.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read claim: %w", err)
	}
	changed := claim.DeepCopy()
	switch {
	case lacks(claim, ClaimFinalizer):
		changed.Finalizers = append(changed.Finalizers, ClaimFinalizer)
	case waits(claim, ClaimFinalizer):
		used, err := c.used(ctx, claim)
		if used || err != nil {
			return err
		}
		changed.Finalizers = without(claim.Finalizers, ClaimFinalizer)
	default:
		return nil
	}
	if _, err := c.client.CoreV1().PersistentVolumeClaims(claim.Namespace).Update(ctx, changed, metav1.UpdateOptions{}); err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("write finalizers: %w", err)
	}
	return nil
}

// used asks the informer and, when that knows of nobody, the API: a pod may have
// been made a moment ago.
func (c *Claims) used(ctx context.Context, claim *corev1.PersistentVolumeClaim) (bool, error) {
	known, err := podstate.UsingClaim(c.pods, claim.Namespace, claim.Name)
	if err != nil {
		return false, err
	}
	for _, pod := range known {
		if uses(pod, claim) {
			return true, nil
		}
	}
	list, err := c.client.CoreV1().Pods(claim.Namespace).List(ctx, metav1.ListOptions{})
	if err != nil {
		return false, fmt.Errorf("list pods: %w", err)
	}
	for i := range list.Items {
		if uses(&list.Items[i], claim) {
			return true, nil
		}
	}
	return false, nil
}

// uses: pods without a node have nothing mounted. An ephemeral volume's claim goes
// with its pod, whose node has finished when nothing but the object is left.
func uses(pod *corev1.Pod, claim *corev1.PersistentVolumeClaim) bool {
	if pod.Spec.NodeName == "" {
		return false
	}
	for i := range pod.Spec.Volumes {
		v := &pod.Spec.Volumes[i]
		if v.PersistentVolumeClaim != nil && v.PersistentVolumeClaim.ClaimName == claim.Name {
			return true
		}
		if v.Ephemeral != nil && !shutDown(pod) && ephemeral.VolumeClaimName(pod, v) == claim.Name && ephemeral.VolumeIsForPod(pod, claim) == nil {
			return true
		}
	}
	return false
}

func shutDown(pod *corev1.Pod) bool {
	return pod.DeletionTimestamp != nil && pod.DeletionGracePeriodSeconds != nil && *pod.DeletionGracePeriodSeconds == 0
}
