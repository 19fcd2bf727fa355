package criconfig

import (
	"fmt"
	"path/filepath"

	v1 "k8s.io/api/core/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/skiff-run/skiff/agent/plan"
)

// effective merges the pod's security context into the container's, whose own
// settings win.
func effective(pod *v1.Pod, container *v1.Container) v1.SecurityContext {
	var sc v1.SecurityContext
	if container.SecurityContext != nil {
		sc = *container.SecurityContext
	}
	p := pod.Spec.SecurityContext
	if p == nil {
		return sc
	}
	if sc.RunAsUser == nil {
		sc.RunAsUser = p.RunAsUser
	}
	if sc.RunAsGroup == nil {
		sc.RunAsGroup = p.RunAsGroup
	}
	if sc.RunAsNonRoot == nil {
		sc.RunAsNonRoot = p.RunAsNonRoot
	}
	if sc.SELinuxOptions == nil {
		sc.SELinuxOptions = p.SELinuxOptions
	}
	if sc.SeccompProfile == nil {
		sc.SeccompProfile = p.SeccompProfile
	}
	if sc.AppArmorProfile == nil {
		sc.AppArmorProfile = p.AppArmorProfile
	}
	return sc
}

// verifyNonRoot enforces runAsNonRoot, with the kubelet's words.
func verifyNonRoot(in Container) error {
	sc := effective(in.Pod, in.Spec)
	if sc.RunAsNonRoot == nil || !*sc.RunAsNonRoot {
		return nil
	}
	at := fmt.Sprintf("(pod: %q, container: %s)", plan.FormatPod(in.Pod), in.Spec.Name)
	switch {
	case sc.RunAsUser != nil:
		if *sc.RunAsUser == 0 {
			return fmt.Errorf("container's runAsUser breaks non-root policy %s", at)
		}
	case in.ImageUser != nil && *in.ImageUser == 0:
		return fmt.Errorf("container has runAsNonRoot and image will run as root %s", at)
	case in.ImageUser == nil && in.ImageUsername != "":
		return fmt.Errorf("container has runAsNonRoot and image has non-numeric user (%s), cannot verify user is non-root %s", in.ImageUsername, at)
	}
	return nil
}

func (n *Node) security(in Container) (*runtimeapi.LinuxContainerSecurityContext, error) {
	sc := effective(in.Pod, in.Spec)
	s := &runtimeapi.LinuxContainerSecurityContext{
		NamespaceOptions: namespaces(in.Pod, in.Target),
		RunAsUser:        int64Value(sc.RunAsUser), RunAsGroup: int64Value(sc.RunAsGroup),
		Privileged: isTrue(sc.Privileged), ReadonlyRootfs: isTrue(sc.ReadOnlyRootFilesystem),
		SelinuxOptions: selinux(sc.SELinuxOptions),
		NoNewPrivs:     sc.AllowPrivilegeEscalation != nil && !*sc.AllowPrivilegeEscalation,
	}
	if s.RunAsUser == nil {
		if in.ImageUser != nil {
			s.RunAsUser = &runtimeapi.Int64Value{Value: *in.ImageUser}
		}
		s.RunAsUsername = in.ImageUsername
	}
	if sc.Capabilities != nil {
		s.Capabilities = &runtimeapi.Capability{}
		for _, c := range sc.Capabilities.Add {
			s.Capabilities.AddCapabilities = append(s.Capabilities.AddCapabilities, string(c))
		}
		for _, c := range sc.Capabilities.Drop {
			s.Capabilities.DropCapabilities = append(s.Capabilities.DropCapabilities, string(c))
		}
	}
	if sc.ProcMount == nil || *sc.ProcMount == v1.DefaultProcMount {
		s.MaskedPaths, s.ReadonlyPaths = maskedPaths(), readonlyPaths()
	} else {
		// Empty, not nil: nothing is hidden.
		s.MaskedPaths, s.ReadonlyPaths = []string{}, []string{}
	}
	if p := in.Pod.Spec.SecurityContext; p != nil {
		s.SupplementalGroups = supplementalGroups(p)
		if p.SupplementalGroupsPolicy != nil && *p.SupplementalGroupsPolicy == v1.SupplementalGroupsPolicyStrict {
			s.SupplementalGroupsPolicy = runtimeapi.SupplementalGroupsPolicy_Strict
		}
	}
	var err error
	if s.Seccomp, err = n.seccomp(sc.SeccompProfile); err != nil {
		return nil, err
	}
	if s.Apparmor, err = appArmor(sc.AppArmorProfile); err != nil {
		return nil, err
	}
	return s, nil
}

