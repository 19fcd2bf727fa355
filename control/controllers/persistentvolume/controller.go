// Package persistentvolume binds PersistentVolumeClaims to PersistentVolumes:
// kube-controller-manager's persistentvolume-binder-controller.
//
// In flow claims, volumes and storage classes by informer. Out flow the
// references by which claim and volume name each other, their phases, the
// annotation that asks a provisioner for a volume, and events. The reference of
// the volume is written first: it decides who has the volume, whatever happens
// after. The package makes and removes no storage.
package persistentvolume

import (
	"context"
	"fmt"
	"log/slog"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	corelisters "k8s.io/client-go/listers/core/v1"
	storagelisters "k8s.io/client-go/listers/storage/v1"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/record"
	volumehelper "k8s.io/component-helpers/storage/volume"

	"github.com/skiff-run/skiff/control/controllers/podstate"
	"github.com/skiff-run/skiff/control/controllers/reconcile"
)

// Controller binds claims.
type Controller struct {
	client  kubernetes.Interface
	claims  corelisters.PersistentVolumeClaimLister
	volumes corelisters.PersistentVolumeLister
	classes storagelisters.StorageClassLister
	pods    cache.Indexer
	byClaim cache.Indexer
	sources []reconcile.Source
	// claimQueue and volumeQueue have one worker each: who decides about claims decides alone.
	claimQueue  *reconcile.Queue[reconcile.Key]
	volumeQueue *reconcile.Queue[string]
	events      record.EventRecorder
}

// byClaimRef finds volumes by the claim they are bound to.
const byClaimRef = "skiff/claim"

// New returns a controller on the client and the informers, which the caller starts.
func New(client kubernetes.Interface, factory informers.SharedInformerFactory, logger *slog.Logger) (*Controller, error) {
	claims, volumes := factory.Core().V1().PersistentVolumeClaims(), factory.Core().V1().PersistentVolumes()
	classes, pods := factory.Storage().V1().StorageClasses(), factory.Core().V1().Pods()
	if err := podstate.IndexByVolumeClaim(pods.Informer()); err != nil {
		return nil, err
	}
	if _, exists := volumes.Informer().GetIndexer().GetIndexers()[byClaimRef]; !exists {
		if err := volumes.Informer().AddIndexers(cache.Indexers{byClaimRef: claimOf}); err != nil {
			return nil, fmt.Errorf("index volumes by claim: %w", err)
		}
	}
	c := &Controller{
		client: client, claims: claims.Lister(), volumes: volumes.Lister(), classes: classes.Lister(),
		pods: pods.Informer().GetIndexer(), byClaim: volumes.Informer().GetIndexer(),
	}
	c.claimQueue = reconcile.NewQueue("persistentvolumeclaim", 1, logger, c.reconcileClaim)
	c.volumeQueue = reconcile.NewQueue("persistentvolume", 1, logger, c.reconcileVolume)
	c.sources = []reconcile.Source{
		{Informer: volumes.Informer(), Handler: reconcile.OnAny(c.volumeChanged)},
		{Informer: claims.Informer(), Handler: reconcile.OnAny(c.claimChanged)},
		{Informer: classes.Informer(), Handler: reconcile.OnAny(func(*storagev1.StorageClass) { c.wakeWaiting(nil) })},
		{Informer: pods.Informer(), Handler: cache.ResourceEventHandlerFuncs{}},
	}
	return c, nil
}

// Run works until ctx ends.
func (c *Controller) Run(ctx context.Context) error {
	var stop func()
	c.events, stop = reconcile.StartEvents(c.client, "persistentvolume-controller")
	defer stop()
	return reconcile.Run(ctx, c.sources, c.claimQueue, c.volumeQueue)
}

func claimOf(object any) ([]string, error) {
	volume, ok := object.(*corev1.PersistentVolume)
	if !ok || volume.Spec.ClaimRef == nil {
		return nil, nil
	}
	return []string{volume.Spec.ClaimRef.Namespace + "/" + volume.Spec.ClaimRef.Name}, nil
}

func (c *Controller) claimChanged(claim *corev1.PersistentVolumeClaim) {
	c.claimQueue.Add(reconcile.KeyOf(claim))
	if claim.Spec.VolumeName != "" {
		c.volumeQueue.Add(claim.Spec.VolumeName)
	}
	// Nothing can be missing: the index function never fails.
	bound, _ := c.byClaim.ByIndex(byClaimRef, claim.Namespace+"/"+claim.Name)
	for _, object := range bound {
		if volume, ok := object.(*corev1.PersistentVolume); ok {
			c.volumeQueue.Add(volume.Name)
		}
	}
}

func (c *Controller) volumeChanged(volume *corev1.PersistentVolume) {
	c.volumeQueue.Add(volume.Name)
	if ref := volume.Spec.ClaimRef; ref != nil {
		c.claimQueue.Add(reconcile.Key{Namespace: ref.Namespace, Name: ref.Name})
	}
	c.wakeWaiting(volume)
}

// wakeWaiting looks again at the claims without a volume: at those that could
// get this one, or at all.
func (c *Controller) wakeWaiting(volume *corev1.PersistentVolume) {
	claims, err := c.claims.List(labels.Everything())
	if err != nil {
		return
	}
	for _, claim := range claims {
		bound := claim.Annotations[volumehelper.AnnBindCompleted] != ""
		switch {
		case volume == nil && !bound,
			volume != nil && claim.Spec.VolumeName == volume.Name,
			volume != nil && !bound && volume.Status.Phase == corev1.VolumeAvailable &&
				volumehelper.GetPersistentVolumeClaimClass(claim) == volumehelper.GetPersistentVolumeClass(volume):
			c.claimQueue.Add(reconcile.KeyOf(claim))
		}
	}
}
