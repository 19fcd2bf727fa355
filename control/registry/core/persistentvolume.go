package core

import (
	"context"
	"fmt"
	"strings"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/validation/field"
	volumehelper "k8s.io/component-helpers/storage/volume"
	"k8s.io/utils/ptr"

	"github.com/skiff-run/skiff/control/registry"
	"github.com/skiff-run/skiff/control/registry/core/podspec"
)

// mountOptionAnnotation is the older form of spec.mountOptions.
const mountOptionAnnotation = "volume.beta.kubernetes.io/mount-options"

// unset is what tables say of a field that has no value.
const unset = "<unset>"

// persistentVolumeKind serves PersistentVolumes.
func persistentVolumeKind() registry.Kind[*corev1.PersistentVolume] {
	spec, status := corev1.PersistentVolumeSpec{}.SwaggerDoc(), corev1.PersistentVolumeStatus{}.SwaggerDoc()
	return registry.Kind[*corev1.PersistentVolume]{
		Version: corev1.SchemeGroupVersion, Plural: "persistentvolumes", Singular: "persistentvolume", ShortNames: []string{"pv"}, ClusterScoped: true,
		New:          func() *corev1.PersistentVolume { return &corev1.PersistentVolume{} },
		NewList:      func() runtime.Object { return &corev1.PersistentVolumeList{} },
		Default:      defaultPersistentVolume,
		Spec:         func(v *corev1.PersistentVolume) any { return &v.Spec },
		Status:       func(v *corev1.PersistentVolume) any { return &v.Status },
		ValidateName: apivalidation.NameIsDNSSubdomain,
		PrepareForCreate: func(_ context.Context, v *corev1.PersistentVolume) {
			v.Status = corev1.PersistentVolumeStatus{Phase: corev1.VolumePending, LastPhaseTransitionTime: ptr.To(metav1.Now())}
		},
		Validate: func(_ context.Context, v *corev1.PersistentVolume) field.ErrorList {
			return validatePersistentVolume(v)
		},
		ValidateUpdate: func(_ context.Context, v, old *corev1.PersistentVolume) field.ErrorList {
			return validatePersistentVolumeUpdate(v, old)
		},
		Warnings:       func(_ context.Context, v, _ *corev1.PersistentVolume) []string { return persistentVolumeWarnings(v) },
		PrepareStatus:  func(_ context.Context, v, old *corev1.PersistentVolume) { notePhaseTransition(v, old) },
		ValidateStatus: func(_ context.Context, v, _ *corev1.PersistentVolume) field.ErrorList { return needsVersion(v) },
		Columns: []metav1.TableColumnDefinition{
			registry.NameColumn(),
			registry.Column("Capacity", "string", spec["capacity"]),
			registry.Column("Access Modes", "string", spec["accessModes"]),
			registry.Column("Reclaim Policy", "string", spec["persistentVolumeReclaimPolicy"]),
			registry.Column("Status", "string", status["phase"]),
			registry.Column("Claim", "string", spec["claimRef"]),
			registry.Column("StorageClass", "string", "StorageClass of the pv"),
			registry.Column("VolumeAttributesClass", "string", "VolumeAttributesClass of the pv"),
			registry.Column("Reason", "string", status["reason"]),
			registry.AgeColumn(),
			registry.Wide(registry.Column("VolumeMode", "string", spec["volumeMode"])),
		},
		Row: persistentVolumeRow,
	}
}

