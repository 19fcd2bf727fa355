package volume

import (
	"context"
	"fmt"
	"slices"
	"time"

	v1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/component-helpers/storage/ephemeral"
	volumehelper "k8s.io/component-helpers/storage/volume"
)

// Claims reads claims and volumes from the API.
type Claims interface {
	Claim(ctx context.Context, namespace, name string) (*v1.PersistentVolumeClaim, error)
	PersistentVolume(ctx context.Context, name string) (*v1.PersistentVolume, error)
	// CSIDriver returns what the API says of a driver, nil when it says nothing.
	CSIDriver(ctx context.Context, name string) (*storagev1.CSIDriver, error)
	Attachment(ctx context.Context, name string) (*storagev1.VolumeAttachment, error)
	// VolumeSecret reads a Secret that a volume names.
	VolumeSecret(ctx context.Context, namespace, name string) (*v1.Secret, error)
	// Node returns this node's object, nil before it is known.
	Node() *v1.Node
}

// claimKind is a volume that a PersistentVolumeClaim stands for, its own or one that
// is made for the pod.
func claimKind() kind {
	return kind{
		matches: func(v *v1.Volume) bool { return v.PersistentVolumeClaim != nil || v.Ephemeral != nil },
		setUp:   func(ctx context.Context, r *request) (time.Time, error) { return r.setUpClaim(ctx) },
	}
}

func (r *request) setUpClaim(ctx context.Context) (time.Time, error) {
	kept, err := r.recordOf(r.pod.UID, r.volume.Name)
	if err != nil {
		return time.Time{}, err
	}
	if kept != nil && kept.Path != "" && (kept.CSI == nil || !kept.CSI.Republish) && r.inPlace(kept) {
		// A pod that runs needs no API.
		return time.Time{}, nil
	}
	volume, readOnly, err := r.boundVolume(ctx)
	if err != nil {
		return time.Time{}, err
	}
	if node := r.Claims.Node(); node != nil {
		if err := volumehelper.CheckNodeAffinity(volume, node.Labels); err != nil {
			return time.Time{}, fmt.Errorf("storage node affinity check failed for volume %q: %w", volume.Name, err)
		}
	}
	unlock := r.lock(volume.Name)
	defer unlock()
	if slices.Contains(volume.Spec.AccessModes, v1.ReadWriteOncePod) {
		others, err := r.sharers(r.pod.UID, volume.Name)
		if err != nil {
			return time.Time{}, err
		}
		if len(others) > 0 {
			return time.Time{}, fmt.Errorf("volume uses the ReadWriteOncePod access mode and is already in use by another pod")
		}
	}
	p := &persistent{request: r, pv: volume, readOnly: readOnly, kept: kept}
	switch {
	case volume.Spec.HostPath != nil:
		return time.Time{}, p.hostPath()
	case volume.Spec.Local != nil:
		return time.Time{}, p.local()
	case volume.Spec.CSI != nil:
		return p.csi(ctx)
	}
	return time.Time{}, fmt.Errorf("no volume plugin matched")
}

// boundVolume returns the volume of the claim, when the two belong to each other.
func (r *request) boundVolume(ctx context.Context) (volume *v1.PersistentVolume, readOnly bool, err error) {
	if r.Claims == nil {
		return nil, false, fmt.Errorf("no volume plugin matched")
	}
	name := ""
	if source := r.volume.PersistentVolumeClaim; source != nil {
		name, readOnly = source.ClaimName, source.ReadOnly
	} else {
		name = ephemeral.VolumeClaimName(r.pod, r.volume)
	}
	fail := func(err error) (*v1.PersistentVolume, bool, error) {
		return nil, false, fmt.Errorf("error processing PVC %s/%s: %w", r.pod.Namespace, name, err)
	}
	claim, err := r.Claims.Claim(ctx, r.pod.Namespace, name)
	if err != nil {
		return fail(fmt.Errorf("failed to fetch PVC from API server: %w", err))
	}
	if r.volume.Ephemeral != nil {
		if err := ephemeral.VolumeIsForPod(r.pod, claim); err != nil {
			return nil, false, err
		}
	}
	switch {
	case claim.DeletionTimestamp != nil:
		return fail(fmt.Errorf("PVC is being deleted"))
	case claim.Status.Phase != v1.ClaimBound || claim.Spec.VolumeName == "":
		return fail(fmt.Errorf("PVC is not bound"))
	}
	volume, err = r.Claims.PersistentVolume(ctx, claim.Spec.VolumeName)
	if err != nil {
		return fail(fmt.Errorf("failed to fetch PV %s from API server: %w", claim.Spec.VolumeName, err))
	}
	switch ref := volume.Spec.ClaimRef; {
	case ref == nil:
		return fail(fmt.Errorf("found PV object %q but it has a nil pv.Spec.ClaimRef indicating it is not yet bound to the claim", volume.Name))
	case ref.UID != claim.UID:
		return fail(fmt.Errorf("found PV object %q but its pv.Spec.ClaimRef.UID %q does not point to claim.UID %q", volume.Name, ref.UID, claim.UID))
	}
	return volume, readOnly, r.checkUse(volume)
}

// checkUse compares how the containers use the volume with what it is.
func (r *request) checkUse(volume *v1.PersistentVolume) error {
	mounted, device := false, false
	visit := func(c *v1.Container) {
		for i := range c.VolumeMounts {
			mounted = mounted || c.VolumeMounts[i].Name == r.volume.Name
		}
		for i := range c.VolumeDevices {
			device = device || c.VolumeDevices[i].Name == r.volume.Name
		}
	}
	for i := range r.pod.Spec.InitContainers {
		visit(&r.pod.Spec.InitContainers[i])
	}
	for i := range r.pod.Spec.Containers {
		visit(&r.pod.Spec.Containers[i])
	}
	switch block := isBlock(volume); {
	case block && mounted:
		return fmt.Errorf("volume %s has volumeMode Block, but is specified in volumeMounts", r.volume.Name)
	case !block && device:
		return fmt.Errorf("volume %s has volumeMode Filesystem, but is specified in volumeDevices", r.volume.Name)
	}
	return nil
}

func isBlock(volume *v1.PersistentVolume) bool {
	return volume.Spec.VolumeMode != nil && *volume.Spec.VolumeMode == v1.PersistentVolumeBlock
}

// inPlace reports whether a volume that was set up still is: after a reboot its
// mounts are gone.
func (m *Manager) inPlace(r *record) bool {
	if r.Block || !m.below(r.Path) {
		return true
	}
	return m.isMounted(r.Path)
}

// isMounted looks among the mounts, where bind mounts of one file system are seen too.
func (m *Manager) isMounted(path string) bool {
	is, err := m.Mounter.IsMountPoint(path)
	return err == nil && is
}
