// Package localpath provides volumes that are directories of one node, so that a
// claim works in a cluster without any storage system.
//
// In flow claims that the binder has left to this provisioner, and nodes, which
// say in an annotation where their directories are. Out flow PersistentVolumes
// that can be used on one node only. The directory itself is the node's: its agent
// sees the volume, makes the directory, and removes it again when the volume is
// deleted; a finalizer keeps the volume in the API until then.
package localpath

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path"
	"slices"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	corelisters "k8s.io/client-go/listers/core/v1"
	storagelisters "k8s.io/client-go/listers/storage/v1"
	"k8s.io/client-go/tools/record"
	volumehelper "k8s.io/component-helpers/storage/volume"
	"k8s.io/utils/ptr"

	"github.com/skiff-run/skiff/control/controllers/reconcile"
)

// Names by which classes, nodes and volumes know this provisioner.
const (
	// Provisioner is what storage classes name.
	Provisioner = "skiff.dev/local-path"
	// Finalizer keeps a deleted volume until its node has removed the directory.
	Finalizer = "skiff.dev/local-path"
	// DirAnnotation of a node is the directory that holds its volumes.
	DirAnnotation = "skiff.dev/local-path"
	// NodeLabel of a volume is its node's name, by which the agent finds its volumes.
	NodeLabel = "skiff.dev/node"
)

// Controller makes volumes.
type Controller struct {
	client  kubernetes.Interface
	claims  corelisters.PersistentVolumeClaimLister
	volumes corelisters.PersistentVolumeLister
	nodes   corelisters.NodeLister
	classes storagelisters.StorageClassLister
	sources []reconcile.Source
	wanted  *reconcile.Queue[reconcile.Key]
	made    *reconcile.Queue[string]
	events  record.EventRecorder
}

// New returns a controller on the client and the informers, which the caller starts.
func New(client kubernetes.Interface, factory informers.SharedInformerFactory, logger *slog.Logger) *Controller {
	core := factory.Core().V1()
	c := &Controller{
		client: client, claims: core.PersistentVolumeClaims().Lister(), volumes: core.PersistentVolumes().Lister(),
		nodes: core.Nodes().Lister(), classes: factory.Storage().V1().StorageClasses().Lister(),
	}
	c.wanted = reconcile.NewQueue("localpathclaim", 4, logger, c.provide)
	c.made = reconcile.NewQueue("localpathvolume", 4, logger, c.reclaim)
	c.sources = []reconcile.Source{
		{Informer: core.PersistentVolumeClaims().Informer(), Handler: reconcile.OnAny(func(claim *corev1.PersistentVolumeClaim) {
			if asksUs(claim) {
				c.wanted.Add(reconcile.KeyOf(claim))
			}
		})},
		{Informer: core.PersistentVolumes().Informer(), Handler: reconcile.OnAny(func(volume *corev1.PersistentVolume) {
			if slices.Contains(volume.Finalizers, Finalizer) {
				c.made.Add(volume.Name)
			}
		})},
		{Informer: core.Nodes().Informer(), Handler: reconcile.Handler(nil, nil, c.nodeGone)},
		{Informer: factory.Storage().V1().StorageClasses().Informer(), Handler: reconcile.Handler[*storagev1.StorageClass](nil, nil, nil)},
	}
	return c
}

// Run works until ctx ends.
func (c *Controller) Run(ctx context.Context) error {
	var stop func()
	c.events, stop = reconcile.StartEvents(c.client, "local-path-provisioner")
	defer stop()
	return reconcile.Run(ctx, c.sources, c.wanted, c.made)
}

func asksUs(claim *corev1.PersistentVolumeClaim) bool {
	return claim.Annotations[volumehelper.AnnStorageProvisioner] == Provisioner && claim.Spec.VolumeName == "" && claim.DeletionTimestamp == nil
}

func (c *Controller) nodeGone(node *corev1.Node) {
	volumes, err := c.volumes.List(labels.SelectorFromSet(labels.Set{NodeLabel: node.Name}))
	if err != nil {
		return
	}
	for _, volume := range volumes {
		c.made.Add(volume.Name)
	}
}

