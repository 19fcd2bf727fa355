package podworker

import (
	"context"
	"log/slog"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/skiff-run/skiff/agent/allocation"
	"github.com/skiff-run/skiff/agent/criconfig"
	"github.com/skiff-run/skiff/agent/event"
	"github.com/skiff-run/skiff/agent/image"
	"github.com/skiff-run/skiff/agent/plan"
	"github.com/skiff-run/skiff/agent/podstate"
	"github.com/skiff-run/skiff/agent/probe"
	"github.com/skiff-run/skiff/agent/volume"
)

// Runtime runs sandboxes and containers.
type Runtime interface {
	podstate.Lister
	RunPodSandbox(ctx context.Context, config *runtimeapi.PodSandboxConfig, runtimeHandler string) (string, error)
	StopPodSandbox(ctx context.Context, podSandboxID string) error
	RemovePodSandbox(ctx context.Context, podSandboxID string) error
	CreateContainer(ctx context.Context, podSandboxID string, config *runtimeapi.ContainerConfig, sandboxConfig *runtimeapi.PodSandboxConfig) (string, error)
	StartContainer(ctx context.Context, containerID string) error
	StopContainer(ctx context.Context, containerID string, timeout int64) error
	RemoveContainer(ctx context.Context, containerID string) error
	UpdateContainerResources(ctx context.Context, containerID string, resources *runtimeapi.ContainerResources) error
}

// Cgroups makes and removes the pods' cgroups.
type Cgroups interface {
	// SetPod makes the pod's cgroup or changes its limits.
	SetPod(ctx context.Context, pod *v1.Pod, limits *runtimeapi.LinuxContainerResources) error
	// MemoryUsage of one of the pod's containers, or of the whole pod when containerID is empty, in bytes.
	MemoryUsage(pod *v1.Pod, containerID string) (uint64, error)
	RemovePod(ctx context.Context, uid types.UID) error
}

// Volumes makes and removes the pods' volumes.
type Volumes interface {
	SetUp(ctx context.Context, pod *v1.Pod, node volume.Node) (again time.Time, err error)
	TearDown(uid types.UID) error
	Remove(uid types.UID) error
	PodDir(uid types.UID) string
	Path(pod *v1.Pod, name string) (string, bool)
	Device(pod *v1.Pod, name string) (string, bool)
	SetUpImage(ctx context.Context, pod *v1.Pod, volume, image string) error
	SubPath(uid types.UID, volumePath, volume, container string, index int, sub string) (string, error)
}

// Objects follows the config maps and secrets of the pods.
type Objects interface {
	Register(pod *v1.Pod)
	Unregister(uid types.UID)
	ConfigMap(namespace, name string) (*v1.ConfigMap, error)
	Secret(namespace, name string) (*v1.Secret, error)
}

// Images makes images present.
type Images interface {
	Ensure(ctx context.Context, pod *v1.Pod, container *v1.Container, secrets []*v1.Secret, sandbox *runtimeapi.PodSandboxConfig) (image.Image, error)
	Forget(uid string)
}

// Probes runs the pods' probes.
type Probes interface {
	Sync(pod *v1.Pod, state *podstate.Pod, podIP string, before probe.Before)
	Forget(uid types.UID)
	Startup(containerID string) plan.Result
	Liveness(containerID string) plan.Result
	Readiness(containerID string) plan.Result
}

// Devices adds to containers what their devices need, and tells how those are.
type Devices interface {
	Inject(ctx context.Context, pod *v1.Pod, container string, config *runtimeapi.ContainerConfig) error
	Status(uid types.UID, container string) []v1.ResourceStatus
}

// Hooks runs lifecycle handlers.
type Hooks interface {
	Run(ctx context.Context, pod *v1.Pod, container *v1.Container, containerID, podIP string, handler *v1.LifecycleHandler) (message string, err error)
}

// Status hands statuses to the API.
type Status interface {
	// Set writes the status some time soon, unless the API says the same.
	Set(pod *v1.Pod, status *v1.PodStatus)
	// Finish writes what is pending and then removes the pod from the API.
	Finish(pod *v1.Pod, status *v1.PodStatus)
	// Observed says whether somebody else changed the status the API has.
	Observed(pod *v1.Pod) bool
	Forget(uid types.UID)
}

// Node is what pods see of their node.
type Node interface {
	HostIPs() []string
	Allocatable() v1.ResourceList
	// Services known to the cluster; it waits until they were read once.
	Services(ctx context.Context) ([]*v1.Service, error)
}

// Config holds everything workers need.
type Config struct {
	Runtime Runtime
	Cgroups Cgroups
	Volumes Volumes
	Objects Objects
	Images  Images
	Probes  Probes
	Hooks   Hooks
	// Devices may be nil: the node has none.
	Devices Devices
	Status  Status
	Node    Node
	CRI     *criconfig.Node
	Events  event.Recorder
	Logger  *slog.Logger
	Now     func() time.Time
	// Handler names the runtime handler that runs a pod, empty for the default one;
	// nil: there is no other.
	Handler func(ctx context.Context, pod *v1.Pod) (string, error)
	// ContainerLogsDir holds a link for every container's log.
	ContainerLogsDir string
	// HostsFile of the node, /etc/hosts.
	HostsFile string
	// Admit refuses pods this node cannot run; active are the pods that hold
	// resources here.
	Admit func(pod *v1.Pod, active []*v1.Pod) (reason, message string, ok bool)
	// AdmitResize decides whether a pod may have what it asks for instead of what it was given.
	AdmitResize func(asked, allocated *v1.Pod, others []*v1.Pod) (reason, message string, ok bool)
	// Allocations are what the pods of this node were given.
	Allocations *allocation.Store
}