func (n *Node) seccomp(p *v1.SeccompProfile) (*runtimeapi.SecurityProfile, error) {
	if p == nil {
		if n.SeccompDefault {
			return &runtimeapi.SecurityProfile{ProfileType: runtimeapi.SecurityProfile_RuntimeDefault}, nil
		}
		return &runtimeapi.SecurityProfile{ProfileType: runtimeapi.SecurityProfile_Unconfined}, nil
	}
	switch p.Type {
	case v1.SeccompProfileTypeRuntimeDefault:
		return &runtimeapi.SecurityProfile{ProfileType: runtimeapi.SecurityProfile_RuntimeDefault}, nil
	case v1.SeccompProfileTypeLocalhost:
		if p.LocalhostProfile == nil || *p.LocalhostProfile == "" {
			return nil, fmt.Errorf("localhostProfile must be set if seccompProfile type is Localhost.")
		}
		return &runtimeapi.SecurityProfile{
			ProfileType: runtimeapi.SecurityProfile_Localhost, LocalhostRef: filepath.Join(n.SeccompDir, filepath.FromSlash(*p.LocalhostProfile)),
		}, nil
	}
	return &runtimeapi.SecurityProfile{ProfileType: runtimeapi.SecurityProfile_Unconfined}, nil
}

func appArmor(p *v1.AppArmorProfile) (*runtimeapi.SecurityProfile, error) {
	if p == nil {
		return nil, nil
	}
	switch p.Type {
	case v1.AppArmorProfileTypeRuntimeDefault:
		return &runtimeapi.SecurityProfile{ProfileType: runtimeapi.SecurityProfile_RuntimeDefault}, nil
	case v1.AppArmorProfileTypeUnconfined:
		return &runtimeapi.SecurityProfile{ProfileType: runtimeapi.SecurityProfile_Unconfined}, nil
	case v1.AppArmorProfileTypeLocalhost:
		if p.LocalhostProfile == nil || *p.LocalhostProfile == "" {
			return nil, fmt.Errorf("missing localhost apparmor profile name")
		}
		return &runtimeapi.SecurityProfile{ProfileType: runtimeapi.SecurityProfile_Localhost, LocalhostRef: *p.LocalhostProfile}, nil
	}
	return nil, fmt.Errorf("unknown apparmor profile type: %q", p.Type)
}

// supplementalGroups of the pod's processes: the volumes' group first.
func supplementalGroups(sc *v1.PodSecurityContext) []int64 {
	var groups []int64
	if sc.FSGroup != nil {
		groups = append(groups, *sc.FSGroup)
	}
	return append(groups, sc.SupplementalGroups...)
}

func selinux(o *v1.SELinuxOptions) *runtimeapi.SELinuxOption {
	if o == nil {
		return nil
	}
	return &runtimeapi.SELinuxOption{User: o.User, Role: o.Role, Type: o.Type, Level: o.Level}
}

func int64Value(v *int64) *runtimeapi.Int64Value {
	if v == nil {
		return nil
	}
	return &runtimeapi.Int64Value{Value: *v}
}

func isTrue(b *bool) bool { return b != nil && *b }

// maskedPaths and readonlyPaths are what the default procMount hides from
// containers, as Kubernetes documents it.
func maskedPaths() []string {
	return []string{
		"/proc/asound", "/proc/acpi", "/proc/interrupts", "/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/timer_list",
		"/proc/timer_stats", "/proc/sched_debug", "/proc/scsi", "/sys/firmware", "/sys/devices/virtual/powercap",
	}
}

func readonlyPaths() []string {
	return []string{"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"}
}
