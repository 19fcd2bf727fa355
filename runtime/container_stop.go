package runtime

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/containerd/containerd/api/services/tasks/v1"
	"github.com/containerd/errdefs"
	"github.com/containerd/errdefs/pkg/errgrpc"
	"github.com/moby/sys/signal"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// killAgain is how long the end of a killed container is waited for before
// containerd is asked what became of it: its event may have been lost.
const killAgain = 5 * time.Second

// StopContainer sends the stop signal, and SIGKILL after timeout seconds. It returns when the container has exited.
func (r *Runtime) StopContainer(ctx context.Context, containerID string, timeout int64) error {
	c, err := r.container(containerID)
	if errors.Is(err, ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	// A start that is under way is waited for: what it starts must not outlive us.
	c.op.Lock()
	state := c.currentState()
	c.op.Unlock()
	if state != runtimeapi.ContainerState_CONTAINER_RUNNING {
		return nil
	}
	if timeout > 0 {
		stopped, err := r.stopGently(ctx, c, time.Duration(timeout)*time.Second)
		if stopped || err != nil {
			return err
		}
	}
	for {
		if err := r.killTask(ctx, c.id, ""); err != nil && !gone(err) {
			return fmt.Errorf("kill container %s: %w", c.id, err)
		}
		timer := time.NewTimer(killAgain)
		select {
		case <-c.exited:
			timer.Stop()
			return nil
		case <-ctx.Done():
			timer.Stop()
			return fmt.Errorf("container %s does not end: %w", c.id, ctx.Err())
		case <-timer.C:
			if err := r.check(ctx, c); err != nil {
				return err
			}
		}
	}
}

// stopGently sends the stop signal and waits for the end of the container or of the grace period.
func (r *Runtime) stopGently(ctx context.Context, c *container, grace time.Duration) (stopped bool, err error) {
	sig, err := c.stopSignal()
	if err != nil {
		r.logger.Warn("the stop signal is not known: SIGTERM is sent", "container", c.id, "error", err)
	}
	_, err = r.client.TaskService().Kill(ctx, &tasks.KillRequest{ContainerID: c.id, Signal: uint32(sig)})
	if err = errgrpc.ToNative(err); err != nil && !gone(err) {
		return false, fmt.Errorf("stop container %s: %w", c.id, err)
	}
	timer := time.NewTimer(grace)
	defer timer.Stop()
	select {
	case <-c.exited:
		return true, nil
	case <-timer.C:
		return false, nil
	case <-ctx.Done():
		return false, fmt.Errorf("stop container %s: %w", c.id, ctx.Err())
	}
}

// killTask sends SIGKILL to every process of a container, or to that of an exec.
func (r *Runtime) killTask(ctx context.Context, id, execID string) error {
	_, err := r.client.TaskService().Kill(ctx, &tasks.KillRequest{ContainerID: id, ExecID: execID, Signal: uint32(syscall.SIGKILL), All: execID == ""})
	return errgrpc.ToNative(err)
}

// stopSignal is the pod's choice, or the image's, or SIGTERM.
func (c *container) stopSignal() (syscall.Signal, error) {
	name := c.facts.StopSignal
	if s := c.facts.config.GetStopSignal(); s != runtimeapi.Signal_SIGNAL_RUNTIME_DEFAULT {
		name = strings.TrimPrefix(s.String(), "SIGNAL_")
		name = strings.NewReplacer("PLUS", "+", "MINUS", "-").Replace(name)
	}
	if name == "" {
		return syscall.SIGTERM, nil
	}
	if number, err := strconv.Atoi(name); err == nil {
		return syscall.Signal(number), nil
	}
	sig, err := signal.ParseSignal(name)
	if err != nil {
		return syscall.SIGTERM, err
	}
	return sig, nil
}

// RemoveContainer removes a container, killing it when it runs. It may be repeated. The log files stay.
func (r *Runtime) RemoveContainer(ctx context.Context, containerID string) error {
	c, err := r.container(containerID)
	if errors.Is(err, ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	if err := r.StopContainer(ctx, c.id, 0); err != nil {
		return err
	}
	c.op.Lock()
	defer c.op.Unlock()
	ctx, cancel := detach(ctx)
	defer cancel()
	if err := r.removeRecord(ctx, c.id); err != nil {
		return err
	}
	if c.suspect.Load() {
		if err := r.sweep(ctx); err != nil {
			return err
		}
	}
	r.closePump(c)
	r.unmap(c.sandbox, c.id)
	r.mu.Lock()
	_, known := r.containers[c.id]
	delete(r.containers, c.id)
	r.mu.Unlock()
	if known {
		r.notify(c, runtimeapi.ContainerEventType_CONTAINER_DELETED_EVENT)
	}
	return nil
}

// removeRecord removes a container and its layer from containerd. It may be repeated.
func (r *Runtime) removeRecord(ctx context.Context, id string) error {
	if err := r.client.ContainerService().Delete(ctx, id); err != nil && !errdefs.IsNotFound(err) {
		return fmt.Errorf("remove container %s: %w", id, err)
	}
	// Killed in between, containerd's collector removes a layer that no record names.
	if err := r.client.SnapshotService(r.options.Snapshotter).Remove(ctx, id); err != nil && !errdefs.IsNotFound(err) {
		return fmt.Errorf("remove root file system of container %s: %w", id, err)
	}
	return nil
}

func makePipe(path string) error {
	if err := syscall.Mkfifo(path, 0o600); err != nil && !errors.Is(err, os.ErrExist) {
		return fmt.Errorf("make pipe %s: %w", path, err)
	}
	return nil
}
