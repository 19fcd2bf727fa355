package runtime

import (
	"encoding/json"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/containerd/containerd/v2/core/containers"
	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/typeurl/v2"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/skiff-run/skiff/runtime/cgroup"
	"github.com/skiff-run/skiff/runtime/logs"
	"github.com/skiff-run/skiff/runtime/spec"
)

// Labels of our containers in containerd, for us and for people who use ctr.
const (
	kindLabel    = "skiff.dev/kind"
	sandboxLabel = "skiff.dev/sandbox"
	podLabel     = "io.kubernetes.pod.name"
	nsLabel      = "io.kubernetes.pod.namespace"
	nameLabel    = "io.kubernetes.container.name"

	kindContainer = "container"
	kindInit      = "init"
)

// Extensions of our containers in containerd: what labels are too short for.
const (
	factsExtension  = "skiff.dev/container"
	statusExtension = "skiff.dev/status"
)

// Reasons why a container has ended, as Kubernetes shows them.
const (
	reasonCompleted  = "Completed"
	reasonError      = "Error"
	reasonOOMKilled  = "OOMKilled"
	reasonStartError = "StartError"
	reasonUnknown    = "Unknown"
)

const (
	exitCodeStartError = 128
	exitCodeUnknown    = 255
)

// container is one container. What it is never changes and stands in facts; what
// became of it stands in outcome.
type container struct {
	id      string
	sandbox *sandbox
	facts   facts

	op sync.Mutex // held while the container is started, its exit is noted, or it is removed

	// suspect says that a killed process may have been creating its task: a shim may be left.
	suspect atomic.Bool

	mu      sync.Mutex // guards what follows
	state   runtimeapi.ContainerState
	outcome outcome
	pid     uint32
	oom     bool // the kernel has killed a process of it
	pump    *logs.Pump
	mounts  []mount.Mount // of its root file system; known to the process that made it
	exited  chan struct{} // closed when state is CONTAINER_EXITED
	layer   Layer
	cpu     cgroup.CPURate
	stdin   stdin
}

// facts is what is kept about a container, in an extension of its record in containerd.
type facts struct {
	// Config is the marshalled ContainerConfig without what only the start needed.
	Config      []byte    `json:"config"`
	CreatedAt   time.Time `json:"createdAt"`
	ImageID     string    `json:"imageID"`
	ImageRef    string    `json:"imageRef"`
	LogPath     string    `json:"logPath,omitempty"`
	CgroupsPath string    `json:"cgroupsPath"`
	StopSignal  string    `json:"stopSignal,omitempty"`
	User        spec.User `json:"user"`

	config *runtimeapi.ContainerConfig
}

// outcome is what became of a container; it is kept in an extension of its own.
type outcome struct {
	StartedAt  time.Time `json:"startedAt,omitzero"`
	FinishedAt time.Time `json:"finishedAt,omitzero"`
	ExitCode   int32     `json:"exitCode"`
	Reason     string    `json:"reason,omitempty"`
	Message    string    `json:"message,omitempty"`
	// Resources is a marshalled LinuxContainerResources when they were changed after the start.
	Resources []byte `json:"resources,omitempty"`
}

// trim drops what is not needed after the start: environments are large, and
// arguments are in the spec.
func trim(config *runtimeapi.ContainerConfig) *runtimeapi.ContainerConfig {
	kept := proto.Clone(config).(*runtimeapi.ContainerConfig)
	kept.Envs, kept.Command, kept.Args, kept.Devices = nil, nil, nil, nil
	return kept
}

func extension(kind string, v any) (typeurl.Any, error) {
	value, err := json.Marshal(v)
	if err != nil {
		return nil, fmt.Errorf("encode %s: %w", kind, err)
	}
	return &anypb.Any{TypeUrl: kind, Value: value}, nil
}

