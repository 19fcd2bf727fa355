package volume

import (
	"context"
	"crypto/sha256"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	spec "github.com/container-storage-interface/spec/lib/go/csi"
	v1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/utils/ptr"

	"github.com/skiff-run/skiff/agent/csi"
)

// CSI knows the drivers of this node.
type CSI interface {
	Driver(name string) (*csi.Driver, error)
}

const (
	csiDir = "kubernetes.io~csi"
	// callLimit bounds one call of a driver.
	callLimit = 2 * time.Minute
	// republishEvery is how often a driver is asked again that wants to be.
	republishEvery = time.Minute
)

// csiKind is a volume that a driver makes for the pod alone.
func csiKind() kind {
	return kind{
		matches: func(v *v1.Volume) bool { return v.CSI != nil },
		setUp:   func(ctx context.Context, r *request) (time.Time, error) { return r.setUpInline(ctx) },
	}
}

// csiVolume is what a driver is asked for, wherever that is said.
type csiVolume struct {
	*request
	driver     *csi.Driver
	object     *storagev1.CSIDriver
	mode       storagev1.VolumeLifecycleMode
	handle     string
	fsType     string
	attributes map[string]string
	options    []string
	access     []v1.PersistentVolumeAccessMode
	readOnly   bool
	block      bool
	// context is what the attachment says of the volume.
	context map[string]string
	secrets map[string]string
	record  *record
	target  string
}

func (r *request) setUpInline(ctx context.Context) (time.Time, error) {
	source := r.volume.CSI
	sum := sha256.Sum256([]byte(string(r.pod.UID) + r.volume.Name))
	v := &csiVolume{
		request: r, mode: storagev1.VolumeLifecycleEphemeral, handle: fmt.Sprintf("csi-%x", sum), fsType: ptr.Deref(source.FSType, ""),
		attributes: source.VolumeAttributes, access: []v1.PersistentVolumeAccessMode{v1.ReadWriteOnce}, readOnly: ptr.Deref(source.ReadOnly, false),
		target: filepath.Join(r.PodDir(r.pod.UID), "volumes", csiDir, r.volume.Name, "mount"),
	}
	kept, err := r.recordOf(r.pod.UID, r.volume.Name)
	if err != nil {
		return time.Time{}, err
	}
	if kept != nil && kept.Path != "" && kept.CSI != nil && !kept.CSI.Republish && r.isMounted(kept.Path) {
		return time.Time{}, nil
	}
	defer r.lock(string(r.pod.UID) + "/" + r.volume.Name)()
	if err := v.find(ctx, source.Driver); err != nil {
		return time.Time{}, err
	}
	if source.NodePublishSecretRef != nil {
		if v.secrets, err = v.secret(ctx, &v1.SecretReference{Namespace: r.pod.Namespace, Name: source.NodePublishSecretRef.Name}, "NodePublishSecretRef"); err != nil {
			return time.Time{}, err
		}
	}
	v.record = goOn(kept, &record{Volume: r.volume.Name, CSI: &csiRecord{Driver: source.Driver, Handle: v.handle}})
	return v.publish(ctx, kept)
}

// csi stages and publishes a PersistentVolume.
func (p *persistent) csi(ctx context.Context) (time.Time, error) {
	source := p.pv.Spec.CSI
	v := &csiVolume{
		request: p.request, mode: storagev1.VolumeLifecyclePersistent, handle: source.VolumeHandle, fsType: source.FSType, attributes: source.VolumeAttributes,
		options: p.pv.Spec.MountOptions, access: p.pv.Spec.AccessModes, readOnly: p.readOnly || source.ReadOnly, block: isBlock(p.pv),
		target: filepath.Join(p.PodDir(p.pod.UID), "volumes", csiDir, p.pv.Name, "mount"),
	}
	if v.block {
		v.target = filepath.Join(p.RootDir, "plugins", "kubernetes.io", "csi", "volumeDevices", "publish", p.pv.Name, string(p.pod.UID))
	}
	if err := v.find(ctx, source.Driver); err != nil {
		return time.Time{}, err
	}
	if err := v.attachment(ctx); err != nil {
		return time.Time{}, err
	}
	v.record = goOn(p.kept, &record{Volume: p.volume.Name, PersistentVolume: p.pv.Name, Block: v.block, CSI: &csiRecord{Driver: source.Driver, Handle: v.handle}})
	if err := v.stage(ctx, source.NodeStageSecretRef, p.pv.Name); err != nil {
		return time.Time{}, err
	}
	var err error
	if source.NodePublishSecretRef != nil {
		if v.secrets, err = v.secret(ctx, source.NodePublishSecretRef, "NodePublishSecretRef"); err != nil {
			return time.Time{}, err
		}
	}
	return v.publish(ctx, p.kept)
}

