package podspec

import (
	"path"

	corev1 "k8s.io/api/core/v1"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// ValidatePersistentVolumeSpec checks what a PersistentVolume is. inline is the spec within a
// VolumeAttachment, which may say less.
func ValidatePersistentVolumeSpec(spec *corev1.PersistentVolumeSpec, name string, inline bool, path *field.Path) field.ErrorList {
	v := &validator{}
	if inline {
		v.inlinePersistentVolume(spec, path)
	}
	if len(spec.AccessModes) == 0 {
		v.required(path.Child("accessModes"), "")
	}
	v.accessModes(spec.AccessModes, path.Child("accessModes"))
	if !inline {
		v.volumeCapacity(spec.Capacity, path.Child("capacity"))
		v.reclaimPolicy(spec, path.Child("persistentVolumeReclaimPolicy"))
		v.volumeNodeAffinity(spec.NodeAffinity, path.Child("nodeAffinity"))
	}
	v.persistentSource(spec, name, path)
	if !inline {
		v.className(&spec.StorageClassName, path.Child("storageClassName"))
		if spec.VolumeMode != nil {
			oneOf(&v.findings, path.Child("volumeMode"), *spec.VolumeMode, corev1.PersistentVolumeBlock, corev1.PersistentVolumeFilesystem)
		}
	}
	v.attributesClass(spec, path)
	return v.list
}

func (v *validator) inlinePersistentVolume(spec *corev1.PersistentVolumeSpec, path *field.Path) {
	const context = "may not be specified in the context of inline volumes"
	if spec.ClaimRef != nil {
		v.forbidden(path.Child("claimRef"), context)
	}
	if len(spec.Capacity) != 0 {
		v.forbidden(path.Child("capacity"), context)
	}
	if spec.CSI == nil {
		v.required(path.Child("csi"), "has to be specified in the context of inline volumes")
	}
	if policy := spec.PersistentVolumeReclaimPolicy; policy != "" && policy != corev1.PersistentVolumeReclaimRetain {
		v.forbidden(path.Child("persistentVolumeReclaimPolicy"), "may only be Retain in the context of inline volumes")
	}
	if spec.NodeAffinity != nil {
		v.forbidden(path.Child("nodeAffinity"), context)
	}
	if spec.StorageClassName != "" {
		v.forbidden(path.Child("storageClassName"), context)
	}
	if spec.VolumeMode != nil && *spec.VolumeMode != corev1.PersistentVolumeFilesystem {
		v.forbidden(path.Child("volumeMode"), "may not specify volumeMode other than Filesystem in the context of inline volumes")
	}
}

func (v *validator) volumeCapacity(capacity corev1.ResourceList, path *field.Path) {
	if len(capacity) == 0 {
		v.required(path, "")
	}
	if _, has := capacity[corev1.ResourceStorage]; !has || len(capacity) > 1 {
		v.add(field.NotSupported(path, capacity, []corev1.ResourceName{corev1.ResourceStorage}))
	}
	for _, name := range sortedKeys(capacity) {
		amount := capacity[name]
		if amount.Sign() < 0 {
			v.invalid(path.Key(string(name)), amount.Value(), "must be a valid resource quantity")
		}
		if amount.Sign() <= 0 {
			v.invalid(path.Key(string(name)), amount.String(), "must be greater than zero")
		}
	}
}

func (v *validator) reclaimPolicy(spec *corev1.PersistentVolumeSpec, at *field.Path) {
	if spec.PersistentVolumeReclaimPolicy != "" {
		oneOf(&v.findings, at, spec.PersistentVolumeReclaimPolicy,
			corev1.PersistentVolumeReclaimDelete, corev1.PersistentVolumeReclaimRecycle, corev1.PersistentVolumeReclaimRetain)
	}
	if spec.HostPath != nil && path.Clean(spec.HostPath.Path) == "/" && spec.PersistentVolumeReclaimPolicy == corev1.PersistentVolumeReclaimRecycle {
		v.forbidden(at, "may not be 'recycle' for a hostPath mount of '/'")
	}
}

func (v *validator) volumeNodeAffinity(affinity *corev1.VolumeNodeAffinity, path *field.Path) {
	switch {
	case affinity == nil:
	case affinity.Required == nil:
		v.required(path.Child("required"), "must specify required node constraints")
	default:
		v.nodeSelector(affinity.Required, path.Child("required"))
	}
}

func (v *validator) attributesClass(spec *corev1.PersistentVolumeSpec, path *field.Path) {
	name := spec.VolumeAttributesClassName
	if name == nil {
		return
	}
	if at := path.Child("volumeAttributesClassName"); *name == "" {
		v.required(at, "an empty string is disallowed")
	} else {
		v.invalidEach(at, *name, apivalidation.NameIsDNSSubdomain(*name, false))
	}
	if spec.CSI == nil {
		v.required(path.Child("csi"), "has to be specified when using volumeAttributesClassName")
	}
}

func (v *validator) persistentSource(spec *corev1.PersistentVolumeSpec, name string, path *field.Path) {
	found := 0
	for _, kind := range v.persistentKinds(spec, name, path) {
		if !kind.set {
			continue
		}
		if found++; found > 1 && kind.name != "flexVolume" {
			v.forbidden(path.Child(orElse(kind.refusedAt, kind.name)), "may not specify more than 1 volume type")
			continue
		}
		kind.check(path.Child(orElse(kind.at, kind.name)))
	}
	if found == 0 {
		v.required(path, "must specify a volume type")
	}
}

// persistentKinds lists the kinds in the order in which they are looked at. Many are a pod's
// volumes but for secrets of another namespace.
func (v *validator) persistentKinds(s *corev1.PersistentVolumeSpec, name string, path *field.Path) []volumeKind {
	return []volumeKind{
		{name: "hostPath", set: s.HostPath != nil, check: func(at *field.Path) { v.hostPath(s.HostPath, at) }},
		{name: "gcePersistentDisk", at: "persistentDisk", set: s.GCEPersistentDisk != nil, check: func(at *field.Path) {
			v.partition("pdName", s.GCEPersistentDisk.PDName, s.GCEPersistentDisk.Partition, at)
		}},
		{name: "awsElasticBlockStore", set: s.AWSElasticBlockStore != nil, check: func(at *field.Path) {
			v.partition("volumeID", s.AWSElasticBlockStore.VolumeID, s.AWSElasticBlockStore.Partition, at)
		}},
		{name: "glusterfs", set: s.Glusterfs != nil, check: func(at *field.Path) {
			v.needs(at, "endpoints", s.Glusterfs.EndpointsName)
			v.needs(at, "path", s.Glusterfs.Path)
			if ns := s.Glusterfs.EndpointsNamespace; ns != nil {
				v.invalidEach(at.Child("endpointsNamespace"), *ns, apivalidation.ValidateNamespaceName(*ns, false))
			}
		}},
		{name: "flocker", set: s.Flocker != nil, check: func(at *field.Path) { v.flocker(s.Flocker, at) }},
		{name: "nfs", set: s.NFS != nil, check: func(at *field.Path) { v.nfs(s.NFS, at) }},
		{name: "rbd", set: s.RBD != nil, check: func(at *field.Path) {
			v.needsSome(at, "monitors", len(s.RBD.CephMonitors))
			v.needs(at, "image", s.RBD.RBDImage)
		}},
		{name: "quobyte", set: s.Quobyte != nil, check: func(at *field.Path) { v.quobyte(s.Quobyte, at) }},
		{name: "cephfs", refusedAt: "cephFS", set: s.CephFS != nil, check: func(at *field.Path) {
			v.needsSome(at, "monitors", len(s.CephFS.Monitors))
		}},
		{name: "iscsi", set: s.ISCSI != nil, check: func(at *field.Path) {
			same := &corev1.ISCSIVolumeSource{
				TargetPortal: s.ISCSI.TargetPortal, IQN: s.ISCSI.IQN, Lun: s.ISCSI.Lun, InitiatorName: s.ISCSI.InitiatorName,
				DiscoveryCHAPAuth: s.ISCSI.DiscoveryCHAPAuth, SessionCHAPAuth: s.ISCSI.SessionCHAPAuth,
			}
			if s.ISCSI.SecretRef != nil {
				same.SecretRef = &corev1.LocalObjectReference{Name: s.ISCSI.SecretRef.Name}
			}
			v.iscsi(same, name, path, at)
		}},
		{name: "cinder", set: s.Cinder != nil, check: func(at *field.Path) {
			v.needs(at, "volumeID", s.Cinder.VolumeID)
			v.foreignSecret(s.Cinder.SecretRef, at)
		}},
		{name: "fc", set: s.FC != nil, check: func(at *field.Path) { v.fibreChannel(s.FC, at) }},
		{name: "flexVolume", set: s.FlexVolume != nil, check: func(at *field.Path) {
			v.flexVolume(&corev1.FlexVolumeSource{Driver: s.FlexVolume.Driver, Options: s.FlexVolume.Options}, at)
		}},
		{name: "azureFile", set: s.AzureFile != nil, check: func(at *field.Path) {
			v.needs(at, "secretName", s.AzureFile.SecretName)
			v.needs(at, "shareName", s.AzureFile.ShareName)
			if ns := s.AzureFile.SecretNamespace; ns != nil && *ns == "" {
				v.required(at.Child("secretNamespace"), "")
			}
		}},
		{name: "vsphereVolume", set: s.VsphereVolume != nil, check: func(at *field.Path) { v.needs(at, "volumePath", s.VsphereVolume.VolumePath) }},
		{name: "photonPersistentDisk", set: s.PhotonPersistentDisk != nil, check: func(at *field.Path) { v.needs(at, "pdID", s.PhotonPersistentDisk.PdID) }},
		{name: "portworxVolume", set: s.PortworxVolume != nil, check: func(at *field.Path) { v.needs(at, "volumeID", s.PortworxVolume.VolumeID) }},
		{name: "azureDisk", set: s.AzureDisk != nil, check: func(at *field.Path) { v.azureDisk(s.AzureDisk, at) }},
		{name: "scaleIO", set: s.ScaleIO != nil, check: func(at *field.Path) {
			v.needs(at, "gateway", s.ScaleIO.Gateway)
			v.needs(at, "system", s.ScaleIO.System)
			v.needs(at, "volumeName", s.ScaleIO.VolumeName)
		}},
		{name: "local", set: s.Local != nil, check: func(at *field.Path) {
			if s.Local.Path == "" {
				v.required(at.Child("path"), "")
			} else {
				v.noBacksteps(s.Local.Path, at.Child("path"))
			}
			if s.NodeAffinity == nil {
				v.required(path.Child("nodeAffinity"), "Local volume requires node affinity")
			}
		}},
		{name: "storageos", set: s.StorageOS != nil, check: func(at *field.Path) {
			v.storageOS(&corev1.StorageOSVolumeSource{VolumeName: s.StorageOS.VolumeName, VolumeNamespace: s.StorageOS.VolumeNamespace}, at)
		}},
		{name: "csi", set: s.CSI != nil, check: func(at *field.Path) { v.persistentCSI(s.CSI, at) }},
	}
}

func (v *validator) foreignSecret(ref *corev1.SecretReference, at *field.Path) {
	if ref != nil {
		v.needs(at, "secretRef.name", ref.Name)
		v.needs(at, "secretRef.namespace", ref.Namespace)
	}
}

func (v *validator) persistentCSI(s *corev1.CSIPersistentVolumeSource, at *field.Path) {
	v.add(ValidateCSIDriverName(s.Driver, at.Child("driver"))...)
	v.needs(at, "volumeHandle", s.VolumeHandle)
	for _, each := range []struct {
		name string
		ref  *corev1.SecretReference
	}{
		{"controllerPublishSecretRef", s.ControllerPublishSecretRef}, {"controllerExpandSecretRef", s.ControllerExpandSecretRef},
		{"nodePublishSecretRef", s.NodePublishSecretRef}, {"nodeExpandSecretRef", s.NodeExpandSecretRef},
	} {
		if each.ref == nil {
			continue
		}
		where := at.Child(each.name)
		if each.ref.Name == "" {
			v.required(where.Child("name"), "")
		} else {
			v.dnsSubdomain(each.ref.Name, where.Child("name"))
		}
		if each.ref.Namespace == "" {
			v.required(where.Child("namespace"), "")
		} else {
			v.dnsLabel(each.ref.Namespace, where.Child("namespace"))
		}
	}
}

// ValidateTopologyTerm checks one term that selects where volumes may be made.
func ValidateTopologyTerm(term *corev1.TopologySelectorTerm, at *field.Path) field.ErrorList {
	var f findings
	keys := map[string]bool{}
	for i := range term.MatchLabelExpressions {
		requirement, where := &term.MatchLabelExpressions[i], at.Child("matchLabelExpressions").Index(i)
		if len(requirement.Values) == 0 {
			f.required(where.Child("values"), "")
		}
		values := map[string]bool{}
		for j, value := range requirement.Values {
			if values[value] {
				f.duplicate(where.Child("values").Index(j), value)
			}
			values[value] = true
		}
		f.invalidEach(where.Child("key"), requirement.Key, validation.IsQualifiedName(requirement.Key))
		if keys[requirement.Key] {
			f.duplicate(where.Child("key"), requirement.Key)
		}
		keys[requirement.Key] = true
	}
	return f.list
}
