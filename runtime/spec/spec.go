// Package spec turns a container's configuration in CRI's words into an OCI
// runtime spec.
//
// In flow: the container's and the pod's configuration, the image's configuration,
// the resolved user, the namespaces' paths and what the machine can do. Out flow: a
// spec. It is a list of small functions (containerd's oci.SpecOpts), each of which
// does one thing; Generate applies them in the order of the list. It reads facts of
// the host's file system (mount sources, device nodes, profiles) but changes
// nothing except that missing mount sources are made. It must not know containerd's
// services.
package spec

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	"github.com/containerd/containerd/v2/core/containers"
	"github.com/containerd/containerd/v2/pkg/oci"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/opencontainers/runtime-spec/specs-go"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/skiff-run/skiff/runtime/namespace"
)

// Input is all that Generate needs.
type Input struct {
	// ID of the container and of its sandbox.
	ID, SandboxID string
	// Container and Pod are the configurations the agent gave.
	Container *runtimeapi.ContainerConfig
	Pod       *runtimeapi.PodSandboxConfig
	// Image is the image's configuration.
	Image ocispec.ImageConfig
	// User is who the process runs as; see ResolveUser.
	User User
	// Namespaces to join by path; an empty path means the host's own.
	Net, IPC, UTS string
	// UserNS is the user namespace to join, "" for the host's, and Users who its users are outside.
	UserNS string
	Users  *namespace.Mapping
	// PID namespace: a path to join, or "" for a new one, or HostPID.
	PID string
	// Hostname, Hosts, Resolv and Shm are the pod's files on the host; empty to leave the image's.
	Hostname, Hosts, Resolv, Shm string
	// Name is the host name for the environment.
	Name string
	// CgroupsPath in the syntax of the cgroup driver.
	CgroupsPath string
	// Machine is what the machine can do.
	Machine Machine
}

// HostPID in Input.PID leaves the container in the host's PID namespace.
const HostPID = "host"

// Machine is what the machine can do.
type Machine struct {
	// Unified is cgroup v2.
	Unified bool
	// Swap says whether swap can be limited.
	Swap bool
	// Hugetlb says whether huge pages can be limited.
	Hugetlb bool
	// Capabilities are those a privileged container gets: all that we have ourselves.
	Capabilities []string
	// OOMScoreFloor is the lowest oom_score_adj that can be set; nil for any.
	OOMScoreFloor *int
	// AppArmor says whether the kernel enforces profiles.
	AppArmor bool
	// RecursiveReadOnly says whether mounts below a mount can be made read-only with it.
	RecursiveReadOnly bool
	// SeccompRoot is where relative Localhost profiles are found.
	SeccompRoot string
}

// shimGroup makes the shim of a pod's first container serve the others too.
const shimGroup = "io.containerd.runc.v2.group"

// Generate makes the spec of a container.
func Generate(ctx context.Context, in Input) (*specs.Spec, error) {
	args, err := processArgs(in.Container, in.Image)
	if err != nil {
		return nil, err
	}
	privileged := in.security().GetPrivileged()
	opts := []oci.SpecOpts{
		withBase,
		oci.WithRootFSPath("rootfs"),
		withProcess(args, workingDir(in.Container, in.Image), in.Container.GetTty()),
		withEnv(in),
		withUser(in.User),
		withNamespaces(in),
		withPodFiles(in),
		withMounts(in.Container.GetMounts()),
		withCapabilities(in.security(), in.Machine.Capabilities),
		withDevices(in.Container.GetDevices(), privileged),
		withResources(in.Container.GetLinux().GetResources(), in.Machine),
		withOOMScore(in.Container.GetLinux().GetResources().GetOomScoreAdj(), in.Machine.OOMScoreFloor),
		oci.WithCgroup(in.CgroupsPath),
		withPaths(in.security()),
		withSeccomp(in.security(), in.Machine.SeccompRoot),
		withAppArmor(in.security(), in.Machine.AppArmor),
		oci.WithAnnotations(annotations(in)),
	}
	if named := in.Container.GetCDIDevices(); len(named) > 0 {
		opts = append(opts, withCDIDevices(named))
	}
	if in.security().GetReadonlyRootfs() {
		opts = append(opts, oci.WithRootFSReadonly())
	}
	if privileged {
		opts = append(opts, oci.WithWriteableSysfs, oci.WithWriteableCgroupfs)
	}
	s := &specs.Spec{}
	record := &containers.Container{ID: in.ID}
	for _, opt := range opts {
		if err := opt(ctx, nil, record, s); err != nil {
			return nil, fmt.Errorf("spec of container %s: %w", in.Container.GetMetadata().GetName(), err)
		}
	}
	return s, nil
}

