package runtime

import (
	"context"
	"errors"
	"io"
	"net/netip"
	"time"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	"k8s.io/cri-streaming/pkg/streaming/remotecommand"

	"github.com/skiff-run/skiff/runtime/cgroup"
	"github.com/skiff-run/skiff/runtime/network"
)

var errNotYet = errors.New("not built yet")

// Runtime runs pods on containerd. Its methods may be called from many goroutines.
type Runtime struct{}

// New connects to containerd, finds the sandboxes and containers of an earlier
// process again and begins to follow events. ctx bounds only the start.
// When containerd does not answer, New returns an error after ctx ends.
func New(ctx context.Context, o Options) (*Runtime, error) { return nil, errNotYet }

// Close stops following events and closes the output pipes. Containers run on.
func (r *Runtime) Close() error { return nil }

// Cleanup removes every container, sandbox, mount, link and table of the runtime that o describes. No Runtime may be using them.
func Cleanup(ctx context.Context, o Options) error { return errNotYet }

// Events reports containers that were created, started, stopped or deleted.
// An event with an empty ContainerId asks for a complete look: events may have been
// lost because the connection to containerd broke or the reader was slow. PodSandboxStatus carries Id, Metadata and State.
func (r *Runtime) Events() <-chan *runtimeapi.ContainerEventResponse { return nil }

// Cgroups manages the pods' cgroups.
func (r *Runtime) Cgroups() *cgroup.Manager { return nil }

// SetPodCIDRs sets the ranges from which pods of this machine get addresses. Until then NetworkReady is false.
func (r *Runtime) SetPodCIDRs(ctx context.Context, cidrs []netip.Prefix) error { return errNotYet }

// SetPeers sets the other machines of the cluster, whose pods are reached by routes.
func (r *Runtime) SetPeers(ctx context.Context, peers []network.Peer) error { return errNotYet }

// Version returns containerd's version.
func (r *Runtime) Version(ctx context.Context, apiVersion string) (*runtimeapi.VersionResponse, error) {
	return nil, errNotYet
}

// Status returns the conditions RuntimeReady and NetworkReady.
func (r *Runtime) Status(ctx context.Context, verbose bool) (*runtimeapi.StatusResponse, error) {
	return nil, errNotYet
}

// RunPodSandbox makes the namespaces, network and files of a pod and returns the sandbox's ID.
func (r *Runtime) RunPodSandbox(ctx context.Context, config *runtimeapi.PodSandboxConfig, runtimeHandler string) (string, error) {
	return "", errNotYet
}

// StopPodSandbox kills the containers and releases the network. It may be repeated.
func (r *Runtime) StopPodSandbox(ctx context.Context, podSandboxID string) error { return errNotYet }

// RemovePodSandbox stops the sandbox, removes its containers and everything kept about it. It may be repeated.
func (r *Runtime) RemovePodSandbox(ctx context.Context, podSandboxID string) error { return errNotYet }

// PodSandboxStatus returns the sandbox and the statuses of its containers.
func (r *Runtime) PodSandboxStatus(ctx context.Context, podSandboxID string, verbose bool) (*runtimeapi.PodSandboxStatusResponse, error) {
	return nil, errNotYet
}

// ListPodSandbox lists the sandboxes that match the filter.
func (r *Runtime) ListPodSandbox(ctx context.Context, filter *runtimeapi.PodSandboxFilter) ([]*runtimeapi.PodSandbox, error) {
	return nil, errNotYet
}

// CreateContainer makes a container in a sandbox and returns its ID.
func (r *Runtime) CreateContainer(ctx context.Context, podSandboxID string, config *runtimeapi.ContainerConfig, sandboxConfig *runtimeapi.PodSandboxConfig) (string, error) {
	return "", errNotYet
}

// StartContainer starts a created container.
func (r *Runtime) StartContainer(ctx context.Context, containerID string) error { return errNotYet }

// StopContainer sends the stop signal, and SIGKILL after timeout seconds. It returns when the container has exited.
func (r *Runtime) StopContainer(ctx context.Context, containerID string, timeout int64) error {
	return errNotYet
}

// RemoveContainer removes a container, killing it when it runs. It may be repeated. The log files stay.
func (r *Runtime) RemoveContainer(ctx context.Context, containerID string) error { return errNotYet }

