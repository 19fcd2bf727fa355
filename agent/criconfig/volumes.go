package criconfig

import (
	"fmt"
	"path/filepath"

	v1 "k8s.io/api/core/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// readOnly reports whether nobody may write to a volume, whatever a mount says: what the
// API holds, and what the volume itself says. The mount of an image is read-only and more
// by itself, which another read-only mount over it would undo.
func readOnly(pod *v1.Pod, name string) bool {
	for i := range pod.Spec.Volumes {
		v := &pod.Spec.Volumes[i]
		if v.Name != name {
			continue
		}
		switch {
		case v.ConfigMap != nil, v.Secret != nil, v.DownwardAPI != nil, v.Projected != nil:
			return true
		case v.PersistentVolumeClaim != nil:
			return v.PersistentVolumeClaim.ReadOnly
		case v.CSI != nil:
			return v.CSI.ReadOnly != nil && *v.CSI.ReadOnly
		}
	}
	return false
}

// Devices lists the block volumes of a container.
func Devices(pod *v1.Pod, spec *v1.Container, device func(pod *v1.Pod, volume string) (string, bool)) ([]*runtimeapi.Device, error) {
	var devices []*runtimeapi.Device
	for _, d := range spec.VolumeDevices {
		if !filepath.IsAbs(d.DevicePath) {
			return nil, fmt.Errorf("error DevicePath `%s` must be an absolute path", d.DevicePath)
		}
		path, ok := device(pod, d.Name)
		if !ok {
			return nil, fmt.Errorf("cannot find volume %q to pass into container %q", d.Name, spec.Name)
		}
		permissions := "mrw"
		if readOnly(pod, d.Name) {
			permissions = "r"
		}
		devices = append(devices, &runtimeapi.Device{HostPath: path, ContainerPath: d.DevicePath, Permissions: permissions})
	}
	return devices, nil
}
