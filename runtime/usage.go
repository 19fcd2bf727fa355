package runtime

import (
	"context"
	"slices"
	"strings"
	"time"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/skiff-run/skiff/runtime/cgroup"
	"github.com/skiff-run/skiff/runtime/images"
	"github.com/skiff-run/skiff/runtime/network"
)

// PodUsage is what a pod that runs uses.
type PodUsage struct {
	Name, Namespace, UID string
	// Cgroup is the path of the pod's cgroup below a controller's mount, empty when it has none of its own.
	Cgroup    string
	StartedAt time.Time
	Usage
	// Traffic of the pod's link; nil for a pod on the node's network.
	Traffic    *network.Traffic
	Containers []ContainerUsage
}

// ContainerUsage is what a running container uses.
type ContainerUsage struct {
	ID, Name string
	// Image is the image's name as containerd spells it.
	Image string
	// Cgroup is the path of its cgroup below a controller's mount.
	Cgroup    string
	StartedAt time.Time
	LogPath   string
	Usage
	Layer Layer
}

// Usage is what a cgroup uses.
type Usage struct {
	At time.Time
	cgroup.Detail
	// NanoCores is the computing time used in a second, in nanoseconds, over the
	// last Window. A Window of 0 says that it was not looked at long enough.
	NanoCores uint64
	Window    time.Duration
}

// Layer is what a container has written to its own layer, as measured At; zero when it was not.
type Layer struct {
	At            time.Time
	Bytes, Inodes uint64
}

// layerAge is how old the measure of the writable layer may be: measuring walks its files.
const layerAge = 30 * time.Second

// Usage returns what every running pod uses, ordered by namespace and name. What
// ends meanwhile is left out. With layers it measures the writable layers too.
func (r *Runtime) Usage(ctx context.Context, layers bool) []PodUsage {
	var list []PodUsage
	for _, s := range r.allSandboxes() {
		if s.state() == runtimeapi.PodSandboxState_SANDBOX_READY {
			list = append(list, r.podUsage(ctx, s, layers))
		}
	}
	slices.SortFunc(list, func(a, b PodUsage) int {
		return strings.Compare(a.Namespace+"/"+a.Name+"/"+a.UID, b.Namespace+"/"+b.Name+"/"+b.UID)
	})
	return list
}

func (r *Runtime) podUsage(ctx context.Context, s *sandbox, layers bool) PodUsage {
	meta := s.config.GetMetadata()
	pod := PodUsage{Name: meta.GetName(), Namespace: meta.GetNamespace(), UID: meta.GetUid(), StartedAt: s.createdAt}
	if parent := s.config.GetLinux().GetCgroupParent(); parent != "" {
		if detail, err := r.cgroups.Detail(parent); err == nil {
			pod.Cgroup = r.cgroups.Path(parent)
			pod.Usage = measured(&s.cpu, detail, s.createdAt)
		}
	}
	if !s.hostNetwork() {
		if t, err := r.network.PodTraffic(s.id); err == nil {
			pod.Traffic = &t
		}
	}
	for _, c := range r.containersOf(s.id) {
		if c.currentState() == runtimeapi.ContainerState_CONTAINER_RUNNING {
			if used, ok := r.containerUsage(ctx, c, layers); ok {
				pod.Containers = append(pod.Containers, used)
			}
		}
	}
	slices.SortFunc(pod.Containers, func(a, b ContainerUsage) int { return strings.Compare(a.Name, b.Name) })
	return pod
}

func (r *Runtime) containerUsage(ctx context.Context, c *container, layers bool) (ContainerUsage, bool) {
	detail, err := r.cgroups.ContainerDetail(c.facts.CgroupsPath)
	if err != nil {
		return ContainerUsage{}, false
	}
	c.mu.Lock()
	started, layer := c.outcome.StartedAt, c.layer
	c.mu.Unlock()
	if layers && time.Since(layer.At) > layerAge {
		// A layer that cannot be measured now keeps its last figure.
		if used, err := r.client.SnapshotService(r.options.Snapshotter).Usage(ctx, c.id); err == nil {
			layer = Layer{At: time.Now(), Bytes: uint64(used.Size), Inodes: uint64(used.Inodes)}
			c.mu.Lock()
			c.layer = layer
			c.mu.Unlock()
		}
	}
	return ContainerUsage{
		ID: c.id, Name: c.facts.config.GetMetadata().GetName(), Image: imageName(c.facts.config.GetImage()), Cgroup: r.cgroups.FilePath(c.facts.CgroupsPath),
		StartedAt: started, LogPath: c.facts.LogPath, Usage: measured(&c.cpu, detail, started), Layer: layer,
	}, true
}

func measured(rate *cgroup.CPURate, detail cgroup.Detail, started time.Time) Usage {
	u := Usage{At: time.Now(), Detail: detail}
	u.NanoCores, u.Window = rate.Since(u.At, detail.CPUNanoseconds, started)
	return u
}

// imageName is the name a user gave an image, in full.
func imageName(image *runtimeapi.ImageSpec) string {
	for _, name := range []string{image.GetUserSpecifiedImage(), image.GetImage()} {
		if full, err := images.Normalize(name); name != "" && err == nil {
			return full
		}
	}
	return image.GetImage()
}

// SampleCPU notes how long every running pod and container has computed, so that
// Usage knows rates. It is called every few seconds by one caller.
func (r *Runtime) SampleCPU(now time.Time) {
	for _, s := range r.allSandboxes() {
		if parent := s.config.GetLinux().GetCgroupParent(); parent != "" && s.state() == runtimeapi.PodSandboxState_SANDBOX_READY {
			if used, err := r.cgroups.CPUTime(r.cgroups.Path(parent)); err == nil {
				s.cpu.Note(now, used)
			}
		}
	}
	for _, c := range r.allContainers() {
		if c.currentState() == runtimeapi.ContainerState_CONTAINER_RUNNING {
			if used, err := r.cgroups.CPUTime(r.cgroups.FilePath(c.facts.CgroupsPath)); err == nil {
				c.cpu.Note(now, used)
			}
		}
	}
}
