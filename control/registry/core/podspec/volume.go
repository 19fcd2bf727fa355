package podspec

import (
	"fmt"

	corev1 "k8s.io/api/core/v1"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// volumes checks the volumes and remembers those that are valid: a mount of an invalid volume is
// reported as not found.
func (v *validator) volumes(path *field.Path) {
	v.sources = map[string]*corev1.VolumeSource{}
	made := v.claimsToBeMade()
	for i := range v.spec.Volumes {
		volume, at := &v.spec.Volumes[i], path.Index(i)
		before := len(v.list)
		v.volumeSource(volume, at)
		if volume.Name == "" {
			v.required(at.Child("name"), "")
		} else {
			v.dnsLabel(volume.Name, at.Child("name"))
		}
		if _, taken := v.sources[volume.Name]; taken {
			v.duplicate(at.Child("name"), volume.Name)
		}
		if len(v.list) == before {
			v.sources[volume.Name] = &volume.VolumeSource
		}
		if claim := volume.PersistentVolumeClaim; claim != nil && made.Has(claim.ClaimName) {
			v.invalid(at.Child("persistentVolumeClaim", "claimName"), claim.ClaimName,
				"must not reference a PVC that gets created for an ephemeral volume")
		}
	}
}

// claimsToBeMade names the claims that will be created for the pod's ephemeral volumes.
func (v *validator) claimsToBeMade() sets.Set[string] {
	names := sets.New[string]()
	if v.meta == nil || v.meta.Name == "" {
		return names
	}
	for i := range v.spec.Volumes {
		if v.spec.Volumes[i].Ephemeral != nil {
			names.Insert(v.meta.Name + "-" + v.spec.Volumes[i].Name)
		}
	}
	return names
}

// volumeKind is one kind of volume source. A second kind in the same volume is refused by name.
type volumeKind struct {
	name  string
	set   bool
	check func(*field.Path)
	// at and refusedAt are the path element of errors within the source and of the error that it
	// is one too many, where they are not the name of the field.
	at, refusedAt string
}

func (v *validator) volumeSource(volume *corev1.Volume, path *field.Path) {
	found := 0
	for _, kind := range v.volumeKinds(volume, path) {
		if !kind.set {
			continue
		}
		if found++; found > 1 {
			v.forbidden(path.Child(orElse(kind.refusedAt, kind.name)), "may not specify more than 1 volume type")
			continue
		}
		kind.check(path.Child(orElse(kind.at, kind.name)))
	}
	if found == 0 {
		v.required(path, "must specify a volume type")
	}
}

func orElse(text, otherwise string) string {
	if text == "" {
		return otherwise
	}
	return text
}

// volumeKinds lists the kinds in the order in which they are looked at: the first one wins.
func (v *validator) volumeKinds(volume *corev1.Volume, path *field.Path) []volumeKind {
	s := &volume.VolumeSource
	return []volumeKind{
		{name: "emptyDir", set: s.EmptyDir != nil, check: func(at *field.Path) { v.emptyDir(s.EmptyDir, at) }},
		{name: "hostPath", set: s.HostPath != nil, check: func(at *field.Path) { v.hostPath(s.HostPath, at) }},
		{name: "gitRepo", set: s.GitRepo != nil, check: func(at *field.Path) { v.gitRepo(s.GitRepo, at) }},
		{name: "gcePersistentDisk", at: "persistentDisk", set: s.GCEPersistentDisk != nil, check: func(at *field.Path) {
			v.partition("pdName", s.GCEPersistentDisk.PDName, s.GCEPersistentDisk.Partition, at)
		}},
		{name: "awsElasticBlockStore", set: s.AWSElasticBlockStore != nil, check: func(at *field.Path) {
			v.partition("volumeID", s.AWSElasticBlockStore.VolumeID, s.AWSElasticBlockStore.Partition, at)
		}},
		{name: "secret", set: s.Secret != nil, check: func(at *field.Path) {
			v.needs(at, "secretName", s.Secret.SecretName)
			v.keyFiles(s.Secret.DefaultMode, s.Secret.Items, at)
		}},
		{name: "nfs", set: s.NFS != nil, check: func(at *field.Path) { v.nfs(s.NFS, at) }},
		{name: "iscsi", set: s.ISCSI != nil, check: func(at *field.Path) { v.iscsi(s.ISCSI, volume.Name, path, at) }},
		{name: "glusterfs", set: s.Glusterfs != nil, check: func(at *field.Path) {
			v.needs(at, "endpoints", s.Glusterfs.EndpointsName)
			v.needs(at, "path", s.Glusterfs.Path)
		}},
		{name: "flocker", set: s.Flocker != nil, check: func(at *field.Path) { v.flocker(s.Flocker, at) }},
		{name: "persistentVolumeClaim", set: s.PersistentVolumeClaim != nil, check: func(at *field.Path) {
			v.needs(at, "claimName", s.PersistentVolumeClaim.ClaimName)
		}},
		{name: "rbd", set: s.RBD != nil, check: func(at *field.Path) {
			v.needsSome(at, "monitors", len(s.RBD.CephMonitors))
			v.needs(at, "image", s.RBD.RBDImage)
		}},
		{name: "cinder", set: s.Cinder != nil, check: func(at *field.Path) {
			v.needs(at, "volumeID", s.Cinder.VolumeID)
			v.secretRef(s.Cinder.SecretRef, at)
		}},
		{name: "cephfs", refusedAt: "cephFS", set: s.CephFS != nil, check: func(at *field.Path) {
			v.needsSome(at, "monitors", len(s.CephFS.Monitors))
		}},
		{name: "quobyte", set: s.Quobyte != nil, check: func(at *field.Path) { v.quobyte(s.Quobyte, at) }},
		// The missing letter is upstream's; scripts may match the path.
		{name: "downwardAPI", refusedAt: "downwarAPI", set: s.DownwardAPI != nil, check: func(at *field.Path) {
			v.fileMode(s.DownwardAPI.DefaultMode, at.Child("defaultMode"))
			for i := range s.DownwardAPI.Items {
				v.downwardFile(&s.DownwardAPI.Items[i], at)
			}
		}},
		{name: "fc", set: s.FC != nil, check: func(at *field.Path) { v.fibreChannel(s.FC, at) }},
		{name: "flexVolume", set: s.FlexVolume != nil, check: func(at *field.Path) { v.flexVolume(s.FlexVolume, at) }},
		{name: "configMap", set: s.ConfigMap != nil, check: func(at *field.Path) {
			v.needs(at, "name", s.ConfigMap.Name)
			v.keyFiles(s.ConfigMap.DefaultMode, s.ConfigMap.Items, at)
		}},
		{name: "azureFile", set: s.AzureFile != nil, check: func(at *field.Path) {
			v.needs(at, "secretName", s.AzureFile.SecretName)
			v.needs(at, "shareName", s.AzureFile.ShareName)
		}},
		{name: "vsphereVolume", set: s.VsphereVolume != nil, check: func(at *field.Path) {
			v.needs(at, "volumePath", s.VsphereVolume.VolumePath)
		}},
		{name: "photonPersistentDisk", set: s.PhotonPersistentDisk != nil, check: func(at *field.Path) {
			v.needs(at, "pdID", s.PhotonPersistentDisk.PdID)
		}},
		{name: "portworxVolume", set: s.PortworxVolume != nil, check: func(at *field.Path) {
			v.needs(at, "volumeID", s.PortworxVolume.VolumeID)
		}},
		{name: "azureDisk", set: s.AzureDisk != nil, check: func(at *field.Path) { v.azureDisk(s.AzureDisk, at) }},
		{name: "storageos", set: s.StorageOS != nil, check: func(at *field.Path) { v.storageOS(s.StorageOS, at) }},
		{name: "projected", set: s.Projected != nil, check: func(at *field.Path) { v.projected(s.Projected, at) }},
		{name: "scaleIO", set: s.ScaleIO != nil, check: func(at *field.Path) {
			v.needs(at, "gateway", s.ScaleIO.Gateway)
			v.needs(at, "system", s.ScaleIO.System)
			v.needs(at, "volumeName", s.ScaleIO.VolumeName)
		}},
		{name: "csi", set: s.CSI != nil, check: func(at *field.Path) { v.csi(s.CSI, at) }},
		{name: "ephemeral", set: s.Ephemeral != nil, check: func(at *field.Path) { v.ephemeralVolume(volume, path, at) }},
		{name: "image", set: s.Image != nil, check: func(at *field.Path) {
			v.needs(at, "reference", s.Image.Reference)
			v.pullPolicy(s.Image.PullPolicy, at.Child("pullPolicy"))
		}},
	}
}

func (v *validator) needs(path *field.Path, name, value string) {
	if value == "" {
		v.required(path.Child(name), "")
	}
}

func (v *validator) needsSome(path *field.Path, name string, count int) {
	if count == 0 {
		v.required(path.Child(name), "")
	}
}

func (v *validator) emptyDir(s *corev1.EmptyDirVolumeSource, path *field.Path) {
	if s.SizeLimit != nil && s.SizeLimit.Sign() < 0 {
		v.forbidden(path.Child("sizeLimit"), "SizeLimit field must be a valid resource quantity")
	}
}

func (v *validator) hostPath(s *corev1.HostPathVolumeSource, path *field.Path) {
	if s.Path == "" {
		v.required(path.Child("path"), "")
		return
	}
	v.noBacksteps(s.Path, path.Child("path"))
	if s.Type != nil {
		oneOf(&v.findings, path.Child("type"), *s.Type, corev1.HostPathUnset, corev1.HostPathBlockDev,
			corev1.HostPathCharDev, corev1.HostPathDirectory, corev1.HostPathDirectoryOrCreate,
			corev1.HostPathFile, corev1.HostPathFileOrCreate, corev1.HostPathSocket)
	}
}

func (v *validator) gitRepo(s *corev1.GitRepoVolumeSource, path *field.Path) {
	v.needs(path, "repository", s.Repository)
	v.relativePath(s.Directory, path.Child("directory"))
}

// partition checks a cloud disk: its name and the partition to mount.
func (v *validator) partition(nameField, name string, partition int32, path *field.Path) {
	v.needs(path, nameField, name)
	if partition < 0 || partition > 255 {
		v.invalid(path.Child("partition"), partition, validation.InclusiveRangeError(1, 255))
	}
}

// keyFiles checks which keys of a ConfigMap or Secret become which files.
func (v *validator) keyFiles(mode *int32, items []corev1.KeyToPath, path *field.Path) {
	v.fileMode(mode, path.Child("defaultMode"))
	for i := range items {
		v.keyFile(&items[i], path.Child("items").Index(i))
	}
}

func (v *validator) keyFile(item *corev1.KeyToPath, path *field.Path) {
	v.needs(path, "key", item.Key)
	v.needs(path, "path", item.Path)
	v.volumeFilePath(item.Path, path.Child("path"))
	v.fileMode(item.Mode, path.Child("mode"))
}

func (v *validator) downwardFile(file *corev1.DownwardAPIVolumeFile, path *field.Path) {
	v.needs(path, "path", file.Path)
	v.volumeFilePath(file.Path, path.Child("path"))
	switch {
	case file.FieldRef != nil:
		v.fieldRef(file.FieldRef, fileFieldPaths, path.Child("fieldRef"))
		if file.ResourceFieldRef != nil {
			v.invalid(path, "resource", "fieldRef and resourceFieldRef can not be specified simultaneously")
		}
	case file.ResourceFieldRef != nil:
		at := path.Child("resourceFieldRef")
		if file.ResourceFieldRef.ContainerName == "" {
			v.required(at.Child("containerName"), "")
			v.divisor(file.ResourceFieldRef, isHugePagesPath(file.ResourceFieldRef.Resource), at.Child("divisor"))
		} else {
			v.resourceFieldRef(file.ResourceFieldRef, at)
		}
	default:
		v.required(path, "one of fieldRef and resourceFieldRef is required")
	}
	v.fileMode(file.Mode, path.Child("mode"))
}

// ephemeralVolume checks a volume whose claim is made with the pod and named after both.
func (v *validator) ephemeralVolume(volume *corev1.Volume, path, at *field.Path) {
	if template := volume.Ephemeral.VolumeClaimTemplate; template == nil {
		v.required(at.Child("volumeClaimTemplate"), "")
	} else {
		v.claimTemplate(template, at.Child("volumeClaimTemplate"))
	}
	if v.meta == nil || v.meta.Name == "" || volume.Name == "" {
		return
	}
	claim := v.meta.Name + "-" + volume.Name
	for _, message := range apivalidation.NameIsDNSSubdomain(claim, false) {
		v.invalid(path.Child("name"), volume.Name, fmt.Sprintf("PVC name %q: %v", claim, message))
	}
}
