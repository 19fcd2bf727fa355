package podspec

import (
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

func (v *validator) volumeMounts(c *corev1.Container, path *field.Path) {
	mounted := sets.New[string]()
	for i := range c.VolumeMounts {
		mount, at := &c.VolumeMounts[i], path.Index(i)
		if mount.Name == "" {
			v.required(at.Child("name"), "")
		}
		if _, found := v.sources[mount.Name]; !found {
			v.notFound(at.Child("name"), mount.Name)
		}
		if mount.MountPath == "" {
			v.required(at.Child("mountPath"), "")
		}
		if mounted.Has(mount.MountPath) {
			v.invalid(at.Child("mountPath"), mount.MountPath, "must be unique")
		}
		mounted.Insert(mount.MountPath)
		if slices.ContainsFunc(c.VolumeDevices, func(d corev1.VolumeDevice) bool { return d.Name == mount.Name }) {
			v.invalid(at.Child("name"), mount.Name, "must not already exist in volumeDevices")
		}
		if devicePathUsed(c, mount.MountPath) {
			v.invalid(at.Child("mountPath"), mount.MountPath, "must not already exist as a path in volumeDevices")
		}
		v.subPath(mount, path, at)
		v.mountPropagation(mount, c.SecurityContext, path.Child("mountPropagation"))
		v.recursiveReadOnly(mount, path.Child("recursiveReadOnly"))
	}
}

// devicePathUsed looks at the last device of each name: that is the one which takes effect.
func devicePathUsed(c *corev1.Container, target string) bool {
	byName := map[string]string{}
	for _, device := range c.VolumeDevices {
		byName[device.Name] = device.DevicePath
	}
	for _, devicePath := range byName {
		if devicePath == target {
			return true
		}
	}
	return false
}

// subPath reports bad paths on the list of mounts, not on the mount, as upstream does.
func (v *validator) subPath(mount *corev1.VolumeMount, list, at *field.Path) {
	if mount.SubPath != "" {
		v.relativePath(mount.SubPath, list.Child("subPath"))
	}
	if mount.SubPathExpr == "" {
		return
	}
	if mount.SubPath != "" {
		v.invalid(at.Child("subPathExpr"), mount.SubPathExpr, "subPathExpr and subPath are mutually exclusive")
	}
	v.relativePath(mount.SubPathExpr, list.Child("subPathExpr"))
}

func (v *validator) mountPropagation(mount *corev1.VolumeMount, security *corev1.SecurityContext, path *field.Path) {
	if mount.MountPropagation == nil {
		return
	}
	oneOf(&v.findings, path, *mount.MountPropagation, corev1.MountPropagationBidirectional,
		corev1.MountPropagationHostToContainer, corev1.MountPropagationNone)
	privileged := security != nil && isTrue(security.Privileged)
	if *mount.MountPropagation == corev1.MountPropagationBidirectional && !privileged {
		v.forbidden(path, "Bidirectional mount propagation is available only to privileged containers")
	}
}

func (v *validator) recursiveReadOnly(mount *corev1.VolumeMount, path *field.Path) {
	if mount.RecursiveReadOnly == nil || *mount.RecursiveReadOnly == corev1.RecursiveReadOnlyDisabled {
		return
	}
	switch *mount.RecursiveReadOnly {
	case corev1.RecursiveReadOnlyEnabled, corev1.RecursiveReadOnlyIfPossible:
		if !mount.ReadOnly {
			v.forbidden(path, "may only be specified when readOnly is true")
		}
		if p := mount.MountPropagation; p != nil && *p != corev1.MountPropagationNone {
			v.forbidden(path, "may only be specified when mountPropagation is None or not specified")
		}
	default:
		oneOf(&v.findings, path, *mount.RecursiveReadOnly, corev1.RecursiveReadOnlyDisabled,
			corev1.RecursiveReadOnlyEnabled, corev1.RecursiveReadOnlyIfPossible)
	}
}

func (v *validator) volumeDevices(c *corev1.Container, path *field.Path) {
	names, paths := sets.New[string](), sets.New[string]()
	mounts := map[string]string{}
	for _, mount := range c.VolumeMounts {
		mounts[mount.Name] = mount.MountPath
	}
	for i, device := range c.VolumeDevices {
		at := path.Index(i)
		if device.Name == "" {
			v.required(at.Child("name"), "")
		}
		if names.Has(device.Name) {
			v.invalid(at.Child("name"), device.Name, "must be unique")
		}
		if source, found := v.sources[device.Name]; !found {
			v.notFound(at.Child("name"), device.Name)
		} else if source.PersistentVolumeClaim == nil && source.Ephemeral == nil {
			v.invalid(at.Child("name"), device.Name,
				"can only use volume source type of PersistentVolumeClaim or Ephemeral for block mode")
		}
		if device.DevicePath == "" {
			v.required(at.Child("devicePath"), "")
		}
		if paths.Has(device.DevicePath) {
			v.invalid(at.Child("devicePath"), device.DevicePath, "must be unique")
		}
		if climbs(device.DevicePath) {
			v.invalid(at.Child("devicePath"), device.DevicePath, "can not contain backsteps ('..')")
		} else {
			paths.Insert(device.DevicePath)
		}
		if _, mounted := mounts[device.Name]; mounted {
			v.invalid(at.Child("name"), device.Name, "must not already exist in volumeMounts")
		}
		for _, mountPath := range mounts {
			if mountPath == device.DevicePath {
				v.invalid(at.Child("devicePath"), device.DevicePath, "must not already exist as a path in volumeMounts")
				break
			}
		}
		if device.Name != "" {
			names.Insert(device.Name)
		}
	}
}

func climbs(target string) bool {
	var f findings
	f.noBacksteps(target, nil)
	return len(f.list) > 0
}