// provide makes the volume of a claim whose node is chosen.
func (c *Controller) provide(ctx context.Context, key reconcile.Key) error {
	claim, err := c.claims.PersistentVolumeClaims(key.Namespace).Get(key.Name)
	if apierrors.IsNotFound(err) || (err == nil && !asksUs(claim)) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read claim: %w", err)
	}
	volume, err := c.volumeFor(claim)
	var refused *refusal
	if errors.As(err, &refused) {
		c.events.Event(claim, corev1.EventTypeWarning, "ProvisioningFailed", refused.why)
		if refused.node {
			return c.reschedule(ctx, claim)
		}
		return nil
	}
	if err != nil {
		return err
	}
	if _, err := c.volumes.Get(volume.Name); err == nil {
		return nil
	}
	if _, err := c.client.CoreV1().PersistentVolumes().Create(ctx, volume, metav1.CreateOptions{}); err != nil && !apierrors.IsAlreadyExists(err) {
		c.events.Eventf(claim, corev1.EventTypeWarning, "ProvisioningFailed", "failed to create volume %s: %v", volume.Name, err)
		return fmt.Errorf("create volume %s: %w", volume.Name, err)
	}
	c.events.Eventf(claim, corev1.EventTypeNormal, "ProvisioningSucceeded", "Successfully provisioned volume %s", volume.Name)
	return nil
}

// refusal is a claim that cannot be met; node: on another node it could be.
type refusal struct {
	why  string
	node bool
}

func (r *refusal) Error() string { return r.why }

func (c *Controller) volumeFor(claim *corev1.PersistentVolumeClaim) (*corev1.PersistentVolume, error) {
	class, err := c.classes.Get(volumehelper.GetPersistentVolumeClaimClass(claim))
	if apierrors.IsNotFound(err) || (err == nil && class.Provisioner != Provisioner) {
		return nil, &refusal{why: fmt.Sprintf("storage class %q is not one of provisioner %s any more", volumehelper.GetPersistentVolumeClaimClass(claim), Provisioner)}
	}
	if err != nil {
		return nil, fmt.Errorf("read storage class: %w", err)
	}
	switch {
	case len(class.MountOptions) > 0:
		return nil, &refusal{why: fmt.Sprintf("mountOptions of storage class %q: a directory is not mounted with options of its own; leave them away", class.Name)}
	case len(class.Parameters) > 0:
		return nil, &refusal{why: fmt.Sprintf("parameters of storage class %q: provisioner %s knows none; leave them away", class.Name, Provisioner)}
	}
	for _, mode := range claim.Spec.AccessModes {
		if mode != corev1.ReadWriteOnce && mode != corev1.ReadWriteOncePod {
			return nil, &refusal{why: fmt.Sprintf("accessModes: a directory of one node cannot be %s; ask for ReadWriteOnce or ReadWriteOncePod", mode)}
		}
	}
	name := claim.Annotations[volumehelper.AnnSelectedNode]
	switch {
	case ptr.Deref(claim.Spec.VolumeMode, corev1.PersistentVolumeFilesystem) != corev1.PersistentVolumeFilesystem:
		return nil, &refusal{why: "volumeMode: a directory is no block device; ask for Filesystem"}
	case claim.Spec.DataSource != nil || claim.Spec.DataSourceRef != nil:
		return nil, &refusal{why: "dataSource: this provisioner makes empty volumes only"}
	case claim.Spec.Selector != nil:
		return nil, &refusal{why: "selector: volumes that are made for a claim have no labels to select"}
	case name == "":
		return nil, &refusal{why: "the node has to be chosen first: volumeBindingMode of the storage class has to be WaitForFirstConsumer"}
	}
	node, err := c.nodes.Get(name)
	if apierrors.IsNotFound(err) {
		return nil, &refusal{why: fmt.Sprintf("node %q does not exist any more", name), node: true}
	}
	if err != nil {
		return nil, fmt.Errorf("read node %s: %w", name, err)
	}
	dir, host := node.Annotations[DirAnnotation], node.Labels[corev1.LabelHostname]
	if !path.IsAbs(dir) || host == "" || len(validation.IsValidLabelValue(name)) > 0 {
		return nil, &refusal{why: fmt.Sprintf("node %q offers no directory for volumes (localVolumesDir in its agent.yaml)", name), node: true}
	}
	return volume(claim, class, name, host, dir), nil
}