// fromRecord finds a container again.
func fromRecord(record containers.Container, s *sandbox) (*container, error) {
	c := &container{id: record.ID, sandbox: s, exited: make(chan struct{}), state: runtimeapi.ContainerState_CONTAINER_CREATED}
	any, ok := record.Extensions[factsExtension]
	if !ok {
		return nil, fmt.Errorf("container %s has no extension %s", record.ID, factsExtension)
	}
	if err := json.Unmarshal(any.GetValue(), &c.facts); err != nil {
		return nil, fmt.Errorf("extension %s of container %s: %w", factsExtension, record.ID, err)
	}
	c.facts.config = &runtimeapi.ContainerConfig{}
	if err := proto.Unmarshal(c.facts.Config, c.facts.config); err != nil {
		return nil, fmt.Errorf("configuration of container %s: %w", record.ID, err)
	}
	if any, ok := record.Extensions[statusExtension]; ok {
		if err := json.Unmarshal(any.GetValue(), &c.outcome); err != nil {
			return nil, fmt.Errorf("extension %s of container %s: %w", statusExtension, record.ID, err)
		}
		if !c.outcome.FinishedAt.IsZero() {
			c.state = runtimeapi.ContainerState_CONTAINER_EXITED
			close(c.exited)
		}
	}
	return c, nil
}

// status is the container in CRI's words.
func (c *container) status() *runtimeapi.ContainerStatus {
	config := c.facts.config
	c.mu.Lock()
	defer c.mu.Unlock()
	s := &runtimeapi.ContainerStatus{
		Id: c.id, Metadata: config.GetMetadata(), State: c.state, CreatedAt: c.facts.CreatedAt.UnixNano(),
		Image: config.GetImage(), ImageRef: c.facts.ImageRef, ImageId: c.facts.ImageID,
		Labels: config.GetLabels(), Annotations: config.GetAnnotations(), Mounts: config.GetMounts(), LogPath: c.facts.LogPath,
		Resources:  &runtimeapi.ContainerResources{Linux: c.resources()},
		StopSignal: config.GetStopSignal(),
	}
	user := &runtimeapi.LinuxContainerUser{Uid: int64(c.facts.User.UID), Gid: int64(c.facts.User.GID)}
	for _, gid := range c.facts.User.Groups {
		user.SupplementalGroups = append(user.SupplementalGroups, int64(gid))
	}
	s.User = &runtimeapi.ContainerUser{Linux: user}
	o := c.outcome
	if c.state != runtimeapi.ContainerState_CONTAINER_CREATED && !o.StartedAt.IsZero() {
		s.StartedAt = o.StartedAt.UnixNano()
	}
	if c.state == runtimeapi.ContainerState_CONTAINER_EXITED {
		s.FinishedAt, s.ExitCode, s.Reason, s.Message = o.FinishedAt.UnixNano(), o.ExitCode, o.Reason, o.Message
	}
	return s
}

// resources are the limits in force; mu must be held.
func (c *container) resources() *runtimeapi.LinuxContainerResources {
	if len(c.outcome.Resources) > 0 {
		changed := &runtimeapi.LinuxContainerResources{}
		if proto.Unmarshal(c.outcome.Resources, changed) == nil {
			return changed
		}
	}
	return c.facts.config.GetLinux().GetResources()
}

func (c *container) currentState() runtimeapi.ContainerState {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.state
}

// end makes the container exited. It must be called once.
func (c *container) end(o outcome) {
	c.mu.Lock()
	defer c.mu.Unlock()
	o.Resources = c.outcome.Resources
	c.outcome, c.state, c.pid, c.mounts = o, runtimeapi.ContainerState_CONTAINER_EXITED, 0, nil
	close(c.exited)
}

func (r *Runtime) container(id string) (*container, error) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	if c := r.containers[id]; c != nil {
		return c, nil
	}
	return nil, fmt.Errorf("container %q: %w", id, ErrNotFound)
}

func (r *Runtime) allContainers() []*container {
	r.mu.RLock()
	defer r.mu.RUnlock()
	list := make([]*container, 0, len(r.containers))
	for _, c := range r.containers {
		list = append(list, c)
	}
	return list
}

func (r *Runtime) containersOf(sandboxID string) []*container {
	r.mu.RLock()
	defer r.mu.RUnlock()
	var list []*container
	for _, c := range r.containers {
		if c.sandbox.id == sandboxID {
			list = append(list, c)
		}
	}
	return list
}
