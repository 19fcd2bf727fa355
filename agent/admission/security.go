package admission

import (
	"fmt"
	"runtime"
	"strings"

	v1 "k8s.io/api/core/v1"
	"k8s.io/component-helpers/node/util/sysctl"
)

// safeSysctls have a namespace and no effect on other pods. All are in a
// namespace of their own in every kernel since 4.15.
func safeSysctls() []string {
	return []string{
		"kernel.shm_rmid_forced", "net.ipv4.ip_local_port_range", "net.ipv4.tcp_syncookies", "net.ipv4.ping_group_range",
		"net.ipv4.ip_unprivileged_port_start", "net.ipv4.ip_local_reserved_ports", "net.ipv4.tcp_keepalive_time", "net.ipv4.tcp_fin_timeout",
		"net.ipv4.tcp_keepalive_intvl", "net.ipv4.tcp_keepalive_probes", "net.ipv4.tcp_rmem", "net.ipv4.tcp_wmem",
		"net.ipv4.tcp_slow_start_after_idle", "net.ipv4.tcp_notsent_lowat",
	}
}

// sysctls refuses kernel settings that are not allowed, or that would change the
// node because the pod uses the node's namespace.
func sysctls(pod *v1.Pod, node Node) (string, string) {
	if pod.Spec.SecurityContext == nil {
		return "", ""
	}
	forbidden := func(format string, args ...any) (string, string) {
		return "SysctlForbidden", "forbidden sysctl: " + fmt.Sprintf(format, args...)
	}
	for _, s := range pod.Spec.SecurityContext.Sysctls {
		name := sysctl.NormalizeName(s.Name)
		namespace, allowed := allowedSysctl(name, node.UnsafeSysctls)
		if !allowed {
			return forbidden("%q not allowlisted", name)
		}
		for shared, on := range map[sysctl.Namespace]bool{
			sysctl.NetNamespace: pod.Spec.HostNetwork, sysctl.IPCNamespace: pod.Spec.HostIPC, sysctl.UserNamespace: pod.Spec.HostUsers == nil || *pod.Spec.HostUsers,
		} {
			if on && namespace == shared {
				return forbidden("%q not allowed with host %s enabled", name, namespace)
			}
		}
	}
	return "", ""
}

// allowedSysctl finds the name among the allowed ones and patterns, and tells
// which namespace it belongs to.
func allowedSysctl(name string, unsafe []string) (sysctl.Namespace, bool) {
	for _, pattern := range append(safeSysctls(), unsafe...) {
		namespace, base, prefixed := sysctl.GetNamespace(pattern)
		if base == name || prefixed && strings.HasPrefix(name, base) {
			return namespace, true
		}
	}
	return "", false
}

// appArmor refuses a pod that wants a profile where nothing would enforce it.
func appArmor(pod *v1.Pod, node Node) (string, string) {
	if node.AppArmor || pod.Status.Phase != v1.PodPending && pod.Status.Phase != "" {
		return "", ""
	}
	if wantsAppArmor(pod) {
		return "AppArmor", "Cannot enforce AppArmor: AppArmor is not enabled on the host"
	}
	return "", ""
}

func wantsAppArmor(pod *v1.Pod) bool {
	confines := func(p *v1.AppArmorProfile) bool { return p != nil && p.Type != v1.AppArmorProfileTypeUnconfined }
	return pod.Spec.SecurityContext != nil && confines(pod.Spec.SecurityContext.AppArmorProfile) ||
		anyContainer(pod, func(sc *v1.SecurityContext) bool { return confines(sc.AppArmorProfile) })
}

// selinux refuses a pod that asks for a label of its own where labels are
// enforced: the runtime sets none, and to go on without one would confine the
// pod less than its author believes. Where the kernel has no SELinux the options
// have no effect, as everywhere.
func selinux(pod *v1.Pod, node Node) (string, string) {
	if !node.SELinux {
		return "", ""
	}
	asks := func(o *v1.SELinuxOptions) bool { return o != nil && *o != (v1.SELinuxOptions{}) }
	if pod.Spec.SecurityContext != nil && asks(pod.Spec.SecurityContext.SELinuxOptions) ||
		anyContainer(pod, func(sc *v1.SecurityContext) bool { return asks(sc.SELinuxOptions) }) {
		return "SELinux", "Cannot apply seLinuxOptions: this node's containers are not labelled"
	}
	return "", ""
}

func anyContainer(pod *v1.Pod, condition func(*v1.SecurityContext) bool) bool {
	for _, containers := range [][]v1.Container{pod.Spec.InitContainers, pod.Spec.Containers} {
		for i := range containers {
			if sc := containers[i].SecurityContext; sc != nil && condition(sc) {
				return true
			}
		}
	}
	return false
}

// operatingSystem refuses pods made for another operating system.
func operatingSystem(pod *v1.Pod, node Node) (string, string) {
	if node.Object != nil {
		if wanted, ok := pod.Labels[v1.LabelOSStable]; ok && wanted != runtime.GOOS {
			return "PodOSSelectorNodeLabelDoesNotMatch", "Failed to admit pod as the `kubernetes.io/os` label doesn't match node label"
		}
	}
	if pod.Spec.OS != nil && string(pod.Spec.OS.Name) != runtime.GOOS {
		return "PodOSNotSupported", "Failed to admit pod as the OS field doesn't match node OS"
	}
	return "", ""
}
