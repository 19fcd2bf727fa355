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

	"github.com/skiff-run/skiff/control/controllers/reconcile"
)

// Volumes protects PersistentVolumes.
type Volumes struct {
	client  kubernetes.Interface
	volumes corelisters.PersistentVolumeLister
	sources []reconcile.Source
	queue   *reconcile.Queue[string]
}

// NewVolumes returns a controller on the client and the informers, which the caller starts.
func NewVolumes(client kubernetes.Interface, factory informers.SharedInformerFactory, logger *slog.Logger) *Volumes {
	volumes := factory.Core().V1().PersistentVolumes()
	c := &Volumes{client: client, volumes: volumes.Lister()}
	c.queue = reconcile.NewQueue("pvprotection", 1, logger, c.reconcile)
	look := func(volume *corev1.PersistentVolume) {
		if waits(volume, VolumeFinalizer) || lacks(volume, VolumeFinalizer) {
			c.queue.Add(volume.Name)
		}
	}
	c.sources = []reconcile.Source{
		{Informer: volumes.Informer(), Handler: reconcile.Handler(look, func(_, volume *corev1.PersistentVolume) { look(volume) }, nil)},
	}
	return c
}

// Run works until ctx ends.
func (c *Volumes) Run(ctx context.Context) error { return reconcile.Run(ctx, c.sources, c.queue) }

func (c *Volumes) reconcile(ctx context.Context, name string) error {
	volume, err := c.volumes.Get(name)
	if apierrors.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read volume: %w", err)
	}
	changed := volume.DeepCopy()
	switch {
	case lacks(volume, VolumeFinalizer):
		changed.Finalizers = append(changed.Finalizers, VolumeFinalizer)
	case waits(volume, VolumeFinalizer) && volume.Status.Phase != corev1.VolumeBound:
		changed.Finalizers = without(volume.Finalizers, VolumeFinalizer)
	default:
		return nil
	}
	if _, err := c.client.CoreV1().PersistentVolumes().Update(ctx, changed, metav1.UpdateOptions{}); err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("write finalizers: %w", err)
	}
	return nil
}
