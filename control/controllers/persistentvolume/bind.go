package persistentvolume

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	volumehelper "k8s.io/component-helpers/storage/volume"
)

// bind makes volume and claim name each other, volume first, and says so in
// both statuses. Each step is left out when it is done.
func (c *Controller) bind(ctx context.Context, volume *corev1.PersistentVolume, claim *corev1.PersistentVolumeClaim) error {
	changed, dirty, err := volumehelper.GetBindVolumeToClaim(volume, claim)
	if err != nil {
		return fmt.Errorf("bind volume %s: %w", volume.Name, err)
	}
	if dirty {
		if volume, err = c.client.CoreV1().PersistentVolumes().Update(ctx, changed, metav1.UpdateOptions{}); err != nil {
			return fmt.Errorf("bind volume %s: %w", changed.Name, err)
		}
	}
	if volume, err = c.setVolumePhase(ctx, volume, corev1.VolumeBound, ""); err != nil {
		return err
	}
	if claim, err = c.nameVolume(ctx, claim, volume.Name); err != nil {
		return err
	}
	_, err = c.setClaimPhase(ctx, claim, corev1.ClaimBound, volume)
	return err
}

func (c *Controller) nameVolume(ctx context.Context, claim *corev1.PersistentVolumeClaim, volume string) (*corev1.PersistentVolumeClaim, error) {
	changed := claim.DeepCopy()
	if changed.Spec.VolumeName != volume {
		changed.Spec.VolumeName = volume
		metav1.SetMetaDataAnnotation(&changed.ObjectMeta, volumehelper.AnnBoundByController, "yes")
	}
	metav1.SetMetaDataAnnotation(&changed.ObjectMeta, volumehelper.AnnBindCompleted, "yes")
	if equality.Semantic.DeepEqual(changed, claim) {
		return claim, nil
	}
	changed, err := c.client.CoreV1().PersistentVolumeClaims(claim.Namespace).Update(ctx, changed, metav1.UpdateOptions{})
	if err != nil {
		return nil, fmt.Errorf("bind to volume %s: %w", volume, err)
	}
	return changed, nil
}

// setClaimPhase writes the claim's phase, and what it has of its volume.
func (c *Controller) setClaimPhase(ctx context.Context, claim *corev1.PersistentVolumeClaim, phase corev1.PersistentVolumeClaimPhase, volume *corev1.PersistentVolume) (*corev1.PersistentVolumeClaim, error) {
	changed := claim.DeepCopy()
	changed.Status.Phase = phase
	if volume == nil {
		changed.Status.AccessModes, changed.Status.Capacity, changed.Status.CurrentVolumeAttributesClassName = nil, nil, nil
	} else {
		changed.Status.AccessModes = volume.Spec.AccessModes
		if claim.Status.Phase != phase {
			// Later the capacity is the business of whoever expands the volume.
			changed.Status.Capacity = volume.Spec.Capacity
			changed.Status.CurrentVolumeAttributesClassName = volume.Spec.VolumeAttributesClassName
		}
	}
	if equality.Semantic.DeepEqual(changed.Status, claim.Status) {
		return claim, nil
	}
	changed, err := c.client.CoreV1().PersistentVolumeClaims(claim.Namespace).UpdateStatus(ctx, changed, metav1.UpdateOptions{})
	if err != nil {
		return nil, fmt.Errorf("write phase %s: %w", phase, err)
	}
	return changed, nil
}

func (c *Controller) setVolumePhase(ctx context.Context, volume *corev1.PersistentVolume, phase corev1.PersistentVolumePhase, message string) (*corev1.PersistentVolume, error) {
	if volume.Status.Phase == phase {
		return volume, nil
	}
	changed := volume.DeepCopy()
	changed.Status.Phase, changed.Status.Message = phase, message
	changed, err := c.client.CoreV1().PersistentVolumes().UpdateStatus(ctx, changed, metav1.UpdateOptions{})
	if err != nil {
		return nil, fmt.Errorf("write phase %s of volume %s: %w", phase, volume.Name, err)
	}
	return changed, nil
}
