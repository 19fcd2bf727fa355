package persistentvolume

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	volumehelper "k8s.io/component-helpers/storage/volume"

	"github.com/skiff-run/skiff/control/controllers/reconcile"
)

func (c *Controller) reconcileVolume(ctx context.Context, name string) error {
	volume, err := c.volumes.Get(name)
	if apierrors.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read volume: %w", err)
	}
	ref := volume.Spec.ClaimRef
	if ref == nil || ref.UID == "" {
		// Free, or kept for a claim that does not know yet.
		_, err := c.setVolumePhase(ctx, volume, corev1.VolumeAvailable, "")
		return err
	}
	claim, err := c.claimOfRef(ctx, volume)
	if err != nil {
		return err
	}
	switch {
	case claim == nil:
		return c.release(ctx, volume)
	case claim.Spec.VolumeName == "":
		if volumehelper.CheckVolumeModeMismatches(&claim.Spec, &volume.Spec) {
			c.events.Eventf(volume, corev1.EventTypeWarning, volumeMismatch, "Cannot bind PersistentVolume to requested PersistentVolumeClaim %q due to incompatible volumeMode.", claim.Name)
			c.events.Eventf(claim, corev1.EventTypeWarning, volumeMismatch, "Cannot bind PersistentVolume %q to requested PersistentVolumeClaim due to incompatible volumeMode.", volume.Name)
			return nil
		}
		c.claimQueue.Add(reconcile.KeyOf(claim))
		return nil
	case claim.Spec.VolumeName == volume.Name:
		_, err := c.setVolumePhase(ctx, volume, corev1.VolumeBound, "")
		return err
	case metav1.HasAnnotation(volume.ObjectMeta, volumehelper.AnnDynamicallyProvisioned) && volume.Spec.PersistentVolumeReclaimPolicy == corev1.PersistentVolumeReclaimDelete:
		// Made for a claim that found another volume meanwhile.
		return c.release(ctx, volume)
	}
	return c.unbind(ctx, volume)
}

// claimOfRef returns the very claim that a volume is bound to, nil when it is
// gone. That it is gone is asked of the API: data may be deleted for it.
func (c *Controller) claimOfRef(ctx context.Context, volume *corev1.PersistentVolume) (*corev1.PersistentVolumeClaim, error) {
	ref := volume.Spec.ClaimRef
	claim, err := c.claims.PersistentVolumeClaims(ref.Namespace).Get(ref.Name)
	if err == nil && claim.UID == ref.UID {
		return claim, nil
	}
	if err != nil && !apierrors.IsNotFound(err) {
		return nil, fmt.Errorf("read claim of volume: %w", err)
	}
	claim, err = c.client.CoreV1().PersistentVolumeClaims(ref.Namespace).Get(ctx, ref.Name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) || (err == nil && claim.UID != ref.UID) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("ask for claim of volume: %w", err)
	}
	return claim, nil
}

// release marks a volume whose claim is gone, and does what its policy says.
func (c *Controller) release(ctx context.Context, volume *corev1.PersistentVolume) error {
	var err error
	if volume.Status.Phase != corev1.VolumeReleased && volume.Status.Phase != corev1.VolumeFailed {
		if volume, err = c.setVolumePhase(ctx, volume, corev1.VolumeReleased, ""); err != nil {
			return err
		}
	}
	switch volume.Spec.PersistentVolumeReclaimPolicy {
	case corev1.PersistentVolumeReclaimRetain:
		return nil
	case corev1.PersistentVolumeReclaimDelete:
		if metav1.HasAnnotation(volume.ObjectMeta, volumehelper.AnnDynamicallyProvisioned) || volume.Spec.CSI != nil {
			// Whoever made it deletes it.
			return nil
		}
		return c.fail(ctx, volume, volumeFailedDelete, "error getting deleter volume plugin for volume %q: no deletable volume plugin matched", volume.Name)
	case corev1.PersistentVolumeReclaimRecycle:
		return c.fail(ctx, volume, volumeFailedRecycle, "No recycler plugin found for the volume!")
	}
	return c.fail(ctx, volume, "VolumeUnknownReclaimPolicy", "Volume has unrecognized PersistentVolumeReclaimPolicy")
}

func (c *Controller) fail(ctx context.Context, volume *corev1.PersistentVolume, reason, format string, args ...any) error {
	if volume.Status.Phase == corev1.VolumeFailed {
		return nil
	}
	message := fmt.Sprintf(format, args...)
	volume, err := c.setVolumePhase(ctx, volume, corev1.VolumeFailed, message)
	if err == nil {
		c.events.Event(volume, corev1.EventTypeWarning, reason, message)
	}
	return err
}

// unbind gives a volume back that another one took the place of. What a user
// has written of the reference stays.
func (c *Controller) unbind(ctx context.Context, volume *corev1.PersistentVolume) error {
	changed := volume.DeepCopy()
	if metav1.HasAnnotation(volume.ObjectMeta, volumehelper.AnnBoundByController) {
		changed.Spec.ClaimRef = nil
		delete(changed.Annotations, volumehelper.AnnBoundByController)
	} else {
		changed.Spec.ClaimRef.UID = ""
	}
	changed, err := c.client.CoreV1().PersistentVolumes().Update(ctx, changed, metav1.UpdateOptions{})
	if err != nil {
		return fmt.Errorf("unbind volume: %w", err)
	}
	_, err = c.setVolumePhase(ctx, changed, corev1.VolumeAvailable, "")
	return err
}
