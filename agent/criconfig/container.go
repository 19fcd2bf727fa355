package criconfig

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	v1 "k8s.io/api/core/v1"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/skiff-run/skiff/agent/environ"
	"github.com/skiff-run/skiff/agent/podstate"
)

// Container is everything a container's configuration is made from.
type Container struct {
	Pod  *v1.Pod
	Spec *v1.Container
	// Record is what the container remembers.
	Record podstate.Record
	Vars   []environ.Var
	// ImageRef is the image as the runtime resolved it.
	ImageRef string
	// ImageUser is the numeric user of the image, ImageUsername its named one.
	ImageUser     *int64
	ImageUsername string
	Mounts        []*runtimeapi.Mount
	Devices       []*runtimeapi.Device
	// Target is the container an ephemeral container looks at.
	Target string
}

// Container configures one container.
func (n *Node) Container(in Container) (*runtimeapi.ContainerConfig, error) {
	spec := in.Spec
	if err := verifyNonRoot(in); err != nil {
		return nil, err
	}
	security, err := n.security(in)
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(filepath.Join(n.LogDir(in.Pod), spec.Name), 0o755); err != nil {
		return nil, fmt.Errorf("create container log directory for container %s failed: %w", spec.Name, err)
	}
	config := &runtimeapi.ContainerConfig{
		Metadata:    &runtimeapi.ContainerMetadata{Name: spec.Name, Attempt: uint32(in.Record.Attempt)},
		Image:       &runtimeapi.ImageSpec{Image: in.ImageRef, UserSpecifiedImage: spec.Image},
		Command:     environ.ExpandAll(spec.Command, in.Vars),
		Args:        environ.ExpandAll(spec.Args, in.Vars),
		WorkingDir:  spec.WorkingDir,
		Mounts:      in.Mounts,
		Devices:     in.Devices,
		Labels:      podstate.ContainerLabels(in.Pod, spec),
		Annotations: annotations(in),
		LogPath:     LogPath(spec.Name, in.Record.Attempt),
		Stdin:       spec.Stdin, StdinOnce: spec.StdinOnce, Tty: spec.TTY,
		Linux: &runtimeapi.LinuxContainerConfig{
			Resources:       n.Resources(in.Pod, spec),
			SecurityContext: security,
		},
	}
	for _, v := range in.Vars {
		config.Envs = append(config.Envs, &runtimeapi.KeyValue{Key: v.Name, Value: []byte(v.Value)})
	}
	if spec.Lifecycle != nil && spec.Lifecycle.StopSignal != nil {
		signal, ok := runtimeapi.Signal_value[criSignal(*spec.Lifecycle.StopSignal)]
		if !ok {
			return nil, fmt.Errorf("unknown stop signal %q of container %s", *spec.Lifecycle.StopSignal, spec.Name)
		}
		config.StopSignal = runtimeapi.Signal(signal)
	}
	return config, nil
}

// minimumGrace is what every container is given to end, as when its pod is deleted.
const minimumGrace = 2 * time.Second

// annotations are what the container remembers, and how long it may take to end
// when the machine shuts down without the agent's doing: systemd, where it made the
// container's scope, waits 90 seconds for it otherwise, and the machine with it.
func annotations(in Container) map[string]string {
	a := in.Record.Annotations()
	grace := minimumGrace
	if own := in.Pod.Spec.TerminationGracePeriodSeconds; own != nil {
		grace = max(grace, time.Duration(min(*own, maximumGrace))*time.Second)
	}
	a["org.systemd.property.TimeoutStopUSec"] = fmt.Sprintf("uint64 %d", grace.Microseconds())
	return a
}

// maximumGrace, in seconds, is longer than any machine takes to shut down.
const maximumGrace = 24 * 60 * 60

// Resources are the cgroup settings of a container.
func (n *Node) Resources(pod *v1.Pod, spec *v1.Container) *runtimeapi.LinuxContainerResources {
	return n.Limits.Container(pod, spec)
}

// criSignal is a signal's name in the CRI: SIGRTMIN+1 is SIGNAL_SIGRTMINPLUS1.
func criSignal(s v1.Signal) string {
	return "SIGNAL_" + strings.NewReplacer("+", "PLUS", "-", "MINUS").Replace(string(s))
}

// Volumes finds volumes on this node.
type Volumes interface {
	Path(pod *v1.Pod, volume string) (string, bool)
	SubPath(pod *v1.Pod, volumePath, volume, container string, index int, sub string) (string, error)
}

const (
	hostsPath = "/etc/hosts"
)

