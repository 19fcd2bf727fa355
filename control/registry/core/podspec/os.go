package podspec

import (
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// operatingSystem checks that a pod which names its system sets nothing that only others know.
func (v *validator) operatingSystem(path *field.Path) {
	if v.spec.OS == nil {
		return
	}
	switch v.spec.OS.Name {
	case "":
		v.required(path.Child("os", "name"), "")
	case corev1.Linux:
		v.linuxOnly(path)
	case corev1.Windows:
		v.windowsOnly(path)
	default:
		oneOf(&v.findings, path.Child("os"), v.spec.OS.Name, corev1.Linux, corev1.Windows)
	}
}

func (v *validator) linuxOnly(path *field.Path) {
	const detail = "windows options cannot be set for a linux pod"
	if sc := v.spec.SecurityContext; sc != nil && sc.WindowsOptions != nil {
		v.forbidden(path.Child("securityContext", "windowsOptions"), detail)
	}
	containers(v.spec, path, func(c *corev1.Container, at *field.Path) {
		if c.SecurityContext != nil && c.SecurityContext.WindowsOptions != nil {
			v.forbidden(at.Child("securityContext", "windowsOptions"), detail)
		}
	})
}

// linuxField is a field that only Linux pods may set.
type linuxField struct {
	name string
	set  bool
}

func (v *validator) noneSet(path *field.Path, fields []linuxField) {
	for _, f := range fields {
		if f.set {
			v.forbidden(path.Child(f.name), "cannot be set for a windows pod")
		}
	}
}

func (v *validator) windowsOnly(path *field.Path) {
	if sc := v.spec.SecurityContext; sc != nil {
		v.noneSet(path.Child("securityContext"), []linuxField{
			{"appArmorProfile", sc.AppArmorProfile != nil},
			{"seLinuxOptions", sc.SELinuxOptions != nil},
			{"seccompProfile", sc.SeccompProfile != nil},
			{"fsGroup", sc.FSGroup != nil},
			{"fsGroupChangePolicy", sc.FSGroupChangePolicy != nil},
			{"sysctls", len(sc.Sysctls) > 0},
			{"runAsUser", sc.RunAsUser != nil},
			{"runAsGroup", sc.RunAsGroup != nil},
			{"supplementalGroups", sc.SupplementalGroups != nil},
			{"supplementalGroupsPolicy", sc.SupplementalGroupsPolicy != nil},
			{"seLinuxChangePolicy", sc.SELinuxChangePolicy != nil},
		})
	}
	v.noneSet(path, []linuxField{
		{"hostUsers", v.spec.HostUsers != nil},
		{"hostPID", v.spec.HostPID},
		{"hostIPC", v.spec.HostIPC},
		{"shareProcessNamespace", v.spec.ShareProcessNamespace != nil},
	})
	containers(v.spec, path, func(c *corev1.Container, at *field.Path) {
		sc := c.SecurityContext
		if sc == nil {
			return
		}
		v.noneSet(at.Child("securityContext"), []linuxField{
			{"appArmorProfile", sc.AppArmorProfile != nil},
			{"seLinuxOptions", sc.SELinuxOptions != nil},
			{"seccompProfile", sc.SeccompProfile != nil},
			{"capabilities", sc.Capabilities != nil},
			{"readOnlyRootFilesystem", sc.ReadOnlyRootFilesystem != nil},
			{"privileged", sc.Privileged != nil},
			{"allowPrivilegeEscalation", sc.AllowPrivilegeEscalation != nil},
			{"procMount", sc.ProcMount != nil},
			{"runAsUser", sc.RunAsUser != nil},
			{"runAsGroup", sc.RunAsGroup != nil},
		})
	})
}