func defaultPersistentVolume(v *corev1.PersistentVolume) {
	if v.Status.Phase == "" {
		v.Status.Phase = corev1.VolumePending
	}
	if v.Spec.PersistentVolumeReclaimPolicy == "" {
		v.Spec.PersistentVolumeReclaimPolicy = corev1.PersistentVolumeReclaimRetain
	}
	if v.Spec.VolumeMode == nil {
		v.Spec.VolumeMode = ptr.To(corev1.PersistentVolumeFilesystem)
	}
	if v.Spec.HostPath != nil && v.Spec.HostPath.Type == nil {
		v.Spec.HostPath.Type = ptr.To(corev1.HostPathUnset)
	}
	if s := v.Spec.ISCSI; s != nil && s.ISCSIInterface == "" {
		s.ISCSIInterface = "default"
	}
	if s := v.Spec.RBD; s != nil {
		for to, otherwise := range map[*string]string{&s.RBDPool: "rbd", &s.RadosUser: "admin", &s.Keyring: "/etc/ceph/keyring"} {
			if *to == "" {
				*to = otherwise
			}
		}
	}
	if s := v.Spec.AzureDisk; s != nil {
		s.CachingMode = ptr.To(ptr.Deref(s.CachingMode, corev1.AzureDataDiskCachingReadWrite))
		s.FSType, s.ReadOnly = ptr.To(ptr.Deref(s.FSType, "ext4")), ptr.To(ptr.Deref(s.ReadOnly, false))
		s.Kind = ptr.To(ptr.Deref(s.Kind, corev1.AzureSharedBlobDisk))
	}
	if s := v.Spec.ScaleIO; s != nil {
		if s.StorageMode == "" {
			s.StorageMode = "ThinProvisioned"
		}
		if s.FSType == "" {
			s.FSType = "xfs"
		}
	}
	roundUp(v.Spec.Capacity)
}

func validatePersistentVolume(v *corev1.PersistentVolume) field.ErrorList {
	errs := podspec.ValidatePersistentVolumeSpec(&v.Spec, v.Name, false, field.NewPath("spec"))
	if _, has := v.Annotations[mountOptionAnnotation]; has && !takesMountOptions(&v.Spec) {
		errs = append(errs, field.Forbidden(field.NewPath("metadata", "annotations", mountOptionAnnotation), "may not specify mount options for this volume type"))
	}
	return errs
}

func takesMountOptions(s *corev1.PersistentVolumeSpec) bool {
	return s.GCEPersistentDisk != nil || s.AWSElasticBlockStore != nil || s.Glusterfs != nil || s.NFS != nil || s.RBD != nil ||
		s.Quobyte != nil || s.ISCSI != nil || s.Cinder != nil || s.CephFS != nil || s.AzureFile != nil || s.VsphereVolume != nil ||
		s.AzureDisk != nil || s.PhotonPersistentDisk != nil
}

func validatePersistentVolumeUpdate(v, old *corev1.PersistentVolume) field.ErrorList {
	var errs field.ErrorList
	source := v.Spec.PersistentVolumeSource.DeepCopy()
	if was := old.Spec.CSI; was != nil && was.ControllerExpandSecretRef == nil && source.CSI != nil {
		// A secret for expansion may be added later.
		source.CSI.ControllerExpandSecretRef = nil
	}
	if !apiequality.Semantic.DeepEqual(*source, old.Spec.PersistentVolumeSource) {
		errs = append(errs, field.Forbidden(field.NewPath("spec", "persistentvolumesource"),
			"spec.persistentvolumesource is immutable after creation\n"+cmp.Diff(old.Spec.PersistentVolumeSource, *source)))
	}
	errs = append(errs, apivalidation.ValidateImmutableField(v.Spec.VolumeMode, old.Spec.VolumeMode, field.NewPath("volumeMode"))...)
	if old.Spec.NodeAffinity != nil {
		// Where a volume can be reached does not change once it is said.
		errs = append(errs, apivalidation.ValidateImmutableField(v.Spec.NodeAffinity, old.Spec.NodeAffinity, field.NewPath("nodeAffinity"))...)
	}
	if old.Spec.VolumeAttributesClassName != nil && v.Spec.VolumeAttributesClassName == nil {
		errs = append(errs, field.Forbidden(field.NewPath("spec", "volumeAttributesClassName"), "update from non-nil value to nil is forbidden"))
	}
	return errs
}

// notePhaseTransition stamps the time of a new phase unless the client has.
func notePhaseTransition(v, old *corev1.PersistentVolume) {
	switch given, before := v.Status.LastPhaseTransitionTime, old.Status.LastPhaseTransitionTime; {
	case v.Status.Phase == old.Status.Phase:
		if given == nil {
			v.Status.LastPhaseTransitionTime = before
		}
	case given == nil || given.Equal(before):
		v.Status.LastPhaseTransitionTime = ptr.To(metav1.Now())
	}
}

