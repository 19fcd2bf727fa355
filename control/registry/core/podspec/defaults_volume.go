package podspec

import (
	corev1 "k8s.io/api/core/v1"
	"k8s.io/utils/ptr"
)

// tokenLifetime is how long a projected service account token is valid when the volume does not
// say, in seconds.
const tokenLifetime int64 = 3600

func defaultVolume(v *corev1.Volume) {
	source := &v.VolumeSource
	if ptr.AllPtrFieldsNil(source) {
		source.EmptyDir = &corev1.EmptyDirVolumeSource{}
	}
	if s := source.Image; s != nil {
		setIfZero(&s.PullPolicy, pullPolicyFor(s.Reference))
	}
	if s := source.HostPath; s != nil {
		setIfNil(&s.Type, corev1.HostPathUnset)
	}
	if s := source.Secret; s != nil {
		setIfNil(&s.DefaultMode, corev1.SecretVolumeSourceDefaultMode)
	}
	if s := source.ConfigMap; s != nil {
		setIfNil(&s.DefaultMode, corev1.ConfigMapVolumeSourceDefaultMode)
	}
	if s := source.DownwardAPI; s != nil {
		setIfNil(&s.DefaultMode, corev1.DownwardAPIVolumeSourceDefaultMode)
		defaultDownwardFiles(s.Items)
	}
	if s := source.Projected; s != nil {
		setIfNil(&s.DefaultMode, corev1.ProjectedVolumeSourceDefaultMode)
		for i := range s.Sources {
			if s.Sources[i].DownwardAPI != nil {
				defaultDownwardFiles(s.Sources[i].DownwardAPI.Items)
			}
			if s.Sources[i].ServiceAccountToken != nil {
				setIfNil(&s.Sources[i].ServiceAccountToken.ExpirationSeconds, tokenLifetime)
			}
		}
	}
	if s := source.Ephemeral; s != nil && s.VolumeClaimTemplate != nil {
		claim := &s.VolumeClaimTemplate.Spec
		setIfNil(&claim.VolumeMode, corev1.PersistentVolumeFilesystem)
		roundUp(claim.Resources.Limits)
		roundUp(claim.Resources.Requests)
	}
	defaultNetworkVolume(source)
}

// defaultNetworkVolume sets the defaults of the volume kinds that name a storage system directly.
func defaultNetworkVolume(source *corev1.VolumeSource) {
	if s := source.ISCSI; s != nil {
		setIfZero(&s.ISCSIInterface, "default")
	}
	if s := source.RBD; s != nil {
		setIfZero(&s.RBDPool, "rbd")
		setIfZero(&s.RadosUser, "admin")
		setIfZero(&s.Keyring, "/etc/ceph/keyring")
	}
	if s := source.AzureDisk; s != nil {
		setIfNil(&s.CachingMode, corev1.AzureDataDiskCachingReadWrite)
		setIfNil(&s.FSType, "ext4")
		setIfNil(&s.ReadOnly, false)
		setIfNil(&s.Kind, corev1.AzureSharedBlobDisk)
	}
	if s := source.ScaleIO; s != nil {
		setIfZero(&s.StorageMode, "ThinProvisioned")
		setIfZero(&s.FSType, "xfs")
	}
}

func defaultDownwardFiles(files []corev1.DownwardAPIVolumeFile) {
	for i := range files {
		defaultFieldRef(files[i].FieldRef)
	}
}
