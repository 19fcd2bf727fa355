package podstate

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"k8s.io/apimachinery/pkg/types"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	kubelettypes "k8s.io/kubelet/pkg/types"
)

// Lister is what observing needs of the runtime.
type Lister interface {
	ListPodSandbox(ctx context.Context, filter *runtimeapi.PodSandboxFilter) ([]*runtimeapi.PodSandbox, error)
	PodSandboxStatus(ctx context.Context, podSandboxID string, verbose bool) (*runtimeapi.PodSandboxStatusResponse, error)
	ListContainers(ctx context.Context, filter *runtimeapi.ContainerFilter) ([]*runtimeapi.Container, error)
	ContainerStatus(ctx context.Context, containerID string, verbose bool) (*runtimeapi.ContainerStatusResponse, error)
}

// Observer reads one pod's state again and again. It remembers exited
// containers, which do not change any more, so that each is asked for and its
// termination message read only once. Not safe for concurrent use.
type Observer struct {
	runtime Lister
	uid     types.UID
	exited  map[string]Container
}

// NewObserver returns an observer of one pod.
func NewObserver(runtime Lister, uid types.UID) *Observer {
	return &Observer{runtime: runtime, uid: uid, exited: map[string]Container{}}
}

// Observe asks the runtime. Sandboxes and containers that vanish between two
// questions are left out.
func (o *Observer) Observe(ctx context.Context) (*Pod, error) {
	selector := map[string]string{kubelettypes.KubernetesPodUIDLabel: string(o.uid)}
	pod := &Pod{UID: o.uid}
	sandboxes, err := o.runtime.ListPodSandbox(ctx, &runtimeapi.PodSandboxFilter{LabelSelector: selector})
	if err != nil {
		return nil, fmt.Errorf("list sandboxes of pod %s: %w", o.uid, err)
	}
	for _, s := range sandboxes {
		response, err := o.runtime.PodSandboxStatus(ctx, s.Id, false)
		if isNotFound(err) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("status of sandbox %s: %w", s.Id, err)
		}
		pod.Name, pod.Namespace = s.GetMetadata().GetName(), s.GetMetadata().GetNamespace()
		pod.Sandboxes = append(pod.Sandboxes, newSandbox(response.GetStatus()))
	}
	containers, err := o.runtime.ListContainers(ctx, &runtimeapi.ContainerFilter{LabelSelector: selector})
	if err != nil {
		return nil, fmt.Errorf("list containers of pod %s: %w", o.uid, err)
	}
	seen := make(map[string]Container, len(containers))
	for _, c := range containers {
		observed, ok := o.exited[c.Id]
		if !ok {
			response, err := o.runtime.ContainerStatus(ctx, c.Id, false)
			if isNotFound(err) {
				continue
			}
			if err != nil {
				return nil, fmt.Errorf("status of container %s: %w", c.Id, err)
			}
			observed = newContainer(c.PodSandboxId, response.GetStatus())
			readTerminationMessage(&observed)
		}
		if observed.State == Exited {
			seen[c.Id] = observed
		}
		pod.Containers = append(pod.Containers, observed)
	}
	o.exited = seen
	slices.SortStableFunc(pod.Sandboxes, func(a, b Sandbox) int {
		return cmp.Or(b.CreatedAt.Compare(a.CreatedAt), cmp.Compare(b.Attempt, a.Attempt))
	})
	slices.SortStableFunc(pod.Containers, func(a, b Container) int {
		return cmp.Or(b.CreatedAt.Compare(a.CreatedAt), cmp.Compare(b.Record.Attempt, a.Record.Attempt))
	})
	return pod, nil
}

func newSandbox(s *runtimeapi.PodSandboxStatus) Sandbox {
	sandbox := Sandbox{
		ID: s.GetId(), Ready: s.GetState() == runtimeapi.PodSandboxState_SANDBOX_READY, Attempt: s.GetMetadata().GetAttempt(),
		CreatedAt:      time.Unix(0, s.GetCreatedAt()),
		HostNetwork:    s.GetLinux().GetNamespaces().GetOptions().GetNetwork() == runtimeapi.NamespaceMode_NODE,
		RuntimeHandler: s.GetRuntimeHandler(),
	}
	if ip := s.GetNetwork().GetIp(); ip != "" {
		sandbox.IPs = append(sandbox.IPs, ip)
	}
	for _, more := range s.GetNetwork().GetAdditionalIps() {
		sandbox.IPs = append(sandbox.IPs, more.GetIp())
	}
	return sandbox
}

func newContainer(sandboxID string, s *runtimeapi.ContainerStatus) Container {
	c := Container{
		ID: s.GetId(), Name: s.GetMetadata().GetName(), SandboxID: sandboxID, State: stateOf(s.GetState()),
		CreatedAt: unixNano(s.GetCreatedAt()), StartedAt: unixNano(s.GetStartedAt()), FinishedAt: unixNano(s.GetFinishedAt()),
		ExitCode: s.GetExitCode(), Reason: s.GetReason(), Message: s.GetMessage(),
		Image: s.GetImage().GetImage(), ImageRef: s.GetImageRef(), LogPath: s.GetLogPath(),
		User: s.GetUser(), StopSignal: s.GetStopSignal(), Resources: s.GetResources(),
		Record: recordFrom(s.GetAnnotations()),
	}
	if name := s.GetLabels()[kubelettypes.KubernetesContainerNameLabel]; name != "" {
		c.Name = name
	}
	if user := s.GetImage().GetUserSpecifiedImage(); user != "" {
		c.Image = user
	}
	return c
}

func stateOf(s runtimeapi.ContainerState) State {
	switch s {
	case runtimeapi.ContainerState_CONTAINER_CREATED:
		return Created
	case runtimeapi.ContainerState_CONTAINER_RUNNING:
		return Running
	case runtimeapi.ContainerState_CONTAINER_EXITED:
		return Exited
	}
	return Unknown
}

func unixNano(n int64) time.Time {
	if n == 0 {
		return time.Time{}
	}
	return time.Unix(0, n)
}

func isNotFound(err error) bool { return status.Code(err) == codes.NotFound }
