package agent_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	v1 "k8s.io/api/core/v1"
)

func TestSecurityContexts(t *testing.T) {
	m := newMachine(t)
	m.settings.AllowedUnsafeSysctls = []string{"kernel.msg*"}
	profiles := filepath.Join(m.settings.RootDir, "seccomp", "profiles")
	must(t, os.MkdirAll(profiles, 0o755))
	must(t, os.WriteFile(filepath.Join(profiles, "no-mkdir.json"), []byte(
		`{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO"}]}`), 0o644))
	m.start()
	m.ready()
	m.play(securityScenes)
}

// secure sets the security context of all containers.
func secure(sc v1.SecurityContext) func(*v1.PodSpec) {
	return func(s *v1.PodSpec) {
		for i := range s.Containers {
			s.Containers[i].SecurityContext = &sc
		}
	}
}

func podSecurity(sc v1.PodSecurityContext) func(*v1.PodSpec) {
	return func(s *v1.PodSpec) { s.SecurityContext = &sc }
}

// capabilities prints the effective and bounding sets and what else confines a process.
const confinement = "grep -E '^(CapEff|CapBnd|NoNewPrivs|Seccomp):' /proc/self/status | tr '\\t' ' ' | tr '\\n' ' '"

func (m *machine) waits(name, reason string) string {
	m.Helper()
	pod := m.eventually(name, "it waits with "+reason, func(p *v1.Pod) bool {
		w := statusOf(p, "c").State.Waiting
		return w != nil && w.Reason == reason
	})
	return statusOf(pod, "c").State.Waiting.Message
}

func (m *machine) refused(name string) (reason, message string) {
	m.Helper()
	pod := m.ends(name, v1.PodFailed)
	return pod.Status.Reason, pod.Status.Message
}