func volume(claim *corev1.PersistentVolumeClaim, class *storagev1.StorageClass, node, host, dir string) *corev1.PersistentVolume {
	name := "pvc-" + string(claim.UID)
	return &corev1.PersistentVolume{
		ObjectMeta: metav1.ObjectMeta{
			Name: name, Labels: map[string]string{NodeLabel: node}, Finalizers: []string{Finalizer},
			Annotations: map[string]string{volumehelper.AnnDynamicallyProvisioned: Provisioner},
		},
		Spec: corev1.PersistentVolumeSpec{
			Capacity:                      corev1.ResourceList{corev1.ResourceStorage: claim.Spec.Resources.Requests[corev1.ResourceStorage]},
			AccessModes:                   claim.Spec.AccessModes,
			PersistentVolumeReclaimPolicy: ptr.Deref(class.ReclaimPolicy, corev1.PersistentVolumeReclaimDelete),
			StorageClassName:              class.Name,
			PersistentVolumeSource:        corev1.PersistentVolumeSource{Local: &corev1.LocalVolumeSource{Path: path.Join(dir, name)}},
			ClaimRef: &corev1.ObjectReference{
				APIVersion: "v1", Kind: "PersistentVolumeClaim", Namespace: claim.Namespace, Name: claim.Name, UID: claim.UID,
			},
			NodeAffinity: &corev1.VolumeNodeAffinity{Required: &corev1.NodeSelector{NodeSelectorTerms: []corev1.NodeSelectorTerm{{
				MatchExpressions: []corev1.NodeSelectorRequirement{{Key: corev1.LabelHostname, Operator: corev1.NodeSelectorOpIn, Values: []string{host}}},
			}}}},
		},
	}
}

// reschedule takes the choice of the node back: the scheduler chooses again.
func (c *Controller) reschedule(ctx context.Context, claim *corev1.PersistentVolumeClaim) error {
	changed := claim.DeepCopy()
	delete(changed.Annotations, volumehelper.AnnSelectedNode)
	if _, err := c.client.CoreV1().PersistentVolumeClaims(claim.Namespace).Update(ctx, changed, metav1.UpdateOptions{}); err != nil {
		return fmt.Errorf("take back the choice of node: %w", err)
	}
	return nil
}

// reclaim deletes a volume whose claim is gone. Its node lets go of it, unless the
// node itself is gone.
func (c *Controller) reclaim(ctx context.Context, name string) error {
	volume, err := c.volumes.Get(name)
	if apierrors.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read volume: %w", err)
	}
	if volume.DeletionTimestamp == nil {
		if volume.Status.Phase != corev1.VolumeReleased || volume.Spec.PersistentVolumeReclaimPolicy != corev1.PersistentVolumeReclaimDelete {
			return nil
		}
		err := c.client.CoreV1().PersistentVolumes().Delete(ctx, name, *metav1.NewPreconditionDeleteOptions(string(volume.UID)))
		if err != nil && !apierrors.IsNotFound(err) {
			return fmt.Errorf("delete volume: %w", err)
		}
		return nil
	}
	if len(volume.Finalizers) != 1 || volume.Finalizers[0] != Finalizer {
		return nil
	}
	if _, err := c.client.CoreV1().Nodes().Get(ctx, volume.Labels[NodeLabel], metav1.GetOptions{}); !apierrors.IsNotFound(err) {
		return err
	}
	changed := volume.DeepCopy()
	changed.Finalizers = nil
	if _, err := c.client.CoreV1().PersistentVolumes().Update(ctx, changed, metav1.UpdateOptions{}); err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("let go of a volume whose node is gone: %w", err)
	}
	return nil
}
