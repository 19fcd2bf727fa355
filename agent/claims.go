package agent

import (
	"context"

	v1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"github.com/skiff-run/skiff/agent/localvolume"
	"github.com/skiff-run/skiff/agent/node"
)

// claims reads what a pod's claims are bound to, each when it is needed: a node may
// read only those of its pods.
type claims struct {
	client kubernetes.Interface
	nodes  *node.Manager
}

func (c claims) Claim(ctx context.Context, namespace, name string) (*v1.PersistentVolumeClaim, error) {
	return c.client.CoreV1().PersistentVolumeClaims(namespace).Get(ctx, name, metav1.GetOptions{})
}

func (c claims) PersistentVolume(ctx context.Context, name string) (*v1.PersistentVolume, error) {
	return c.client.CoreV1().PersistentVolumes().Get(ctx, name, metav1.GetOptions{})
}

// CSIDriver returns nil when the API says nothing of the driver.
func (c claims) CSIDriver(ctx context.Context, name string) (*storagev1.CSIDriver, error) {
	driver, err := c.client.StorageV1().CSIDrivers().Get(ctx, name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return nil, nil
	}
	return driver, err
}

func (c claims) Attachment(ctx context.Context, name string) (*storagev1.VolumeAttachment, error) {
	return c.client.StorageV1().VolumeAttachments().Get(ctx, name, metav1.GetOptions{})
}

func (c claims) VolumeSecret(ctx context.Context, namespace, name string) (*v1.Secret, error) {
	return c.client.CoreV1().Secrets(namespace).Get(ctx, name, metav1.GetOptions{})
}

func (c claims) Node() *v1.Node { return c.nodes.Object() }

// annotations are what the Node object says of this agent's settings.
func (a *Agent) annotations() map[string]string {
	if a.Settings.LocalVolumesDir == "" {
		return nil
	}
	return map[string]string{localvolume.Annotation: a.Settings.LocalVolumesDir}
}
