package podspec

import (
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/utils/ptr"
)

// volumes warns of kinds of volumes that no longer work and of files that lie in each other's way.
func (w *warner) volumes() {
	for i := range w.spec.Volumes {
		source, at := &w.spec.Volumes[i].VolumeSource, w.path.Child("volumes").Index(i)
		for _, gone := range []struct {
			name, text string
			used       bool
		}{
			{"photonPersistentDisk", "deprecated in v1.11, non-functional in v1.16+", source.PhotonPersistentDisk != nil},
			{"gitRepo", "deprecated in v1.11, and disabled by default in v1.33+", source.GitRepo != nil},
			{"scaleIO", "deprecated in v1.16, non-functional in v1.22+", source.ScaleIO != nil},
			{"flocker", "deprecated in v1.22, non-functional in v1.25+", source.Flocker != nil},
			{"storageOS", "deprecated in v1.22, non-functional in v1.25+", source.StorageOS != nil},
			{"quobyte", "deprecated in v1.22, non-functional in v1.25+", source.Quobyte != nil},
			{"glusterfs", "deprecated in v1.25, non-functional in v1.26+", source.Glusterfs != nil},
			{"cephfs", "deprecated in v1.28, non-functional in v1.31+", source.CephFS != nil},
			{"rbd", "deprecated in v1.28, non-functional in v1.31+", source.RBD != nil},
		} {
			if gone.used {
				w.add(at.Child(gone.name), "%s", gone.text)
			}
		}
		if source.Ephemeral != nil && source.Ephemeral.VolumeClaimTemplate != nil {
			claim := at.Child("ephemeral", "volumeClaimTemplate", "spec", "resources")
			resources := source.Ephemeral.VolumeClaimTemplate.Spec.Resources
			w.wholeBytes(resources.Requests, claim.Child("requests"), corev1.ResourceStorage)
			w.wholeBytes(resources.Limits, claim.Child("limits"), corev1.ResourceStorage)
		}
	}
	for i := range w.spec.Volumes {
		w.overlaps(&w.spec.Volumes[i])
	}
}

// placedFile is a file in a volume and who puts it there.
type placedFile struct{ path, source string }

func (f placedFile) String() string {
	if f.source == "" {
		return fmt.Sprintf("%q", f.path)
	}
	return fmt.Sprintf("%q (%s)", f.path, f.source)
}

// covers tells whether one of the files is the other or a directory above it.
func (f placedFile) covers(other placedFile) bool {
	return strings.HasPrefix(other.path+"/", f.path+"/") || strings.HasPrefix(f.path+"/", other.path+"/")
}

func (w *warner) overlaps(volume *corev1.Volume) {
	if s := volume.ConfigMap; s != nil {
		w.overlap(volume.Name, fmt.Sprintf("ConfigMap %q", s.Name), keyFiles(s.Items, ""))
	}
	if s := volume.Secret; s != nil {
		w.overlap(volume.Name, fmt.Sprintf("Secret %q", s.SecretName), keyFiles(s.Items, ""))
	}
	if s := volume.DownwardAPI; s != nil {
		w.overlap(volume.Name, "DownwardAPI", downwardFiles(s.Items, ""))
	}
	if s := volume.Projected; s != nil {
		var files []placedFile
		for i := range s.Sources {
			if s.Sources[i] == (corev1.VolumeProjection{}) {
				w.list = append(w.list, fmt.Sprintf("volume %q (Projected) has no sources provided", volume.Name))
			}
			files = append(files, projectedFiles(&s.Sources[i])...)
		}
		w.overlap(volume.Name, "Projected", files)
	}
}

func (w *warner) overlap(volume, description string, files []placedFile) {
	for i := range files {
		files[i].path = strings.TrimRight(files[i].path, "/")
		for _, earlier := range files[:i] {
			if files[i].path != "" && earlier.path != "" && earlier.covers(files[i]) {
				w.list = append(w.list, fmt.Sprintf("volume %q (%s): overlapping paths: %s with %s", volume, description, files[i], earlier))
			}
		}
	}
}

func keyFiles(items []corev1.KeyToPath, source string) (files []placedFile) {
	for _, item := range items {
		files = append(files, placedFile{item.Path, source})
	}
	return files
}

func downwardFiles(items []corev1.DownwardAPIVolumeFile, source string) (files []placedFile) {
	for _, item := range items {
		files = append(files, placedFile{item.Path, source})
	}
	return files
}

func projectedFiles(source *corev1.VolumeProjection) []placedFile {
	switch {
	case source.ConfigMap != nil && source.ConfigMap.Items != nil:
		return keyFiles(source.ConfigMap.Items, fmt.Sprintf("ConfigMap %q", source.ConfigMap.Name))
	case source.Secret != nil && source.Secret.Items != nil:
		return keyFiles(source.Secret.Items, fmt.Sprintf("Secret %q", source.Secret.Name))
	case source.DownwardAPI != nil && source.DownwardAPI.Items != nil:
		return downwardFiles(source.DownwardAPI.Items, "DownwardAPI")
	case source.ServiceAccountToken != nil:
		return []placedFile{{source.ServiceAccountToken.Path, "ServiceAccountToken"}}
	case source.ClusterTrustBundle != nil:
		name := ptr.Deref(source.ClusterTrustBundle.Name, ptr.Deref(source.ClusterTrustBundle.SignerName, ""))
		return []placedFile{{source.ClusterTrustBundle.Path, fmt.Sprintf("ClusterTrustBundle %q", name)}}
	case source.PodCertificate != nil:
		s := source.PodCertificate
		return []placedFile{
			{s.CertificateChainPath, "PodCertificate chain"}, {s.KeyPath, "PodCertificate key"},
			{s.CredentialBundlePath, "PodCertificate credential bundle"},
		}
	default:
		return nil
	}
}
