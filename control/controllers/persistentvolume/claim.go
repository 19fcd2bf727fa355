package persistentvolume

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	volumehelper "k8s.io/component-helpers/storage/volume"
	"k8s.io/utils/ptr"

	"github.com/skiff-run/skiff/control/controllers/podstate"
	"github.com/skiff-run/skiff/control/controllers/reconcile"
	"github.com/skiff-run/skiff/control/registry/storage"
)

// Reasons of events, upstream's.
const (
	failedBinding        = "FailedBinding"
	volumeMismatch       = "VolumeMismatch"
	volumeFailedRecycle  = "VolumeFailedRecycle"
	volumeFailedDelete   = "VolumeFailedDelete"
	externalProvisioning = "ExternalProvisioning"
	provisioningFailed   = "ProvisioningFailed"
	waitForFirstConsumer = "WaitForFirstConsumer"
	waitForPodScheduled  = "WaitForPodScheduled"
)

func (c *Controller) reconcileClaim(ctx context.Context, key reconcile.Key) error {
	claim, err := c.claims.PersistentVolumeClaims(key.Namespace).Get(key.Name)
	if apierrors.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read claim: %w", err)
	}
	switch {
	case metav1.HasAnnotation(claim.ObjectMeta, volumehelper.AnnBindCompleted):
		return c.boundClaim(ctx, claim)
	case claim.Spec.VolumeName != "":
		return c.claimOfVolume(ctx, claim)
	}
	return c.unboundClaim(ctx, claim)
}

// unboundClaim looks for a volume, or asks a provisioner to make one.
func (c *Controller) unboundClaim(ctx context.Context, claim *corev1.PersistentVolumeClaim) error {
	delayed, err := volumehelper.IsDelayBindingMode(claim, c.classes)
	if err != nil {
		return fmt.Errorf("binding mode of claim: %w", err)
	}
	volume, err := c.bestMatch(claim, delayed)
	if err != nil {
		return fmt.Errorf("find a volume for claim: %w", err)
	}
	if volume != nil {
		return c.bind(ctx, volume, claim)
	}
	if given, err := c.giveDefaultClass(ctx, claim); given || err != nil {
		return err
	}
	switch {
	case delayed && !volumehelper.IsDelayBindingProvisioning(claim):
		c.tellWhoIsAwaited(claim)
	case volumehelper.GetPersistentVolumeClaimClass(claim) != "":
		if claim, err = c.askForVolume(ctx, claim); err != nil {
			return err
		}
	default:
		c.events.Event(claim, corev1.EventTypeNormal, failedBinding, "no persistent volumes available for this claim and no storage class is set")
	}
	_, err = c.setClaimPhase(ctx, claim, corev1.ClaimPending, nil)
	return err
}

func (c *Controller) bestMatch(claim *corev1.PersistentVolumeClaim, delayed bool) (*corev1.PersistentVolume, error) {
	all, err := c.volumes.List(labels.Everything())
	if err != nil {
		return nil, err
	}
	fitting := slices.DeleteFunc(all, func(v *corev1.PersistentVolume) bool { return !volumehelper.CheckAccessModes(claim, v) })
	// Among equals the choice must not depend on the order of a map.
	slices.SortFunc(fitting, func(a, b *corev1.PersistentVolume) int { return strings.Compare(a.Name, b.Name) })
	return volumehelper.FindMatchingVolume(claim, fitting, nil, nil, delayed, true)
}

// giveDefaultClass gives a claim without a class the one that has become the
// default since.
func (c *Controller) giveDefaultClass(ctx context.Context, claim *corev1.PersistentVolumeClaim) (bool, error) {
	if volumehelper.PersistentVolumeClaimHasClass(claim) {
		return false, nil
	}
	classes, err := c.classes.List(labels.Everything())
	if err != nil {
		return false, fmt.Errorf("list storage classes: %w", err)
	}
	class := storage.DefaultClass(classes)
	if class == nil {
		return false, nil
	}
	claim = claim.DeepCopy()
	claim.Spec.StorageClassName = &class.Name
	if _, err := c.client.CoreV1().PersistentVolumeClaims(claim.Namespace).Update(ctx, claim, metav1.UpdateOptions{}); err != nil {
		return false, fmt.Errorf("give claim the default class: %w", err)
	}
	return true, nil
}

func (c *Controller) tellWhoIsAwaited(claim *corev1.PersistentVolumeClaim) {
	reason, message := waitForFirstConsumer, "waiting for first consumer to be created before binding"
	var names []string
	if pods, err := podstate.UsingClaim(c.pods, claim.Namespace, claim.Name); err == nil {
		for _, pod := range pods {
			if !podstate.Finished(pod) && pod.Spec.NodeName == "" {
				names = append(names, pod.Name)
			}
		}
	}
	slices.Sort(names)
	switch {
	case len(names) == 1:
		reason, message = waitForPodScheduled, fmt.Sprintf("waiting for pod %s to be scheduled", names[0])
	case len(names) > 1:
		reason, message = waitForPodScheduled, fmt.Sprintf("waiting for pods %s to be scheduled", strings.Join(names, ","))
	}
	c.events.Event(claim, corev1.EventTypeNormal, reason, message)
}

