// Package attachdetach says which volumes of CSI drivers have to be attached to which
// nodes: kube-controller-manager's attach-detach-controller.
//
// In flow pods, claims, volumes, drivers, nodes and attachments by informer. Out flow
// VolumeAttachments: one for each volume that pods on a node use, which the driver's
// external attacher carries out, and their deletion when no pod uses the volume there
// and the node's agent has let go of it. A volume for one node only is not attached to
// a second before the first attachment is gone.
package attachdetach

import (
	"context"
	"crypto/sha256"
	"fmt"
	"log/slog"
	"slices"

	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	corelisters "k8s.io/client-go/listers/core/v1"
	storagelisters "k8s.io/client-go/listers/storage/v1"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/record"
	"k8s.io/utils/ptr"

	"github.com/skiff-run/skiff/control/controllers/podstate"
	"github.com/skiff-run/skiff/control/controllers/reconcile"
)

// Controller keeps the attachments.
type Controller struct {
	client      kubernetes.Interface
	pods        cache.Indexer
	claims      corelisters.PersistentVolumeClaimLister
	volumes     corelisters.PersistentVolumeLister
	nodes       corelisters.NodeLister
	drivers     storagelisters.CSIDriverLister
	attachments storagelisters.VolumeAttachmentLister
	sources     []reconcile.Source
	// queue holds names of nodes. One worker: who sees a volume free takes it alone.
	queue  *reconcile.Queue[string]
	events record.EventRecorder
	logger *slog.Logger
}

// New returns a controller on the client and the informers, which the caller starts.
func New(client kubernetes.Interface, factory informers.SharedInformerFactory, logger *slog.Logger) (*Controller, error) {
	core, storage := factory.Core().V1(), factory.Storage().V1()
	for _, index := range []func(cache.SharedIndexInformer) error{podstate.IndexByNode, podstate.IndexByVolumeClaim} {
		if err := index(core.Pods().Informer()); err != nil {
			return nil, err
		}
	}
	c := &Controller{
		client: client, pods: core.Pods().Informer().GetIndexer(), claims: core.PersistentVolumeClaims().Lister(), volumes: core.PersistentVolumes().Lister(),
		nodes: core.Nodes().Lister(), drivers: storage.CSIDrivers().Lister(), attachments: storage.VolumeAttachments().Lister(), logger: logger,
	}
	c.queue = reconcile.NewQueue("attachdetach", 1, logger, c.reconcile)
	c.sources = []reconcile.Source{
		{Informer: core.Nodes().Informer(), Handler: reconcile.Handler(nil, func(old, node *corev1.Node) {
			if !slices.Equal(old.Status.VolumesInUse, node.Status.VolumesInUse) {
				c.queue.Add(node.Name)
			}
		}, func(node *corev1.Node) { c.queue.Add(node.Name) })},
		{Informer: core.PersistentVolumes().Informer(), Handler: reconcile.OnAny(c.volumeChanged)},
		{Informer: core.PersistentVolumeClaims().Informer(), Handler: reconcile.OnAny(func(claim *corev1.PersistentVolumeClaim) {
			c.wakeUsers(claim.Namespace, claim.Name)
		})},
		{Informer: storage.CSIDrivers().Informer(), Handler: reconcile.OnAny(func(*storagev1.CSIDriver) { c.wakeAll() })},
		{Informer: storage.VolumeAttachments().Informer(), Handler: reconcile.Handler(
			func(a *storagev1.VolumeAttachment) { c.queue.Add(a.Spec.NodeName) }, nil, c.detached)},
		{Informer: core.Pods().Informer(), Handler: reconcile.OnAny(func(pod *corev1.Pod) {
			if pod.Spec.NodeName != "" && len(podstate.VolumeClaims(pod)) > 0 {
				c.queue.Add(pod.Spec.NodeName)
			}
		})},
	}
	return c, nil
}

// Run works until ctx ends.
func (c *Controller) Run(ctx context.Context) error {
	var stop func()
	c.events, stop = reconcile.StartEvents(c.client, "attachdetach-controller")
	defer stop()
	return reconcile.Run(ctx, c.sources, c.queue)
}

func (c *Controller) volumeChanged(volume *corev1.PersistentVolume) {
	if ref := volume.Spec.ClaimRef; ref != nil && volume.Spec.CSI != nil {
		c.wakeUsers(ref.Namespace, ref.Name)
	}
}

// detached wakes the nodes that may have waited for the volume.
func (c *Controller) detached(a *storagev1.VolumeAttachment) {
	c.queue.Add(a.Spec.NodeName)
	if name := ptr.Deref(a.Spec.Source.PersistentVolumeName, ""); name != "" {
		if volume, err := c.volumes.Get(name); err == nil {
			c.volumeChanged(volume)
		}
	}
}

func (c *Controller) wakeUsers(namespace, claim string) {
	pods, err := podstate.UsingClaim(c.pods, namespace, claim)
	if err != nil {
		return
	}
	for _, pod := range pods {
		if pod.Spec.NodeName != "" {
			c.queue.Add(pod.Spec.NodeName)
		}
	}
}

func (c *Controller) wakeAll() {
	nodes, err := c.nodes.List(labels.Everything())
	if err != nil {
		return
	}
	for _, node := range nodes {
		c.queue.Add(node.Name)
	}
}

