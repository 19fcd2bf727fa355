package runtime

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/containerd/containerd/api/services/tasks/v1"
	"github.com/containerd/errdefs/pkg/errgrpc"
	"github.com/containerd/typeurl/v2"
	"google.golang.org/protobuf/proto"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/skiff-run/skiff/runtime/spec"
)

// ContainerStatus returns the status of a container.
func (r *Runtime) ContainerStatus(_ context.Context, containerID string, verbose bool) (*runtimeapi.ContainerStatusResponse, error) {
	c, err := r.container(containerID)
	if err != nil {
		return nil, err
	}
	response := &runtimeapi.ContainerStatusResponse{Status: c.status()}
	if verbose {
		c.mu.Lock()
		pid := c.pid
		c.mu.Unlock()
		info, err := json.Marshal(map[string]any{"pid": pid, "sandboxID": c.sandbox.id, "cgroupsPath": c.facts.CgroupsPath})
		if err != nil {
			return nil, fmt.Errorf("status of container %s: %w", c.id, err)
		}
		response.Info = map[string]string{"info": string(info)}
	}
	return response, nil
}

// ListContainers lists the containers that match the filter, newest first.
func (r *Runtime) ListContainers(_ context.Context, filter *runtimeapi.ContainerFilter) ([]*runtimeapi.Container, error) {
	var list []*runtimeapi.Container
	for _, c := range r.allContainers() {
		state, config := c.currentState(), c.facts.config
		if !strings.HasPrefix(c.id, filter.GetId()) || !strings.HasPrefix(c.sandbox.id, filter.GetPodSandboxId()) ||
			filter.GetState() != nil && filter.GetState().GetState() != state || !selected(filter.GetLabelSelector(), config.GetLabels()) {
			continue
		}
		list = append(list, &runtimeapi.Container{
			Id: c.id, PodSandboxId: c.sandbox.id, Metadata: config.GetMetadata(), Image: config.GetImage(),
			ImageRef: c.facts.ImageRef, ImageId: c.facts.ImageID, State: state, CreatedAt: c.facts.CreatedAt.UnixNano(),
			Labels: config.GetLabels(), Annotations: config.GetAnnotations(),
		})
	}
	slices.SortFunc(list, func(a, b *runtimeapi.Container) int { return int(b.CreatedAt - a.CreatedAt) })
	return list, nil
}

// UpdateContainerResources changes the limits of a running container.
func (r *Runtime) UpdateContainerResources(ctx context.Context, containerID string, resources *runtimeapi.ContainerResources) error {
	c, err := r.container(containerID)
	if err != nil {
		return err
	}
	c.op.Lock()
	defer c.op.Unlock()
	if c.currentState() != runtimeapi.ContainerState_CONTAINER_RUNNING {
		return fmt.Errorf("update resources of container %s: %w", c.id, ErrNotRunning)
	}
	limits, err := typeurl.MarshalAnyToProto(spec.Resources(resources.GetLinux(), r.machine))
	if err != nil {
		return fmt.Errorf("update resources of container %s: %w", c.id, err)
	}
	if _, err := r.client.TaskService().Update(ctx, &tasks.UpdateTaskRequest{ContainerID: c.id, Resources: limits}); err != nil {
		return fmt.Errorf("update resources of container %s: %w", c.id, errgrpc.ToNative(err))
	}
	c.mu.Lock()
	merged, err := proto.Marshal(mergeResources(c.resources(), resources.GetLinux()))
	if err == nil {
		c.outcome.Resources = merged
	}
	c.mu.Unlock()
	if err != nil {
		return fmt.Errorf("update resources of container %s: %w", c.id, err)
	}
	return r.saveOutcome(ctx, c)
}

// mergeResources lays what was changed over what was in force: a zero field means no change.
func mergeResources(old, changed *runtimeapi.LinuxContainerResources) *runtimeapi.LinuxContainerResources {
	merged := &runtimeapi.LinuxContainerResources{}
	if old != nil {
		proto.Merge(merged, old)
	}
	if changed != nil {
		if len(changed.GetHugepageLimits()) > 0 {
			merged.HugepageLimits = nil
		}
		proto.Merge(merged, changed)
	}
	return merged
}

// ReopenContainerLog opens the container's log file anew after someone moved it away. Rotation by size happens without it.
func (r *Runtime) ReopenContainerLog(_ context.Context, containerID string) error {
	c, err := r.container(containerID)
	if err != nil {
		return err
	}
	c.mu.Lock()
	pump := c.pump
	c.mu.Unlock()
	if pump == nil {
		return fmt.Errorf("reopen log of container %s: %w", c.id, ErrNotRunning)
	}
	if err := pump.Reopen(); err != nil {
		return fmt.Errorf("reopen log of container %s: %w", c.id, err)
	}
	return nil
}
