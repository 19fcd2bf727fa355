package podstate

import (
	"time"

	"k8s.io/apimachinery/pkg/types"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// State of a container.
type State int

// States of a container, as the runtime knows them.
const (
	Unknown State = iota
	Created
	Running
	Exited
)

func (s State) String() string {
	switch s {
	case Created:
		return "created"
	case Running:
		return "running"
	case Exited:
		return "exited"
	}
	return "unknown"
}

// Pod is everything the runtime holds of one pod.
type Pod struct {
	UID             types.UID
	Name, Namespace string
	// Sandboxes and Containers are sorted newest first.
	Sandboxes  []Sandbox
	Containers []Container
}

// Sandbox is one pod sandbox.
type Sandbox struct {
	ID          string
	Ready       bool
	Attempt     uint32
	CreatedAt   time.Time
	HostNetwork bool
	// IPs of the pod, the primary first.
	IPs []string
	// RuntimeHandler of the sandbox.
	RuntimeHandler string
}

// Container is one attempt at running one container of the spec.
type Container struct {
	ID, Name, SandboxID string
	State               State
	CreatedAt           time.Time
	StartedAt           time.Time
	FinishedAt          time.Time
	ExitCode            int32
	Reason, Message     string
	// Image as the spec names it, ImageRef as the runtime resolved it.
	Image, ImageRef string
	LogPath         string
	User            *runtimeapi.ContainerUser
	StopSignal      runtimeapi.Signal
	Resources       *runtimeapi.ContainerResources
	Record          Record
}

// Current returns the newest sandbox when it is the one ready sandbox, or nil.
func (p *Pod) Current() *Sandbox {
	ready := 0
	for i := range p.Sandboxes {
		if p.Sandboxes[i].Ready {
			ready++
		}
	}
	if ready != 1 || !p.Sandboxes[0].Ready {
		return nil
	}
	return &p.Sandboxes[0]
}

// Latest returns the newest container of that name, or nil.
func (p *Pod) Latest(name string) *Container {
	for i := range p.Containers {
		if p.Containers[i].Name == name {
			return &p.Containers[i]
		}
	}
	return nil
}

// LatestIn returns the newest container of that name in one sandbox, or nil.
func (p *Pod) LatestIn(sandboxID, name string) *Container {
	for i := range p.Containers {
		if c := &p.Containers[i]; c.Name == name && c.SandboxID == sandboxID {
			return c
		}
	}
	return nil
}

// ByID returns the container of that id, or nil.
func (p *Pod) ByID(id string) *Container {
	for i := range p.Containers {
		if p.Containers[i].ID == id {
			return &p.Containers[i]
		}
	}
	return nil
}

// Active reports whether any container may still run.
func (p *Pod) Active() bool {
	for i := range p.Containers {
		if s := p.Containers[i].State; s == Running || s == Unknown {
			return true
		}
	}
	return false
}

// AnySandboxReady reports whether a sandbox still holds its network.
func (p *Pod) AnySandboxReady() bool {
	for i := range p.Sandboxes {
		if p.Sandboxes[i].Ready {
			return true
		}
	}
	return false
}

// IPs of the pod, from the newest sandbox that has any.
func (p *Pod) IPs() []string {
	for i := range p.Sandboxes {
		if p.Sandboxes[i].Ready && len(p.Sandboxes[i].IPs) > 0 {
			return p.Sandboxes[i].IPs
		}
	}
	return nil
}