// attachmentName is what the attachment of a volume to a node is called, so that
// agents find it.
func attachmentName(csi *corev1.CSIPersistentVolumeSource, node string) string {
	return fmt.Sprintf("csi-%x", sha256.Sum256([]byte(csi.VolumeHandle+csi.Driver+node)))
}

// reconcile brings the attachments of one node in line with its pods.
func (c *Controller) reconcile(ctx context.Context, node string) error {
	wanted, err := c.wanted(node)
	if err != nil {
		return err
	}
	all, err := c.attachments.List(labels.Everything())
	if err != nil {
		return fmt.Errorf("list attachments: %w", err)
	}
	present := map[string]bool{}
	for _, a := range all {
		if a.Spec.NodeName != node {
			continue
		}
		present[a.Name] = true
		if _, needed := wanted[a.Name]; !needed && a.DeletionTimestamp == nil && !c.inUse(a) {
			if err := c.client.StorageV1().VolumeAttachments().Delete(ctx, a.Name, *metav1.NewPreconditionDeleteOptions(string(a.UID))); err != nil && !apierrors.IsNotFound(err) {
				return fmt.Errorf("detach %s: %w", a.Name, err)
			}
			c.logger.Info("detaching", "node", node, "attachment", a.Name)
		}
	}
	for name, use := range wanted {
		if present[name] {
			continue
		}
		if elsewhere := otherNode(all, use.volume, node); elsewhere != "" {
			c.events.Eventf(use.pod, corev1.EventTypeWarning, "FailedAttachVolume",
				"Multi-Attach error for volume %q Volume is already exclusively attached to one node and can't be attached to another", use.volume.Name)
			continue
		}
		attachment := &storagev1.VolumeAttachment{
			ObjectMeta: metav1.ObjectMeta{Name: name},
			Spec: storagev1.VolumeAttachmentSpec{
				Attacher: use.volume.Spec.CSI.Driver, NodeName: node, Source: storagev1.VolumeAttachmentSource{PersistentVolumeName: &use.volume.Name},
			},
		}
		if _, err := c.client.StorageV1().VolumeAttachments().Create(ctx, attachment, metav1.CreateOptions{}); err != nil && !apierrors.IsAlreadyExists(err) {
			return fmt.Errorf("attach volume %s to node %s: %w", use.volume.Name, node, err)
		}
		c.logger.Info("attaching", "node", node, "volume", use.volume.Name, "attachment", name)
	}
	return nil
}

// use is a volume that a pod needs on its node.
type use struct {
	pod    *corev1.Pod
	volume *corev1.PersistentVolume
}

// wanted are the attachments that the pods on a node need, by name.
func (c *Controller) wanted(node string) (map[string]use, error) {
	pods, err := podstate.OnNode(c.pods, node)
	if err != nil {
		return nil, err
	}
	wanted := map[string]use{}
	for _, pod := range pods {
		if podstate.Finished(pod) {
			continue
		}
		for _, name := range podstate.VolumeClaims(pod) {
			claim, err := c.claims.PersistentVolumeClaims(pod.Namespace).Get(name)
			if err != nil || claim.Spec.VolumeName == "" {
				continue
			}
			volume, err := c.volumes.Get(claim.Spec.VolumeName)
			if err != nil || volume.Spec.CSI == nil || volume.Spec.ClaimRef == nil || volume.Spec.ClaimRef.UID != claim.UID || !c.attachable(volume.Spec.CSI.Driver) {
				continue
			}
			wanted[attachmentName(volume.Spec.CSI, node)] = use{pod, volume}
		}
	}
	return wanted, nil
}

// attachable: a driver of which the API says nothing is taken to attach.
func (c *Controller) attachable(driver string) bool {
	object, err := c.drivers.Get(driver)
	return err != nil || ptr.Deref(object.Spec.AttachRequired, true)
}

// inUse reports whether the node's agent still has the volume. A node that is gone has
// nothing.
func (c *Controller) inUse(a *storagev1.VolumeAttachment) bool {
	node, err := c.nodes.Get(a.Spec.NodeName)
	if err != nil {
		return false
	}
	volume, err := c.volumes.Get(ptr.Deref(a.Spec.Source.PersistentVolumeName, ""))
	if err != nil || volume.Spec.CSI == nil {
		return false
	}
	name := corev1.UniqueVolumeName("kubernetes.io/csi/" + volume.Spec.CSI.Driver + "^" + volume.Spec.CSI.VolumeHandle)
	return slices.Contains(node.Status.VolumesInUse, name)
}

// otherNode returns a node that has the volume, when only one may.
func otherNode(all []*storagev1.VolumeAttachment, volume *corev1.PersistentVolume, node string) string {
	if slices.Contains(volume.Spec.AccessModes, corev1.ReadWriteMany) || slices.Contains(volume.Spec.AccessModes, corev1.ReadOnlyMany) {
		return ""
	}
	for _, a := range all {
		if a.Spec.NodeName != node && ptr.Deref(a.Spec.Source.PersistentVolumeName, "") == volume.Name {
			return a.Spec.NodeName
		}
	}
	return ""
}
