package podspec

import (
	"net"
	"path"
	"regexp"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apivalidation "k8s.io/apimachinery/pkg/api/validation"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// iscsiNames are the forms of iSCSI names by their prefix.
var iscsiNames = map[string]*regexp.Regexp{
	"iqn": regexp.MustCompile(`iqn\.\d{4}-\d{2}\.([[:alnum:]-.]+)(:[^,;*&$|\s]+)$`),
	"eui": regexp.MustCompile(`^eui.[[:alnum:]]{16}$`),
	"naa": regexp.MustCompile(`^naa.[[:alnum:]]{32}$`),
}

const (
	maxISCSITarget      = 64
	maxQuobyteTenant    = 64
	maxCSIDriverName    = 63
	hostPortDescription = "must be a host:port pair or multiple pairs separated by commas"
)

func (v *validator) nfs(s *corev1.NFSVolumeSource, at *field.Path) {
	v.needs(at, "server", s.Server)
	v.needs(at, "path", s.Path)
	if !path.IsAbs(s.Path) {
		v.invalid(at.Child("path"), s.Path, "must be an absolute path")
	}
}

func (v *validator) iscsi(s *corev1.ISCSIVolumeSource, volumeName string, volumePath, at *field.Path) {
	v.needs(at, "targetPortal", s.TargetPortal)
	if s.IQN == "" {
		v.required(at.Child("iqn"), "")
	} else {
		v.iscsiName(s.IQN, at.Child("iqn"))
	}
	if s.Lun < 0 || s.Lun > 255 {
		v.invalid(at.Child("lun"), s.Lun, validation.InclusiveRangeError(0, 255))
	}
	if (s.DiscoveryCHAPAuth || s.SessionCHAPAuth) && s.SecretRef == nil {
		v.required(at.Child("secretRef"), "")
	}
	if s.InitiatorName == nil {
		return
	}
	v.iscsiName(*s.InitiatorName, at.Child("initiatorname"))
	if len(volumeName+":"+s.TargetPortal) > maxISCSITarget {
		v.invalid(volumePath.Child("name"), volumeName,
			"Total length of <volume name>:<iscsi.targetPortal> must be under 64 characters if iscsi.initiatorName is specified.")
	}
}

func (v *validator) iscsiName(name string, at *field.Path) {
	for prefix, form := range iscsiNames {
		if !strings.HasPrefix(name, prefix) {
			continue
		}
		if !form.MatchString(name) {
			v.invalid(at, name, "must be valid format")
		}
		return
	}
	v.invalid(at, name, "must be valid format starting with iqn, eui, or naa")
}

func (v *validator) fibreChannel(s *corev1.FCVolumeSource, at *field.Path) {
	names := at.Child("targetWWNs")
	if len(s.TargetWWNs) == 0 && len(s.WWIDs) == 0 {
		v.required(names, "must specify either targetWWNs or wwids, but not both")
	}
	if len(s.TargetWWNs) != 0 && len(s.WWIDs) != 0 {
		v.invalid(names, s.TargetWWNs, "targetWWNs and wwids can not be specified simultaneously")
	}
	if len(s.TargetWWNs) == 0 {
		return
	}
	if s.Lun == nil {
		v.required(at.Child("lun"), "lun is required if targetWWNs is specified")
	} else if *s.Lun < 0 || *s.Lun > 255 {
		v.invalid(at.Child("lun"), s.Lun, validation.InclusiveRangeError(0, 255))
	}
}

func (v *validator) quobyte(s *corev1.QuobyteVolumeSource, at *field.Path) {
	switch {
	case s.Registry == "":
		v.required(at.Child("registry"), hostPortDescription)
	case len(s.Tenant) > maxQuobyteTenant:
		v.required(at.Child("tenant"), "must be a UUID and may not exceed a length of 64 characters")
	default:
		for _, pair := range strings.Split(s.Registry, ",") {
			if _, _, err := net.SplitHostPort(pair); err != nil {
				v.invalid(at.Child("registry"), s.Registry, hostPortDescription)
			}
		}
	}
	v.needs(at, "volume", s.Volume)
}

func (v *validator) flocker(s *corev1.FlockerVolumeSource, at *field.Path) {
	if s.DatasetName == "" && s.DatasetUUID == "" {
		v.required(at, "one of datasetName and datasetUUID is required")
	}
	if s.DatasetName != "" && s.DatasetUUID != "" {
		v.invalid(at, "resource", "datasetName and datasetUUID can not be specified simultaneously")
	}
	if strings.Contains(s.DatasetName, "/") {
		v.invalid(at.Child("datasetName"), s.DatasetName, "must not contain '/'")
	}
}

func (v *validator) flexVolume(s *corev1.FlexVolumeSource, at *field.Path) {
	v.needs(at, "driver", s.Driver)
	for _, option := range sortedKeys(s.Options) {
		domain, _, _ := strings.Cut(option, "/")
		domain = "." + strings.ToLower(domain)
		if strings.HasSuffix(domain, ".kubernetes.io") || strings.HasSuffix(domain, ".k8s.io") {
			v.invalid(at.Child("options").Key(option), option, "kubernetes.io and k8s.io namespaces are reserved")
		}
	}
}

func (v *validator) azureDisk(s *corev1.AzureDiskVolumeSource, at *field.Path) {
	v.needs(at, "diskName", s.DiskName)
	v.needs(at, "diskURI", s.DataDiskURI)
	if s.CachingMode != nil {
		oneOf(&v.findings, at.Child("cachingMode"), *s.CachingMode, corev1.AzureDataDiskCachingNone,
			corev1.AzureDataDiskCachingReadOnly, corev1.AzureDataDiskCachingReadWrite)
	}
	if s.Kind == nil {
		return
	}
	oneOf(&v.findings, at.Child("kind"), *s.Kind, corev1.AzureDedicatedBlobDisk, corev1.AzureManagedDisk, corev1.AzureSharedBlobDisk)
	prefix, form := "https://", "https://{account-name}.blob.core.windows.net/{container-name}/{disk-name}.vhd"
	if *s.Kind == corev1.AzureManagedDisk {
		prefix, form = "/subscriptions/", "/subscriptions/{sub-id}/resourcegroups/{group-name}/providers/microsoft.compute/disks/{disk-id}"
	}
	if !strings.HasPrefix(s.DataDiskURI, prefix) {
		v.add(field.NotSupported(at.Child("diskURI"), s.DataDiskURI, []string{form}))
	}
}

func (v *validator) storageOS(s *corev1.StorageOSVolumeSource, at *field.Path) {
	if s.VolumeName == "" {
		v.required(at.Child("volumeName"), "")
	} else {
		v.dnsLabel(s.VolumeName, at.Child("volumeName"))
	}
	if s.VolumeNamespace != "" {
		v.dnsLabel(s.VolumeNamespace, at.Child("volumeNamespace"))
	}
	v.secretRef(s.SecretRef, at)
}

func (v *validator) secretRef(ref *corev1.LocalObjectReference, at *field.Path) {
	if ref != nil {
		v.needs(at, "secretRef.name", ref.Name)
	}
}

func (v *validator) csi(s *corev1.CSIVolumeSource, at *field.Path) {
	v.add(ValidateCSIDriverName(s.Driver, at.Child("driver"))...)
	if ref := s.NodePublishSecretRef; ref != nil {
		if ref.Name == "" {
			v.required(at.Child("nodePublishSecretRef", "name"), "")
		} else {
			v.invalidEach(at.Child("name"), ref.Name, apivalidation.NameIsDNSSubdomain(ref.Name, false))
		}
	}
}

// ValidateCSIDriverName checks the name of a CSI driver where another object names it.
func ValidateCSIDriverName(name string, at *field.Path) field.ErrorList {
	var f findings
	if name == "" {
		f.required(at, "")
		return f.list
	}
	if len(name) > maxCSIDriverName {
		f.tooLong(at, maxCSIDriverName)
	}
	f.invalidEach(at, name, validation.IsDNS1123Subdomain(strings.ToLower(name)))
	return f.list
}