// goOn returns the record of an earlier time if there is one: what was begun then must
// not be forgotten.
func goOn(kept, fresh *record) *record {
	if kept == nil || kept.CSI == nil {
		return fresh
	}
	again, own := *kept, *kept.CSI
	again.CSI = &own
	return &again
}

// find gets the driver and what the API says of it.
func (v *csiVolume) find(ctx context.Context, name string) error {
	if v.CSI == nil || v.Claims == nil {
		return fmt.Errorf("no volume plugin matched")
	}
	var err error
	if v.driver, err = v.CSI.Driver(name); err != nil {
		return fmt.Errorf("failed to get CSI client: %w", err)
	}
	if v.object, err = v.Claims.CSIDriver(ctx, name); err != nil {
		return fmt.Errorf("read CSIDriver %s: %w", name, err)
	}
	switch {
	case v.object == nil && v.mode == storagev1.VolumeLifecycleEphemeral:
		return fmt.Errorf("volume mode %q not supported by driver %s (no CSIDriver object)", v.mode, name)
	case v.object != nil && len(v.object.Spec.VolumeLifecycleModes) > 0 && !slices.Contains(v.object.Spec.VolumeLifecycleModes, v.mode):
		return fmt.Errorf("volume mode %q not supported by driver %s (only supports %q)", v.mode, name, v.object.Spec.VolumeLifecycleModes)
	}
	return nil
}

// AttachmentName is what the attachment of a volume to a node is called.
func AttachmentName(handle, driver, node string) string {
	return fmt.Sprintf("csi-%x", sha256.Sum256([]byte(handle+driver+node)))
}

// attachment checks that a volume which has to be attached is, and learns what the
// attacher said.
func (v *csiVolume) attachment(ctx context.Context) error {
	if v.object != nil && !ptr.Deref(v.object.Spec.AttachRequired, true) {
		return nil
	}
	attachment, err := v.Claims.Attachment(ctx, AttachmentName(v.handle, v.driver.Name, v.pod.Spec.NodeName))
	if err != nil {
		return fmt.Errorf("volume has not been attached to this node yet: %w", err)
	}
	if !attachment.Status.Attached {
		if failed := attachment.Status.AttachError; failed != nil {
			return fmt.Errorf("AttachVolume.Attach failed: %s", failed.Message)
		}
		return fmt.Errorf("volume has not been attached to this node yet: waiting for the attacher of %s", v.driver.Name)
	}
	v.context = attachment.Status.AttachmentMetadata
	return nil
}

func (v *csiVolume) secret(ctx context.Context, ref *v1.SecretReference, what string) (map[string]string, error) {
	secret, err := v.Claims.VolumeSecret(ctx, ref.Namespace, ref.Name)
	if err != nil {
		return nil, fmt.Errorf("fetching %s %s/%s failed: %w", what, ref.Namespace, ref.Name, err)
	}
	content := map[string]string{}
	for key, value := range secret.Data {
		content[key] = string(value)
	}
	return content, nil
}

// stage makes the volume ready for all pods of this node, if the driver wants that.
func (v *csiVolume) stage(ctx context.Context, secretRef *v1.SecretReference, name string) error {
	can, err := v.driver.Can(ctx, spec.NodeServiceCapability_RPC_STAGE_UNSTAGE_VOLUME)
	if err != nil || !can {
		return err
	}
	sum := sha256.Sum256([]byte(v.handle))
	staged := filepath.Join(v.RootDir, "plugins", "kubernetes.io", "csi", v.driver.Name, fmt.Sprintf("%x", sum), "globalmount")
	if v.block {
		staged = filepath.Join(v.RootDir, "plugins", "kubernetes.io", "csi", "volumeDevices", "staging", name)
	}
	v.record.Staged = staged
	if err := v.keep(v.pod.UID, v.record); err != nil {
		return err
	}
	var secrets map[string]string
	if secretRef != nil {
		if secrets, err = v.secret(ctx, secretRef, "NodeStageSecretRef"); err != nil {
			return err
		}
	}
	if err := os.MkdirAll(staged, 0o750); err != nil {
		return fmt.Errorf("make the staging directory: %w", err)
	}
	capability, err := v.capability(ctx)
	if err != nil {
		return err
	}
	call, cancel := context.WithTimeout(ctx, callLimit)
	defer cancel()
	if err := v.driver.Stage(call, &spec.NodeStageVolumeRequest{
		VolumeId: v.handle, PublishContext: v.context, StagingTargetPath: staged, VolumeCapability: capability, Secrets: secrets, VolumeContext: v.attributes,
	}); err != nil {
		return fmt.Errorf("MountVolume.MountDevice failed for volume %q : %w", name, err)
	}
	return nil
}

