package criconfig

import (
	"fmt"
	"path/filepath"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/skiff-run/skiff/agent/hostfiles"
	"github.com/skiff-run/skiff/agent/plan"
	"github.com/skiff-run/skiff/agent/podstate"
	"github.com/skiff-run/skiff/agent/resources"
)

// Node is what configurations depend on besides the pod.
type Node struct {
	PodLogsDir string
	SeccompDir string
	// SeccompDefault gives containers without a profile the default one.
	SeccompDefault bool
	// Resolver is what new pods are told of name servers.
	Resolver func() *hostfiles.Resolver
	Limits   *resources.Policy
	// RecursiveReadOnly says whether mounts below a mount can be made read-only with it.
	RecursiveReadOnly bool
	// CgroupParent names a pod's cgroup for the runtime.
	CgroupParent func(uid types.UID, class v1.PodQOSClass) string
}

// LogDir is the directory of a pod's container logs.
func (n *Node) LogDir(pod *v1.Pod) string {
	return filepath.Join(n.PodLogsDir, fmt.Sprintf("%s_%s_%s", pod.Namespace, pod.Name, pod.UID))
}

// LogPath is a container's log file, relative to the pod's directory.
func LogPath(container string, attempt int) string {
	return filepath.Join(container, fmt.Sprintf("%d.log", attempt))
}

// DNSWarnings are what the user should know of the pod's resolver configuration.
func (n *Node) DNSWarnings(pod *v1.Pod) []hostfiles.Warning {
	_, warnings := n.Resolver().PodDNS(pod)
	return warnings
}

// Sandbox configures the pod's sandbox.
func (n *Node) Sandbox(pod *v1.Pod, attempt uint32) (*runtimeapi.PodSandboxConfig, error) {
	config := &runtimeapi.PodSandboxConfig{
		Metadata:     &runtimeapi.PodSandboxMetadata{Name: pod.Name, Namespace: pod.Namespace, Uid: string(pod.UID), Attempt: attempt},
		Labels:       podstate.SandboxLabels(pod),
		Annotations:  pod.Annotations,
		LogDirectory: n.LogDir(pod),
	}
	config.DnsConfig, _ = n.Resolver().PodDNS(pod)
	if !pod.Spec.HostNetwork {
		hostname, err := hostfiles.KernelHostname(pod, n.Resolver().ClusterDomain)
		if err != nil {
			return nil, err
		}
		config.Hostname = hostname
		config.PortMappings = portMappings(pod)
	}
	security := &runtimeapi.LinuxSandboxSecurityContext{
		NamespaceOptions: namespaces(pod, ""),
		Privileged:       anyPrivileged(pod),
		Seccomp:          &runtimeapi.SecurityProfile{ProfileType: runtimeapi.SecurityProfile_RuntimeDefault},
	}
	config.Linux = &runtimeapi.LinuxPodSandboxConfig{
		CgroupParent: n.CgroupParent(pod.UID, resources.QOSClass(pod)),
		Resources:    n.Limits.Pod(pod), SecurityContext: security, Sysctls: map[string]string{},
	}
	if sc := pod.Spec.SecurityContext; sc != nil {
		for _, s := range sc.Sysctls {
			config.Linux.Sysctls[s.Name] = s.Value
		}
		security.RunAsUser, security.RunAsGroup = int64Value(sc.RunAsUser), int64Value(sc.RunAsGroup)
		security.SupplementalGroups = supplementalGroups(sc)
		security.SelinuxOptions = selinux(sc.SELinuxOptions)
	}
	return config, nil
}

// portMappings are the host ports of what runs as long as the pod: those of
// init containers that end would stand in the way of the others'.
func portMappings(pod *v1.Pod) []*runtimeapi.PortMapping {
	var mappings []*runtimeapi.PortMapping
	add := func(c *v1.Container) {
		for _, p := range c.Ports {
			if p.HostPort == 0 {
				continue
			}
			m := &runtimeapi.PortMapping{ContainerPort: p.ContainerPort, HostPort: p.HostPort, HostIp: p.HostIP}
			switch p.Protocol {
			case v1.ProtocolUDP:
				m.Protocol = runtimeapi.Protocol_UDP
			case v1.ProtocolSCTP:
				m.Protocol = runtimeapi.Protocol_SCTP
			}
			mappings = append(mappings, m)
		}
	}
	for i := range pod.Spec.InitContainers {
		if plan.IsSidecar(&pod.Spec.InitContainers[i]) {
			add(&pod.Spec.InitContainers[i])
		}
	}
	for i := range pod.Spec.Containers {
		add(&pod.Spec.Containers[i])
	}
	return mappings
}

func anyPrivileged(pod *v1.Pod) bool {
	for _, containers := range [][]v1.Container{pod.Spec.InitContainers, pod.Spec.Containers} {
		for i := range containers {
			if sc := containers[i].SecurityContext; sc != nil && sc.Privileged != nil && *sc.Privileged {
				return true
			}
		}
	}
	return false
}

// namespaces says which namespaces the pod shares with the node. target is the
// container whose process namespace an ephemeral container joins.
func namespaces(pod *v1.Pod, target string) *runtimeapi.NamespaceOption {
	o := &runtimeapi.NamespaceOption{Pid: runtimeapi.NamespaceMode_CONTAINER}
	if pod.Spec.HostNetwork {
		o.Network = runtimeapi.NamespaceMode_NODE
	}
	if pod.Spec.HostIPC {
		o.Ipc = runtimeapi.NamespaceMode_NODE
	}
	if pod.Spec.HostUsers != nil && !*pod.Spec.HostUsers {
		// Which users, the runtime decides.
		o.UsernsOptions = &runtimeapi.UserNamespace{Mode: runtimeapi.NamespaceMode_POD}
	}
	switch {
	case pod.Spec.HostPID:
		o.Pid = runtimeapi.NamespaceMode_NODE
	case pod.Spec.ShareProcessNamespace != nil && *pod.Spec.ShareProcessNamespace:
		o.Pid = runtimeapi.NamespaceMode_POD
	case target != "":
		o.Pid, o.TargetId = runtimeapi.NamespaceMode_TARGET, target
	}
	return o
}
