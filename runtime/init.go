package runtime

import (
	"context"
	"fmt"
	goruntime "runtime"

	"github.com/containerd/containerd/api/services/tasks/v1"
	"github.com/containerd/containerd/v2/core/containers"
	"github.com/containerd/errdefs"
	"github.com/containerd/errdefs/pkg/errgrpc"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/skiff-run/skiff/runtime/namespace"
	"github.com/skiff-run/skiff/runtime/podinit"
	"github.com/skiff-run/skiff/runtime/spec"
)

// startInit starts the process whose PID namespace the pod's containers share. It
// is a container of its own, without an image, so that it is confined like one and
// outlives us.
func (r *Runtime) startInit(ctx context.Context, s *sandbox) error {
	if err := podinit.Install(r.initRoot(s), goruntime.GOARCH); err != nil {
		return err
	}
	id := s.initID()
	in := spec.Input{
		ID: id, SandboxID: s.id, Pod: s.config, Container: &runtimeapi.ContainerConfig{}, Machine: r.machine,
		Net: r.pin(s, namespace.Net), IPC: r.pin(s, namespace.IPC), UTS: r.pin(s, namespace.UTS), UserNS: r.pin(s, namespace.User), Users: s.users,
		CgroupsPath: r.cgroups.ContainerPath(s.config.GetLinux().GetCgroupParent(), id),
	}
	generated, err := spec.Infra(ctx, in, r.initRoot(s), "/"+podinit.Program)
	if err != nil {
		return err
	}
	any, err := marshalSpec(generated)
	if err != nil {
		return err
	}
	runtime, err := r.runtimeInfo(s.handler)
	if err != nil {
		return err
	}
	record := containers.Container{
		ID: id, Labels: map[string]string{kindLabel: kindInit, sandboxLabel: s.id}, Runtime: runtime, Spec: any,
	}
	if _, err := r.client.ContainerService().Create(ctx, record); err != nil {
		return fmt.Errorf("init process of pod sandbox %s: %w", s.id, err)
	}
	if err := r.createTask(ctx, s, &tasks.CreateTaskRequest{ContainerID: id}); err != nil {
		return fmt.Errorf("create init process of pod sandbox %s: %w", s.id, err)
	}
	answer, err := r.client.TaskService().Start(ctx, &tasks.StartRequest{ContainerID: id})
	if err != nil {
		return fmt.Errorf("start init process of pod sandbox %s: %w", s.id, errgrpc.ToNative(err))
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.initPID = answer.Pid
	return nil
}

// removeInit ends the init process, and with it everything in its PID namespace. It may be repeated.
func (r *Runtime) removeInit(ctx context.Context, s *sandbox) error {
	id := s.initID()
	r.deleteTask(ctx, s, id)
	if err := r.client.ContainerService().Delete(ctx, id); err != nil && !errdefs.IsNotFound(err) {
		return fmt.Errorf("remove init process %s: %w", id, err)
	}
	return nil
}