var securityScenes = []scene{
	{"users and groups", func(m *machine) {
		m.expect(m.output("user-none", "id", func(*v1.PodSpec) {}), "uid=0(root) gid=0(root) groups=0(root),10(wheel)")
		m.expect(m.output("user-pod", "id", podSecurity(v1.PodSecurityContext{RunAsUser: ref(int64(1000)), RunAsGroup: ref(int64(3000)), SupplementalGroups: []int64{4000}})),
			"uid=1000(skipper) gid=3000 groups=2000(crew),3000,4000")
		m.expect(m.output("user-strict", "id", podSecurity(v1.PodSecurityContext{
			RunAsUser: ref(int64(1000)), RunAsGroup: ref(int64(3000)), SupplementalGroups: []int64{4000}, SupplementalGroupsPolicy: ref(v1.SupplementalGroupsPolicyStrict),
		})), "uid=1000(skipper) gid=3000 groups=3000,4000")
		m.expect(m.output("user-own", "id -u; id -g", with(podSecurity(v1.PodSecurityContext{RunAsUser: ref(int64(1)), RunAsGroup: ref(int64(2))}),
			secure(v1.SecurityContext{RunAsUser: ref(int64(77))}))), "77\n2")
		user := statusOf(m.pod("user-pod"), "c").User
		if user == nil || user.Linux.UID != 1000 || user.Linux.GID != 3000 || len(user.Linux.SupplementalGroups) != 3 {
			m.Errorf("user in the status: %+v", user)
		}
	}},
	{"no root", func(m *machine) {
		m.run("nonroot-image", v1.RestartPolicyNever, []v1.Container{script("c", "id")}, podSecurity(v1.PodSecurityContext{RunAsNonRoot: ref(true)}))
		m.expect(m.waits("nonroot-image", "CreateContainerConfigError"), `container has runAsNonRoot and image will run as root (pod: "nonroot-image_default(uid-of-nonroot-image)", container: c)`)
		m.run("nonroot-zero", v1.RestartPolicyNever, []v1.Container{script("c", "id")}, secure(v1.SecurityContext{RunAsNonRoot: ref(true), RunAsUser: ref(int64(0))}))
		m.expect(m.waits("nonroot-zero", "CreateContainerConfigError"), `container's runAsUser breaks non-root policy (pod: "nonroot-zero_default(uid-of-nonroot-zero)", container: c)`)
		m.eventComes("nonroot-zero", "Failed Error: container's runAsUser breaks non-root policy")
		m.expect(m.output("nonroot-ok", "id -u", secure(v1.SecurityContext{RunAsNonRoot: ref(true), RunAsUser: ref(int64(7))})), "7")
	}},
	{"capabilities, privileges and system calls", func(m *machine) {
		m.expect(m.output("cap-default", confinement, func(*v1.PodSpec) {}), "CapEff: 00000000a80425fb CapBnd: 00000000a80425fb NoNewPrivs: 0 Seccomp: 0")
		m.expect(m.output("cap-some", confinement, secure(v1.SecurityContext{
			Capabilities:             &v1.Capabilities{Drop: []v1.Capability{"ALL"}, Add: []v1.Capability{"NET_BIND_SERVICE", "CAP_CHOWN"}},
			AllowPrivilegeEscalation: ref(false), SeccompProfile: &v1.SeccompProfile{Type: v1.SeccompProfileTypeRuntimeDefault},
		})), "CapEff: 0000000000000401 CapBnd: 0000000000000401 NoNewPrivs: 1 Seccomp: 2")
		// A user that is not root has no effective capability, but may gain those of the bounding set.
		m.expect(m.output("cap-user", confinement, secure(v1.SecurityContext{RunAsUser: ref(int64(5))})), "CapEff: 0000000000000000 CapBnd: 00000000a80425fb NoNewPrivs: 0 Seccomp: 0")
		// The container's own profile wins over the pod's.
		m.expect(m.output("seccomp-own", confinement, with(podSecurity(v1.PodSecurityContext{SeccompProfile: &v1.SeccompProfile{Type: v1.SeccompProfileTypeRuntimeDefault}}),
			secure(v1.SecurityContext{SeccompProfile: &v1.SeccompProfile{Type: v1.SeccompProfileTypeUnconfined}}))), "CapEff: 00000000a80425fb CapBnd: 00000000a80425fb NoNewPrivs: 0 Seccomp: 0")
		m.expect(m.output("seccomp-local", "mkdir /tmp/x 2>&1; echo y > /tmp/y && cat /tmp/y",
			podSecurity(v1.PodSecurityContext{SeccompProfile: &v1.SeccompProfile{Type: v1.SeccompProfileTypeLocalhost, LocalhostProfile: ref("profiles/no-mkdir.json")}})),
			"mkdir: can't create directory '/tmp/x': Operation not permitted\ny")
		m.run("seccomp-none", v1.RestartPolicyNever, []v1.Container{script("c", "true")}, podSecurity(v1.PodSecurityContext{
			SeccompProfile: &v1.SeccompProfile{Type: v1.SeccompProfileTypeLocalhost, LocalhostProfile: ref("none.json")}}))
		if message := m.waits("seccomp-none", "CreateContainerError"); !strings.Contains(message, "none.json") {
			m.Errorf("a missing profile: %q", message)
		}
	}},
	{"a privileged container has the node's devices and may write everywhere", func(m *machine) {
		script := "ls /dev | grep -cE '^(mem|kmsg|loop-control|null)$'; mount | grep -E ' /sys (type )?' | grep -c 'rw,'; echo 1 > /proc/sys/net/ipv4/ip_forward && echo written"
		m.expect(m.output("priv-yes", script, secure(v1.SecurityContext{Privileged: ref(true)})), hostDevices(m)+"\n1\nwritten")
		if got := m.output("priv-no", "ls /dev | grep -cE '^(mem|kmsg|loop-control)$'; mount | grep -E ' /sys (type )?' | grep -c 'rw,'; echo 1 2>/dev/null > /proc/sys/net/ipv4/ip_forward || echo denied; head -c 1 /proc/kcore 2>/dev/null | wc -c; true", func(*v1.PodSpec) {}); !strings.HasPrefix(got, "0\n0\n") || !strings.HasSuffix(got, "0\n") {
			m.Errorf("a container without privileges sees %q", got)
		}
	}},
	{"a root file system that cannot be written to", func(m *machine) {
		m.expect(m.output("readonly", "touch /x 2>&1; touch /s/x && echo written; echo x > /dev/termination-log && echo told; touch /dev/shm/x && echo shared", with(scratch,
			secure(v1.SecurityContext{ReadOnlyRootFilesystem: ref(true)}))), "touch: /x: Read-only file system\nwritten\ntold\nshared")
	}},
	{"what of /proc is hidden", func(m *machine) {
		script := "cat /proc/timer_list 2>/dev/null | wc -c; mount | grep -c ' /proc/sys '"
		m.expect(m.output("proc-default", script, func(*v1.PodSpec) {}), "0\n1")
		if got := m.output("proc-unmasked", script+"; true", secure(v1.SecurityContext{ProcMount: ref(v1.UnmaskedProcMount)})); strings.HasPrefix(got, "0\n") || !strings.HasSuffix(got, "\n0\n") {
			m.Errorf("unmasked: %q", got)
		}
	}},
	{"kernel settings", func(m *machine) {
		sysctls := func(list ...v1.Sysctl) func(*v1.PodSpec) { return podSecurity(v1.PodSecurityContext{Sysctls: list}) }
		m.expect(m.output("sysctl-safe", "cat /proc/sys/net/ipv4/ip_local_port_range /proc/sys/kernel/shm_rmid_forced",
			sysctls(v1.Sysctl{Name: "net.ipv4.ip_local_port_range", Value: "2000 3000"}, v1.Sysctl{Name: "kernel/shm_rmid_forced", Value: "1"})), "2000\t3000\n1")
		m.expect(m.output("sysctl-allowed", "cat /proc/sys/kernel/msgmax", sysctls(v1.Sysctl{Name: "kernel.msgmax", Value: "4096"})), "4096")
		m.run("sysctl-unsafe", v1.RestartPolicyNever, []v1.Container{script("c", "true")}, sysctls(v1.Sysctl{Name: "net.core.somaxconn", Value: "5"}))
		reason, message := m.refused("sysctl-unsafe")
		m.expect(reason+" "+message, `SysctlForbidden Pod was rejected: forbidden sysctl: "net.core.somaxconn" not allowlisted`)
		m.eventComes("sysctl-unsafe", `SysctlForbidden forbidden sysctl: "net.core.somaxconn" not allowlisted`)
	}},
	{"AppArmor where the kernel has it", func(m *machine) {
		if enabled, _ := os.ReadFile("/sys/module/apparmor/parameters/enabled"); strings.HasPrefix(string(enabled), "Y") {
			m.expect(m.output("apparmor", "cat /proc/self/attr/current", podSecurity(v1.PodSecurityContext{AppArmorProfile: &v1.AppArmorProfile{Type: v1.AppArmorProfileTypeRuntimeDefault}})), "cri-containerd.apparmor.d (enforce)")
			return
		}
		m.run("apparmor", v1.RestartPolicyNever, []v1.Container{script("c", "true")}, podSecurity(v1.PodSecurityContext{AppArmorProfile: &v1.AppArmorProfile{Type: v1.AppArmorProfileTypeRuntimeDefault}}))
		reason, message := m.refused("apparmor")
		m.expect(reason+" "+message, "AppArmor Pod was rejected: Cannot enforce AppArmor: AppArmor is not enabled on the host")
	}},
	{"users of its own", func(m *machine) {
		m.expect(m.output("hostusers", "cut -c1-12 /proc/self/uid_map | tr -d ' '; id -u; echo x > /s/x; stat -c %u /s/x /s; touch /etc/hosts && echo mine", with(scratch, func(s *v1.PodSpec) { s.HostUsers = ref(false) })), "0\n0\n0\n0\nmine")
	}},
	{"SELinux options where the kernel has none", func(m *machine) {
		if _, err := os.Stat("/sys/fs/selinux/enforce"); err == nil {
			m.Skip("this kernel enforces SELinux")
		}
		m.expect(m.output("selinux", "echo ok", podSecurity(v1.PodSecurityContext{SELinuxOptions: &v1.SELinuxOptions{Level: "s0:c1,c2"}})), "ok")
	}},
}

// hostDevices counts those of some devices that this machine has.
func hostDevices(m *machine) string {
	count := 0
	for _, name := range []string{"mem", "kmsg", "loop-control", "null"} {
		if _, err := os.Stat("/dev/" + name); err == nil {
			count++
		}
	}
	return string(rune('0' + count))
}
