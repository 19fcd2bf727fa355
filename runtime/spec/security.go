package spec

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"github.com/containerd/containerd/v2/contrib/apparmor"
	"github.com/containerd/containerd/v2/contrib/seccomp"
	"github.com/containerd/containerd/v2/core/containers"
	"github.com/containerd/containerd/v2/pkg/oci"
	"github.com/opencontainers/runtime-spec/specs-go"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// defaultCapabilities are those every container runtime leaves a container.
var defaultCapabilities = []string{
	"CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FSETID", "CAP_FOWNER", "CAP_MKNOD", "CAP_NET_RAW", "CAP_SETGID",
	"CAP_SETUID", "CAP_SETFCAP", "CAP_SETPCAP", "CAP_NET_BIND_SERVICE", "CAP_SYS_CHROOT", "CAP_KILL", "CAP_AUDIT_WRITE",
}

func capabilityName(name string) string {
	name = strings.ToUpper(name)
	if strings.HasPrefix(name, "CAP_") {
		return name
	}
	return "CAP_" + name
}

// withCapabilities starts from the default set (or everything, or nothing when ALL
// is added or dropped), adds, then drops; a privileged container has all we have.
func withCapabilities(sc *runtimeapi.LinuxContainerSecurityContext, all []string) oci.SpecOpts {
	return func(_ context.Context, _ oci.Client, _ *containers.Container, s *specs.Spec) error {
		isAll := func(name string) bool { return strings.EqualFold(name, "ALL") }
		adds, drops := sc.GetCapabilities().GetAddCapabilities(), sc.GetCapabilities().GetDropCapabilities()
		set := slices.Clone(defaultCapabilities)
		switch {
		case sc.GetPrivileged():
			set, adds, drops = slices.Clone(all), nil, nil
		case slices.ContainsFunc(adds, isAll):
			set = slices.Clone(all)
		case slices.ContainsFunc(drops, isAll):
			set = nil
		}
		for _, name := range adds {
			if !isAll(name) && !slices.Contains(set, capabilityName(name)) {
				set = append(set, capabilityName(name))
			}
		}
		for _, name := range drops {
			if !isAll(name) {
				set = slices.DeleteFunc(set, func(c string) bool { return c == capabilityName(name) })
			}
		}
		var ambient []string
		for _, name := range sc.GetCapabilities().GetAddAmbientCapabilities() {
			if !isAll(name) {
				ambient = append(ambient, capabilityName(name))
			}
		}
		s.Process.Capabilities = &specs.LinuxCapabilities{Bounding: set, Effective: set, Permitted: set, Inheritable: ambient, Ambient: ambient}
		s.Process.NoNewPrivileges = sc.GetNoNewPrivs()
		return nil
	}
}

var (
	defaultMasked = []string{
		"/proc/asound", "/proc/acpi", "/proc/interrupts", "/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/timer_list",
		"/proc/timer_stats", "/proc/sched_debug", "/proc/scsi", "/sys/firmware", "/sys/devices/virtual/powercap",
	}
	defaultReadonly = []string{"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"}
)

// withPaths hides parts of /proc and /sys. A list that is nil was not given and
// means the default; an empty one was, and means procMount: Unmasked.
func withPaths(sc *runtimeapi.LinuxContainerSecurityContext) oci.SpecOpts {
	return func(_ context.Context, _ oci.Client, _ *containers.Container, s *specs.Spec) error {
		if sc.GetPrivileged() {
			return nil
		}
		s.Linux.MaskedPaths, s.Linux.ReadonlyPaths = sc.GetMaskedPaths(), sc.GetReadonlyPaths()
		if s.Linux.MaskedPaths == nil {
			s.Linux.MaskedPaths = defaultMasked
		}
		if s.Linux.ReadonlyPaths == nil {
			s.Linux.ReadonlyPaths = defaultReadonly
		}
		return nil
	}
}

// withSeccomp must follow withCapabilities: the default profile allows more to whoever has more capabilities.
func withSeccomp(sc *runtimeapi.LinuxContainerSecurityContext, root string) oci.SpecOpts {
	profile := sc.GetSeccomp()
	if sc.GetPrivileged() || profile == nil {
		return oci.WithSeccompUnconfined
	}
	switch profile.GetProfileType() {
	case runtimeapi.SecurityProfile_RuntimeDefault:
		return seccomp.WithDefaultProfile()
	case runtimeapi.SecurityProfile_Localhost:
		path := profile.GetLocalhostRef()
		if !filepath.IsAbs(path) {
			path = filepath.Join(root, path)
		}
		return func(ctx context.Context, c oci.Client, r *containers.Container, s *specs.Spec) error {
			if err := seccomp.WithProfile(path)(ctx, c, r, s); err != nil {
				return fmt.Errorf("seccomp profile %s: %w", path, err)
			}
			return nil
		}
	}
	return oci.WithSeccompUnconfined
}

// appArmorDefault is the name under which the default profile is loaded.
const appArmorDefault = "cri-containerd.apparmor.d"

func withAppArmor(sc *runtimeapi.LinuxContainerSecurityContext, enabled bool) oci.SpecOpts {
	nothing := func(context.Context, oci.Client, *containers.Container, *specs.Spec) error { return nil }
	profile := sc.GetApparmor()
	if !enabled {
		if profile.GetProfileType() == runtimeapi.SecurityProfile_Localhost {
			return func(context.Context, oci.Client, *containers.Container, *specs.Spec) error {
				return fmt.Errorf("apparmor profile %q is wanted, but this machine does not enforce AppArmor", profile.GetLocalhostRef())
			}
		}
		return nothing
	}
	switch {
	case sc.GetPrivileged() && profile.GetProfileType() != runtimeapi.SecurityProfile_Localhost:
		return nothing
	case profile.GetProfileType() == runtimeapi.SecurityProfile_Unconfined:
		return nothing
	case profile.GetProfileType() == runtimeapi.SecurityProfile_Localhost:
		return apparmor.WithProfile(profile.GetLocalhostRef())
	}
	return apparmor.WithDefaultProfile(appArmorDefault)
}