// Mounts lists the bind mounts of a container: its volumes, the managed hosts
// file and the file for its termination message.
func (n *Node) Mounts(pod *v1.Pod, spec *v1.Container, volumes Volumes, vars []environ.Var, hostsFile, messageFile string) ([]*runtimeapi.Mount, error) {
	var mounts []*runtimeapi.Mount
	for i := range spec.VolumeMounts {
		m, err := n.volumeMount(pod, spec, i, volumes, vars)
		if err != nil {
			return nil, err
		}
		mounts = append(mounts, m)
	}
	taken := func(path string) bool {
		return slices.ContainsFunc(mounts, func(m *runtimeapi.Mount) bool { return m.ContainerPath == path })
	}
	if hostsFile != "" && !taken(hostsPath) {
		mounts = append(mounts, &runtimeapi.Mount{ContainerPath: hostsPath, HostPath: hostsFile, SelinuxRelabel: true})
	}
	if path := spec.TerminationMessagePath; messageFile != "" && path != "" && !taken(path) {
		mounts = append(mounts, &runtimeapi.Mount{ContainerPath: path, HostPath: messageFile, SelinuxRelabel: true})
	}
	return mounts, nil
}

func (n *Node) volumeMount(pod *v1.Pod, spec *v1.Container, index int, volumes Volumes, vars []environ.Var) (*runtimeapi.Mount, error) {
	vm := &spec.VolumeMounts[index]
	path, ok := volumes.Path(pod, vm.Name)
	if !ok {
		return nil, fmt.Errorf("cannot find volume %q to mount into container %q", vm.Name, spec.Name)
	}
	sub := vm.SubPath
	if vm.SubPathExpr != "" {
		expanded, err := expandSubPath(vm.SubPathExpr, vars)
		if err != nil {
			return nil, err
		}
		sub = expanded
	}
	if sub != "" {
		bound, err := volumes.SubPath(pod, path, vm.Name, spec.Name, index, sub)
		if err != nil {
			return nil, err
		}
		path = bound
	} else if _, err := os.Lstat(path); os.IsNotExist(err) {
		// A hostPath without type may name something that is not there yet.
		if err := os.MkdirAll(path, 0o755); err != nil {
			return nil, fmt.Errorf("make the path of volume %q: %w", vm.Name, err)
		}
	}
	target := vm.MountPath
	if !filepath.IsAbs(target) {
		target = filepath.Join("/", target)
	}
	m := &runtimeapi.Mount{ContainerPath: target, HostPath: path, Readonly: vm.ReadOnly || readOnly(pod, vm.Name)}
	if vm.MountPropagation != nil {
		switch *vm.MountPropagation {
		case v1.MountPropagationHostToContainer:
			m.Propagation = runtimeapi.MountPropagation_PROPAGATION_HOST_TO_CONTAINER
		case v1.MountPropagationBidirectional:
			m.Propagation = runtimeapi.MountPropagation_PROPAGATION_BIDIRECTIONAL
		}
	}
	var err error
	m.RecursiveReadOnly, err = n.recursiveReadOnly(vm)
	return m, err
}

// recursiveReadOnly reports whether the mounts below a volume become read-only with it.
func (n *Node) recursiveReadOnly(vm *v1.VolumeMount) (bool, error) {
	if vm.RecursiveReadOnly == nil || *vm.RecursiveReadOnly == v1.RecursiveReadOnlyDisabled {
		return false, nil
	}
	if !vm.ReadOnly {
		return false, fmt.Errorf("failed to resolve recursive read-only mode: volume %q requested recursive read-only mode, but it is not read-only", vm.Name)
	}
	if vm.MountPropagation != nil && *vm.MountPropagation != v1.MountPropagationNone {
		return false, fmt.Errorf("failed to resolve recursive read-only mode: volume %q requested recursive read-only mode, but it is not compatible with propagation %q", vm.Name, *vm.MountPropagation)
	}
	if !n.RecursiveReadOnly && *vm.RecursiveReadOnly == v1.RecursiveReadOnlyEnabled {
		return false, fmt.Errorf("failed to resolve recursive read-only mode: volume %q requested recursive read-only mode, but it is not supported by the runtime", vm.Name)
	}
	return n.RecursiveReadOnly, nil
}

// expandSubPath fails on unknown variables, unlike expansion in a command.
func expandSubPath(expr string, vars []environ.Var) (string, error) {
	var missing string
	out := environ.Expand(expr, func(name string) (string, bool) {
		for _, v := range vars {
			if v.Name == name {
				return v.Value, true
			}
		}
		missing = name
		return "", false
	})
	if missing != "" {
		return "", fmt.Errorf("missing value for %q", missing)
	}
	if out == "" || filepath.IsAbs(out) || !filepath.IsLocal(out) {
		return "", fmt.Errorf("subPath %q must be a relative path without '..'", out)
	}
	return out, nil
}