// ListContainers lists the containers that match the filter.
func (r *Runtime) ListContainers(ctx context.Context, filter *runtimeapi.ContainerFilter) ([]*runtimeapi.Container, error) {
	return nil, errNotYet
}

// ContainerStatus returns the status of a container.
func (r *Runtime) ContainerStatus(ctx context.Context, containerID string, verbose bool) (*runtimeapi.ContainerStatusResponse, error) {
	return nil, errNotYet
}

// UpdateContainerResources changes the limits of a container.
func (r *Runtime) UpdateContainerResources(ctx context.Context, containerID string, resources *runtimeapi.ContainerResources) error {
	return errNotYet
}

// ReopenContainerLog opens the container's log file anew after someone moved it away. Rotation by size happens without it.
func (r *Runtime) ReopenContainerLog(ctx context.Context, containerID string) error { return errNotYet }

// ExecSync runs a command and returns its output; a k8s.io/utils/exec.CodeExitError when it exits non-zero, ErrExecTimeout when it was killed.
func (r *Runtime) ExecSync(ctx context.Context, containerID string, cmd []string, timeout time.Duration) (stdout, stderr []byte, err error) {
	return nil, nil, errNotYet
}

// Exec runs a command with streams, as streaming.Runtime of k8s.io/cri-streaming wants it. A non-zero exit is a k8s.io/utils/exec.CodeExitError.
func (r *Runtime) Exec(ctx context.Context, containerID string, cmd []string, in io.Reader, out, err io.WriteCloser, tty bool, resize <-chan remotecommand.TerminalSize) error {
	return errNotYet
}

// Attach joins the streams of the container's own process.
func (r *Runtime) Attach(ctx context.Context, containerID string, in io.Reader, out, err io.WriteCloser, tty bool, resize <-chan remotecommand.TerminalSize) error {
	return errNotYet
}

// PortForward connects stream with a TCP port inside the pod.
func (r *Runtime) PortForward(ctx context.Context, podSandboxID string, port int32, stream io.ReadWriteCloser) error {
	return errNotYet
}

// ContainerStats returns what a running container uses.
func (r *Runtime) ContainerStats(ctx context.Context, containerID string) (*runtimeapi.ContainerStats, error) {
	return nil, errNotYet
}

// ListContainerStats returns what the running containers that match the filter use.
func (r *Runtime) ListContainerStats(ctx context.Context, filter *runtimeapi.ContainerStatsFilter) ([]*runtimeapi.ContainerStats, error) {
	return nil, errNotYet
}

// PodSandboxStats returns what a pod uses.
func (r *Runtime) PodSandboxStats(ctx context.Context, podSandboxID string) (*runtimeapi.PodSandboxStats, error) {
	return nil, errNotYet
}

// ListPodSandboxStats returns what the pods that match the filter use.
func (r *Runtime) ListPodSandboxStats(ctx context.Context, filter *runtimeapi.PodSandboxStatsFilter) ([]*runtimeapi.PodSandboxStats, error) {
	return nil, errNotYet
}

// PullImage pulls an image and unpacks it, and returns its ID. Simultaneous pulls of one image are one pull.
func (r *Runtime) PullImage(ctx context.Context, image *runtimeapi.ImageSpec, auth *runtimeapi.AuthConfig, podSandboxConfig *runtimeapi.PodSandboxConfig) (string, error) {
	return "", errNotYet
}

// ImageStatus returns an image by name, digest or ID; Image is nil when it is not here.
func (r *Runtime) ImageStatus(ctx context.Context, image *runtimeapi.ImageSpec, verbose bool) (*runtimeapi.ImageStatusResponse, error) {
	return nil, errNotYet
}

// ListImages lists the images that match the filter.
func (r *Runtime) ListImages(ctx context.Context, filter *runtimeapi.ImageFilter) ([]*runtimeapi.Image, error) {
	return nil, errNotYet
}

// RemoveImage removes an image with all its names. It may be repeated.
func (r *Runtime) RemoveImage(ctx context.Context, image *runtimeapi.ImageSpec) error {
	return errNotYet
}

// ImageFsInfo returns the use of the filesystem that holds images and containers' layers.
func (r *Runtime) ImageFsInfo(ctx context.Context) (*runtimeapi.ImageFsInfoResponse, error) {
	return nil, errNotYet
}