func needsVersion(o metav1.Object) field.ErrorList {
	if o.GetResourceVersion() == "" {
		return field.ErrorList{field.Required(field.NewPath("resourceVersion"), "")}
	}
	return nil
}

func persistentVolumeWarnings(v *corev1.PersistentVolume) []string {
	var warnings []string
	warn := func(path *field.Path, message string) {
		warnings = append(warnings, fmt.Sprintf("%s: %s", path, message))
	}
	annotations := field.NewPath("metadata", "annotations")
	if _, has := v.Annotations[corev1.BetaStorageClassAnnotation]; has {
		warn(annotations.Key(corev1.BetaStorageClassAnnotation), `deprecated since v1.8; use "storageClassName" attribute instead`)
	}
	if _, has := v.Annotations[mountOptionAnnotation]; has {
		warn(annotations.Key(mountOptionAnnotation), `deprecated since v1.31; use "mountOptions" attribute instead`)
	}
	spec := field.NewPath("spec")
	if v.Spec.PersistentVolumeReclaimPolicy == corev1.PersistentVolumeReclaimRecycle {
		warn(spec.Child("persistentVolumeReclaimPolicy"), "The Recycle reclaim policy is deprecated. Instead, the recommended approach is to use dynamic provisioning.")
	}
	for _, old := range []struct {
		used bool
		name string
		text string
	}{
		{v.Spec.CephFS != nil, "cephfs", "deprecated in v1.28, non-functional in v1.31+"},
		{v.Spec.PhotonPersistentDisk != nil, "photonPersistentDisk", "deprecated in v1.11, non-functional in v1.16+"},
		{v.Spec.ScaleIO != nil, "scaleIO", "deprecated in v1.16, non-functional in v1.22+"},
		{v.Spec.StorageOS != nil, "storageOS", "deprecated in v1.22, non-functional in v1.25+"},
		{v.Spec.Glusterfs != nil, "glusterfs", "deprecated in v1.25, non-functional in v1.26+"},
		{v.Spec.RBD != nil, "rbd", "deprecated in v1.28, non-functional in v1.31+"},
	} {
		if old.used {
			warn(spec.Child(old.name), old.text)
		}
	}
	return warnings
}

// modes are kubectl's abbreviations of access modes, each once and in this order.
func modes(list []corev1.PersistentVolumeAccessMode) string {
	var short []string
	for _, mode := range []struct {
		name  corev1.PersistentVolumeAccessMode
		short string
	}{{corev1.ReadWriteOnce, "RWO"}, {corev1.ReadOnlyMany, "ROX"}, {corev1.ReadWriteMany, "RWX"}, {corev1.ReadWriteOncePod, "RWOP"}} {
		for _, has := range list {
			if has == mode.name {
				short = append(short, mode.short)
				break
			}
		}
	}
	return strings.Join(short, ",")
}

func persistentVolumeRow(v *corev1.PersistentVolume) []any {
	claim := ""
	if ref := v.Spec.ClaimRef; ref != nil {
		claim = ref.Namespace + "/" + ref.Name
	}
	phase := string(v.Status.Phase)
	if v.DeletionTimestamp != nil {
		phase = "Terminating"
	}
	capacity := v.Spec.Capacity[corev1.ResourceStorage]
	return []any{
		v.Name, capacity.String(), modes(v.Spec.AccessModes), string(v.Spec.PersistentVolumeReclaimPolicy), phase, claim,
		volumehelper.GetPersistentVolumeClass(v), ptr.Deref(v.Spec.VolumeAttributesClassName, unset), v.Status.Reason,
		registry.Age(v.CreationTimestamp), string(ptr.Deref(v.Spec.VolumeMode, unset)),
	}
}

func addPersistentVolumes(deps *registry.Dependencies, storages registry.Storages) error {
	_, volumes, err := registry.Build(deps, persistentVolumeKind())
	if err != nil {
		return err
	}
	_, claims, err := registry.Build(deps, persistentVolumeClaimKind())
	if err != nil {
		return err
	}
	storages.Add(volumes).Add(claims)
	return nil
}
