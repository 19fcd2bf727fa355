package podspec

import (
	"fmt"
	"regexp"
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/component-helpers/node/util/sysctl"
)

const maxSysctlName = 253

// sysctlName is a name whose parts are joined by dots or slashes.
var sysctlName = regexp.MustCompile(`^([a-z0-9]([-_a-z0-9]*[a-z0-9])?[\./])*[a-z0-9]([-_a-z0-9]*[a-z0-9])?$`)

func (v *validator) podSecurityContext(path *field.Path) {
	sc := v.spec.SecurityContext
	if sc == nil {
		return
	}
	v.group(sc.FSGroup, path.Child("fsGroup"))
	v.user(sc.RunAsUser, path.Child("runAsUser"))
	v.group(sc.RunAsGroup, path.Child("runAsGroup"))
	for i := range sc.SupplementalGroups {
		v.group(&sc.SupplementalGroups[i], path.Child("supplementalGroups").Index(i))
	}
	v.sysctls(sc.Sysctls, path.Child("sysctls"))
	if sc.FSGroupChangePolicy != nil {
		oneOf(&v.findings, path.Child("fsGroupChangePolicy"), *sc.FSGroupChangePolicy,
			corev1.FSGroupChangeAlways, corev1.FSGroupChangeOnRootMismatch)
	}
	v.seccompProfile(sc.SeccompProfile, path.Child("seccompProfile"))
	v.windowsOptions(sc.WindowsOptions, path.Child("windowsOptions"))
	v.appArmorProfile(sc.AppArmorProfile, path.Child("appArmorProfile"))
	if sc.SupplementalGroupsPolicy != nil {
		oneOf(&v.findings, path.Child("supplementalGroupsPolicy"), *sc.SupplementalGroupsPolicy,
			corev1.SupplementalGroupsPolicyMerge, corev1.SupplementalGroupsPolicyStrict)
	}
	if sc.SELinuxChangePolicy != nil {
		oneOf(&v.findings, path.Child("seLinuxChangePolicy"), *sc.SELinuxChangePolicy,
			corev1.SELinuxChangePolicyMountOption, corev1.SELinuxChangePolicyRecursive)
	}
}

func (v *validator) securityContext(sc *corev1.SecurityContext, path *field.Path) {
	if sc == nil {
		return
	}
	v.user(sc.RunAsUser, path.Child("runAsUser"))
	v.group(sc.RunAsGroup, path.Child("runAsGroup"))
	if sc.ProcMount != nil {
		oneOf(&v.findings, path.Child("procMount"), *sc.ProcMount, corev1.DefaultProcMount, corev1.UnmaskedProcMount)
		if v.hostUsers() && *sc.ProcMount == corev1.UnmaskedProcMount {
			v.invalid(path.Child("procMount"), sc.ProcMount, "`hostUsers` must be false to use `Unmasked`")
		}
	}
	v.seccompProfile(sc.SeccompProfile, path.Child("seccompProfile"))
	if isFalse(sc.AllowPrivilegeEscalation) {
		if isTrue(sc.Privileged) {
			v.invalid(path, sc, "cannot set `allowPrivilegeEscalation` to false and `privileged` to true")
		}
		if sc.Capabilities != nil && slices.Contains(sc.Capabilities.Add, "CAP_SYS_ADMIN") {
			v.invalid(path, sc, "cannot set `allowPrivilegeEscalation` to false and `capabilities.Add` CAP_SYS_ADMIN")
		}
	}
	v.windowsOptions(sc.WindowsOptions, path.Child("windowsOptions"))
	v.appArmorProfile(sc.AppArmorProfile, path.Child("appArmorProfile"))
}

func (v *validator) user(id *int64, path *field.Path) {
	if id != nil {
		v.invalidEach(path, *id, validation.IsValidUserID(*id))
	}
}

func (v *validator) group(id *int64, path *field.Path) {
	if id != nil {
		v.invalidEach(path, *id, validation.IsValidGroupID(*id))
	}
}

func (v *validator) sysctls(list []corev1.Sysctl, path *field.Path) {
	seen := sets.New[string]()
	for i, s := range list {
		at := path.Index(i).Child("name")
		switch {
		case s.Name == "":
			v.required(at, "")
		case len(s.Name) > maxSysctlName || !sysctlName.MatchString(s.Name):
			v.invalid(at, s.Name, fmt.Sprintf("must have at most %d characters and match regex %s", maxSysctlName, sysctlName))
		case seen.Has(s.Name):
			v.duplicate(at, s.Name)
		}
		// A pod that shares a namespace with its node would set the node's value.
		switch namespace, _, _ := sysctl.GetNamespace(s.Name); {
		case v.spec.HostNetwork && namespace == sysctl.NetNamespace:
			v.invalid(at, s.Name, "may not be specified when 'hostNetwork' is true")
		case v.spec.HostIPC && namespace == sysctl.IPCNamespace:
			v.invalid(at, s.Name, "may not be specified when 'hostIPC' is true")
		}
		seen.Insert(s.Name)
	}
}

// userNamespace checks pods with users of their own, who mean nothing in the host's namespaces.
func (v *validator) userNamespace(path *field.Path) {
	if v.hostUsers() {
		return
	}
	const detail = "when `hostUsers` is false"
	if v.spec.HostNetwork {
		v.forbidden(path.Child("hostNetwork"), detail)
	}
	if v.spec.HostPID {
		v.forbidden(path.Child("HostPID"), detail)
	}
	if v.spec.HostIPC {
		v.forbidden(path.Child("HostIPC"), detail)
	}
	containers(v.spec, path, func(c *corev1.Container, at *field.Path) {
		if len(c.VolumeDevices) > 0 {
			v.forbidden(at.Child("volumeDevices"), detail)
		}
	})
}