// publish shows the volume to the pod.
func (v *csiVolume) publish(ctx context.Context, kept *record) (time.Time, error) {
	if kept != nil && kept.Path != "" && v.inPlace(kept) && !(v.object != nil && ptr.Deref(v.object.Spec.RequiresRepublish, false)) {
		return time.Time{}, nil
	}
	v.record.CSI.Published = true
	if v.object != nil {
		v.record.CSI.Republish = ptr.Deref(v.object.Spec.RequiresRepublish, false)
	}
	v.record.CSI.Target = v.target
	if err := v.keep(v.pod.UID, v.record); err != nil {
		return time.Time{}, err
	}
	if err := os.MkdirAll(filepath.Dir(v.target), 0o750); err != nil {
		return time.Time{}, fmt.Errorf("make the volume's directory: %w", err)
	}
	attributes, secrets, err := v.podAttributes(ctx)
	if err != nil {
		return time.Time{}, err
	}
	capability, err := v.capability(ctx)
	if err != nil {
		return time.Time{}, err
	}
	call, cancel := context.WithTimeout(ctx, callLimit)
	defer cancel()
	if err := v.driver.Publish(call, &spec.NodePublishVolumeRequest{
		VolumeId: v.handle, PublishContext: v.context, StagingTargetPath: v.record.Staged, TargetPath: v.target, VolumeCapability: capability,
		Readonly: v.readOnly, Secrets: secrets, VolumeContext: attributes,
	}); err != nil {
		return time.Time{}, err
	}
	if v.record.Path == "" {
		if err := v.giveToGroup(ctx); err != nil {
			return time.Time{}, err
		}
	}
	v.record.Path = v.target
	if err := v.keep(v.pod.UID, v.record); err != nil {
		return time.Time{}, err
	}
	if v.record.CSI.Republish {
		return v.Now().Add(republishEvery), nil
	}
	return time.Time{}, nil
}

// giveToGroup sets the group of what the driver published, where the driver has not
// done so and wants it.
func (v *csiVolume) giveToGroup(ctx context.Context) error {
	group := fsGroup(v.pod)
	if group == nil || v.block || v.readOnly {
		return nil
	}
	if does, err := v.driver.Can(ctx, spec.NodeServiceCapability_RPC_VOLUME_MOUNT_GROUP); does || err != nil {
		return err
	}
	policy := storagev1.ReadWriteOnceWithFSTypeFSGroupPolicy
	if v.object != nil {
		policy = ptr.Deref(v.object.Spec.FSGroupPolicy, policy)
	}
	switch policy {
	case storagev1.NoneFSGroupPolicy:
		return nil
	case storagev1.FileFSGroupPolicy:
	default:
		alone := slices.Contains(v.access, v1.ReadWriteOnce) || slices.Contains(v.access, v1.ReadWriteOncePod)
		if v.fsType == "" || !alone {
			return nil
		}
	}
	return setOwnership(v.target, group, false, changePolicy(v.pod))
}

func (v *csiVolume) capability(ctx context.Context) (*spec.VolumeCapability, error) {
	capability := &spec.VolumeCapability{AccessMode: &spec.VolumeCapability_AccessMode{}}
	precise, err := v.driver.Can(ctx, spec.NodeServiceCapability_RPC_SINGLE_NODE_MULTI_WRITER)
	if err != nil {
		return nil, err
	}
	capability.AccessMode.Mode = accessMode(v.access, precise)
	if v.block {
		capability.AccessType = &spec.VolumeCapability_Block{Block: &spec.VolumeCapability_BlockVolume{}}
		return capability, nil
	}
	mount := &spec.VolumeCapability_MountVolume{FsType: v.fsType, MountFlags: v.options}
	if group := fsGroup(v.pod); group != nil {
		takes, err := v.driver.Can(ctx, spec.NodeServiceCapability_RPC_VOLUME_MOUNT_GROUP)
		if err != nil {
			return nil, err
		}
		if takes {
			mount.VolumeMountGroup = strconv.FormatInt(*group, 10)
		}
	}
	capability.AccessType = &spec.VolumeCapability_Mount{Mount: mount}
	return capability, nil
}

// accessMode is CSI's word for the first access mode; precise drivers tell one writer
// from several on one node.
func accessMode(modes []v1.PersistentVolumeAccessMode, precise bool) spec.VolumeCapability_AccessMode_Mode {
	mode := v1.ReadWriteOnce
	if len(modes) > 0 {
		mode = modes[0]
	}
	switch {
	case mode == v1.ReadOnlyMany:
		return spec.VolumeCapability_AccessMode_MULTI_NODE_READER_ONLY
	case mode == v1.ReadWriteMany:
		return spec.VolumeCapability_AccessMode_MULTI_NODE_MULTI_WRITER
	case mode == v1.ReadWriteOncePod && precise:
		return spec.VolumeCapability_AccessMode_SINGLE_NODE_SINGLE_WRITER
	case mode == v1.ReadWriteOnce && precise:
		return spec.VolumeCapability_AccessMode_SINGLE_NODE_MULTI_WRITER
	}
	return spec.VolumeCapability_AccessMode_SINGLE_NODE_WRITER
}