// Infra makes the spec of the process that a pod with a shared PID namespace needs
// as its number one. root is the folder that holds only that program.
func Infra(ctx context.Context, in Input, root, program string) (*specs.Spec, error) {
	opts := []oci.SpecOpts{
		withBase,
		oci.WithRootFSPath(root),
		oci.WithRootFSReadonly(),
		withProcess([]string{program}, "/", false),
		withUser(User{UID: 65535, GID: 65535, Groups: []uint32{65535}}),
		withNamespaces(in),
		withCapabilities(&runtimeapi.LinuxContainerSecurityContext{NoNewPrivs: true, Capabilities: &runtimeapi.Capability{DropCapabilities: []string{"ALL"}}}, nil),
		withResources(&runtimeapi.LinuxContainerResources{CpuShares: 2}, in.Machine),
		withOOMScore(-998, in.Machine.OOMScoreFloor),
		oci.WithCgroup(in.CgroupsPath),
		withPaths(&runtimeapi.LinuxContainerSecurityContext{}),
		withSeccomp(&runtimeapi.LinuxContainerSecurityContext{Seccomp: &runtimeapi.SecurityProfile{}}, ""),
		oci.WithAnnotations(map[string]string{shimGroup: in.SandboxID}),
	}
	s := &specs.Spec{}
	for _, opt := range opts {
		if err := opt(ctx, nil, &containers.Container{ID: in.ID}, s); err != nil {
			return nil, fmt.Errorf("spec of the init process of pod sandbox %s: %w", in.SandboxID, err)
		}
	}
	return s, nil
}

func (in Input) security() *runtimeapi.LinuxContainerSecurityContext {
	return in.Container.GetLinux().GetSecurityContext()
}

// systemdProperty begins the annotations that runc makes properties of the
// container's scope, where systemd makes its cgroup.
const systemdProperty = "org.systemd.property."

// annotations name the container for people who look at runc's state, and group
// the pod's containers.
func annotations(in Input) map[string]string {
	pod := in.Pod.GetMetadata()
	a := map[string]string{
		shimGroup:                               in.SandboxID,
		"io.kubernetes.cri.container-type":      "container",
		"io.kubernetes.cri.container-name":      in.Container.GetMetadata().GetName(),
		"io.kubernetes.cri.image-name":          in.Container.GetImage().GetImage(),
		"io.kubernetes.cri.sandbox-id":          in.SandboxID,
		"io.kubernetes.cri.sandbox-name":        pod.GetName(),
		"io.kubernetes.cri.sandbox-namespace":   pod.GetNamespace(),
		"io.kubernetes.cri.sandbox-uid":         pod.GetUid(),
		"io.kubernetes.cri.sandbox-attempt-num": strconv.FormatUint(uint64(pod.GetAttempt()), 10),
	}
	// runc sets them on the scope that systemd makes of the container.
	for key, value := range in.Container.GetAnnotations() {
		if strings.HasPrefix(key, systemdProperty) {
			a[key] = value
		}
	}
	return a
}

// withBase is a container that nothing was said about.
func withBase(_ context.Context, _ oci.Client, _ *containers.Container, s *specs.Spec) error {
	*s = specs.Spec{
		// What runc 1.1 speaks; nothing newer is used.
		Version: "1.0.2",
		Process: &specs.Process{Cwd: "/"},
		Linux: &specs.Linux{
			Resources: &specs.LinuxResources{
				Devices: []specs.LinuxDeviceCgroup{{Allow: false, Access: "rwm"}},
			},
		},
		Mounts: []specs.Mount{
			{Destination: "/proc", Type: "proc", Source: "proc", Options: []string{"nosuid", "noexec", "nodev"}},
			{Destination: "/dev", Type: "tmpfs", Source: "tmpfs", Options: []string{"nosuid", "strictatime", "mode=755", "size=65536k"}},
			{Destination: "/dev/pts", Type: "devpts", Source: "devpts", Options: []string{"nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"}},
			{Destination: "/dev/mqueue", Type: "mqueue", Source: "mqueue", Options: []string{"nosuid", "noexec", "nodev"}},
			{Destination: "/sys", Type: "sysfs", Source: "sysfs", Options: []string{"nosuid", "noexec", "nodev", "ro"}},
			{Destination: "/sys/fs/cgroup", Type: "cgroup", Source: "cgroup", Options: []string{"nosuid", "noexec", "nodev", "relatime", "ro"}},
		},
	}
	return nil
}

// withNamespaces joins the pod's namespaces; an empty path leaves the host's.
func withNamespaces(in Input) oci.SpecOpts {
	return func(_ context.Context, _ oci.Client, _ *containers.Container, s *specs.Spec) error {
		s.Linux.Namespaces = []specs.LinuxNamespace{{Type: specs.MountNamespace}}
		for _, ns := range []specs.LinuxNamespace{
			{Type: specs.NetworkNamespace, Path: in.Net}, {Type: specs.IPCNamespace, Path: in.IPC}, {Type: specs.UTSNamespace, Path: in.UTS},
		} {
			if ns.Path != "" {
				s.Linux.Namespaces = append(s.Linux.Namespaces, ns)
			}
		}
		if in.UserNS != "" {
			s.Linux.Namespaces = append(s.Linux.Namespaces, specs.LinuxNamespace{Type: specs.UserNamespace, Path: in.UserNS})
			ids := []specs.LinuxIDMapping{{ContainerID: 0, HostID: in.Users.HostID, Size: in.Users.Size}}
			s.Linux.UIDMappings, s.Linux.GIDMappings = ids, ids
		}
		if in.PID != HostPID {
			s.Linux.Namespaces = append(s.Linux.Namespaces, specs.LinuxNamespace{Type: specs.PIDNamespace, Path: in.PID})
		}
		if in.Machine.Unified && !in.security().GetPrivileged() {
			s.Linux.Namespaces = append(s.Linux.Namespaces, specs.LinuxNamespace{Type: specs.CgroupNamespace})
		}
		return nil
	}
}