// askForVolume tells the provisioner of the claim's class that it is its turn.
func (c *Controller) askForVolume(ctx context.Context, claim *corev1.PersistentVolumeClaim) (*corev1.PersistentVolumeClaim, error) {
	class, err := c.classes.Get(volumehelper.GetPersistentVolumeClaimClass(claim))
	if err != nil {
		c.events.Event(claim, corev1.EventTypeWarning, provisioningFailed, err.Error())
		if apierrors.IsNotFound(err) {
			return claim, nil
		}
		return claim, fmt.Errorf("read class of claim: %w", err)
	}
	if strings.HasPrefix(class.Provisioner, "kubernetes.io/") {
		c.events.Eventf(claim, corev1.EventTypeWarning, provisioningFailed, "no volume plugin matched name: %s", class.Provisioner)
		return claim, nil
	}
	if claim.Annotations[volumehelper.AnnStorageProvisioner] != class.Provisioner {
		claim = claim.DeepCopy()
		metav1.SetMetaDataAnnotation(&claim.ObjectMeta, volumehelper.AnnBetaStorageProvisioner, class.Provisioner)
		metav1.SetMetaDataAnnotation(&claim.ObjectMeta, volumehelper.AnnStorageProvisioner, class.Provisioner)
		if claim, err = c.client.CoreV1().PersistentVolumeClaims(claim.Namespace).Update(ctx, claim, metav1.UpdateOptions{}); err != nil {
			return claim, fmt.Errorf("name the provisioner of claim: %w", err)
		}
	}
	c.events.Eventf(claim, corev1.EventTypeNormal, externalProvisioning,
		"Waiting for a volume to be created either by the external provisioner '%s' or manually by the system administrator. "+
			"If volume creation is delayed, please verify that the provisioner is running and correctly registered.", class.Provisioner)
	return claim, nil
}

// claimOfVolume handles a claim that names its volume and is not bound yet.
func (c *Controller) claimOfVolume(ctx context.Context, claim *corev1.PersistentVolumeClaim) error {
	volume, err := c.volumes.Get(claim.Spec.VolumeName)
	if err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("read volume of claim: %w", err)
	}
	switch {
	case err != nil:
	case volume.Spec.ClaimRef == nil:
		why := unfit(volume, claim)
		if why == nil {
			return c.bind(ctx, volume, claim)
		}
		c.events.Eventf(claim, corev1.EventTypeWarning, volumeMismatch, "Cannot bind to requested volume %q: %s", volume.Name, why)
	case volumehelper.IsVolumeBoundToClaim(volume, claim):
		return c.bind(ctx, volume, claim)
	default:
		c.events.Eventf(claim, corev1.EventTypeWarning, failedBinding, "volume %q already bound to a different claim.", volume.Name)
		if metav1.HasAnnotation(claim.ObjectMeta, volumehelper.AnnBoundByController) {
			return fmt.Errorf("invalid binding to volume %q, which claim %s/%s has", volume.Name, volume.Spec.ClaimRef.Namespace, volume.Spec.ClaimRef.Name)
		}
	}
	_, err = c.setClaimPhase(ctx, claim, corev1.ClaimPending, nil)
	return err
}

// unfit says why a volume does not satisfy a claim that asks for it by name.
func unfit(volume *corev1.PersistentVolume, claim *corev1.PersistentVolumeClaim) error {
	has, wants := volume.Spec.Capacity[corev1.ResourceStorage], claim.Spec.Resources.Requests[corev1.ResourceStorage]
	switch {
	case volume.DeletionTimestamp != nil:
		return fmt.Errorf("the volume is marked for deletion %q", volume.Name)
	case has.Value() < wants.Value():
		return errors.New("requested PV is too small")
	case volumehelper.GetPersistentVolumeClass(volume) != volumehelper.GetPersistentVolumeClaimClass(claim):
		return errors.New("storageClassName does not match")
	case ptr.Deref(claim.Spec.VolumeAttributesClassName, "") != ptr.Deref(volume.Spec.VolumeAttributesClassName, ""):
		return errors.New("volumeAttributesClassName does not match")
	case volumehelper.CheckVolumeModeMismatches(&claim.Spec, &volume.Spec):
		return errors.New("incompatible volumeMode")
	case !volumehelper.CheckAccessModes(claim, volume):
		return errors.New("incompatible accessMode")
	}
	return nil
}

// boundClaim handles a claim that was bound: it stays so, or it is lost.
func (c *Controller) boundClaim(ctx context.Context, claim *corev1.PersistentVolumeClaim) error {
	if claim.Spec.VolumeName == "" {
		return c.lose(ctx, claim, "ClaimLost", "Bound claim has lost reference to PersistentVolume. Data on the volume is lost!")
	}
	volume, err := c.volumes.Get(claim.Spec.VolumeName)
	switch {
	case apierrors.IsNotFound(err):
		return c.lose(ctx, claim, "ClaimLost", "Bound claim has lost its PersistentVolume. Data on the volume is lost!")
	case err != nil:
		return fmt.Errorf("read volume of claim: %w", err)
	case volume.Spec.ClaimRef == nil || volume.Spec.ClaimRef.UID == claim.UID:
		return c.bind(ctx, volume, claim)
	}
	return c.lose(ctx, claim, "ClaimMisbound", "Two claims are bound to the same volume, this one is bound incorrectly")
}

func (c *Controller) lose(ctx context.Context, claim *corev1.PersistentVolumeClaim, reason, message string) error {
	if claim.Status.Phase == corev1.ClaimLost {
		return nil
	}
	claim, err := c.setClaimPhase(ctx, claim, corev1.ClaimLost, nil)
	if err == nil {
		c.events.Event(claim, corev1.EventTypeWarning, reason, message)
	}
	return err
}
