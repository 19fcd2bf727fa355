package runtime

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/containerd/containerd/api/services/tasks/v1"
	"github.com/containerd/containerd/api/types"
	"github.com/containerd/containerd/v2/core/containers"
	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/errdefs"
	"github.com/containerd/errdefs/pkg/errgrpc"
	"github.com/containerd/typeurl/v2"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/skiff-run/skiff/runtime/logs"
)

// StartContainer starts a created container. When it cannot be started, the
// container is exited with the reason StartError, and the error says why.
func (r *Runtime) StartContainer(ctx context.Context, containerID string) error {
	c, err := r.container(containerID)
	if err != nil {
		return err
	}
	c.op.Lock()
	defer c.op.Unlock()
	if state := c.currentState(); state != runtimeapi.ContainerState_CONTAINER_CREATED {
		return fmt.Errorf("start container %s: it is %s", c.id, state)
	}
	ctx, cancel := detach(ctx)
	defer cancel()
	if err := r.start(ctx, c); err != nil {
		r.deleteTask(ctx, c.sandbox, c.id)
		r.closePump(c)
		now := time.Now()
		c.end(outcome{FinishedAt: now, StartedAt: now, ExitCode: exitCodeStartError, Reason: reasonStartError, Message: err.Error()})
		if serr := r.saveOutcome(ctx, c); serr != nil {
			r.logger.Warn("a failed start could not be recorded", "container", c.id, "error", serr)
		}
		return err
	}
	r.notify(c, runtimeapi.ContainerEventType_CONTAINER_STARTED_EVENT)
	// The time of the start is the only thing to keep, and nobody has to wait for it.
	r.background(func(ctx context.Context) {
		c.op.Lock()
		defer c.op.Unlock()
		if c.currentState() != runtimeapi.ContainerState_CONTAINER_RUNNING {
			return // its exit has been recorded, with this time
		}
		if err := r.saveOutcome(ctx, c); err != nil {
			r.logger.Warn("the start of a container could not be recorded", "container", c.id, "error", err)
		}
	})
	return nil
}

func (r *Runtime) start(ctx context.Context, c *container) error {
	c.mu.Lock()
	mounts := c.mounts
	c.mu.Unlock()
	if mounts == nil {
		var err error
		if mounts, err = r.client.SnapshotService(r.options.Snapshotter).Mounts(ctx, c.id); err != nil {
			return fmt.Errorf("root file system of container %s: %w", c.id, err)
		}
	}
	pump, err := r.openPump(c)
	if err != nil {
		return err
	}
	// Once the task is made it has what was mapped for it.
	defer r.unmap(c.sandbox, c.id)
	if mounts, err = r.mapRoot(c.sandbox, c.id, mounts); err != nil {
		return err
	}
	request := r.taskRequest(c, mounts)
	if err := r.createTask(ctx, c.sandbox, request); err != nil {
		return fmt.Errorf("failed to create containerd task: %w", err)
	}
	pump.Armed()
	// Taken before the call: a short program has ended when it returns.
	started := time.Now()
	answer, err := r.client.TaskService().Start(ctx, &tasks.StartRequest{ContainerID: c.id})
	if err != nil {
		return fmt.Errorf("failed to start containerd task: %w", errgrpc.ToNative(err))
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.state, c.pid, c.outcome.StartedAt, c.mounts = runtimeapi.ContainerState_CONTAINER_RUNNING, answer.Pid, started, nil
	return nil
}

// createTask creates a task. The shim of the pod's last task may still be about to
// end when its task is gone, and containerd's attempt to use it then fails without a
// trace: that is tried again.
func (r *Runtime) createTask(ctx context.Context, s *sandbox, request *tasks.CreateTaskRequest) error {
	s.shim.RLock()
	defer s.shim.RUnlock()
	wait := 5 * time.Millisecond
	for {
		_, err := r.client.TaskService().Create(ctx, request)
		if err == nil || wait > time.Second || !shimEnded(err) {
			return errgrpc.ToNative(err)
		}
		r.logger.Debug("the pod's shim was about to end; creating the task again", "container", request.GetContainerID(), "error", err)
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return errgrpc.ToNative(err)
		}
		wait *= 2
	}
}

// shimEnded recognises, by its words because it has no code, the failure to reach a shim that has just ended.
func shimEnded(err error) bool {
	message := err.Error()
	if strings.Contains(message, "ttrpc: closed") {
		return true
	}
	return strings.Contains(message, "shim") && strings.Contains(message, "dial unix") &&
		(strings.Contains(message, "no such file or directory") || strings.Contains(message, "connection refused"))
}

func (r *Runtime) taskRequest(c *container, mounts []mount.Mount) *tasks.CreateTaskRequest {
	config := c.facts.config
	stdin, stdout, stderr := r.pipePaths(c)
	request := &tasks.CreateTaskRequest{ContainerID: c.id, Terminal: config.GetTty(), Stdin: stdin, Stdout: stdout, Stderr: stderr}
	for _, m := range mounts {
		request.Rootfs = append(request.Rootfs, &types.Mount{Type: m.Type, Source: m.Source, Target: m.Target, Options: m.Options})
	}
	return request
}

// pipePaths are the named pipes to the shim. A terminal has one output.
func (r *Runtime) pipePaths(c *container) (stdin, stdout, stderr string) {
	dir := r.pipes(c.id)
	if c.facts.config.GetStdin() {
		stdin = filepath.Join(dir, "stdin")
	}
	stdout = filepath.Join(dir, logs.Stdout)
	if !c.facts.config.GetTty() {
		stderr = filepath.Join(dir, logs.Stderr)
	}
	return stdin, stdout, stderr
}

// openPump makes the pipes, or finds them again, and begins to write the log.
func (r *Runtime) openPump(c *container) (*logs.Pump, error) {
	if err := os.MkdirAll(r.pipes(c.id), 0o700); err != nil {
		return nil, fmt.Errorf("pipes of container %s: %w", c.id, err)
	}
	stdin, stdout, stderr := r.pipePaths(c)
	if stdin != "" {
		if err := makePipe(stdin); err != nil {
			return nil, fmt.Errorf("pipes of container %s: %w", c.id, err)
		}
	}
	pump, err := r.pumps.Open(logs.Config{
		Stdout: stdout, Stderr: stderr, Path: c.facts.LogPath,
		Limits: logs.Limits{MaxBytes: r.options.LogMaxBytes, MaxFiles: r.options.LogMaxFiles}, Logger: r.logger,
	})
	if err != nil {
		return nil, fmt.Errorf("output of container %s: %w", c.id, err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.pump = pump
	return pump, nil
}

// closePump writes what is left of the output and removes the pipes.
func (r *Runtime) closePump(c *container) {
	c.mu.Lock()
	pump := c.pump
	c.pump = nil
	c.stdin.close()
	c.mu.Unlock()
	if pump != nil {
		pump.Close()
	}
	if err := os.RemoveAll(r.pipes(c.id)); err != nil {
		r.logger.Warn("pipes of a container could not be removed", "container", c.id, "error", err)
	}
}

// saveOutcome keeps what became of a container.
func (r *Runtime) saveOutcome(ctx context.Context, c *container) error {
	c.mu.Lock()
	o := c.outcome
	c.mu.Unlock()
	return r.saveThis(ctx, c, o)
}

func (r *Runtime) saveThis(ctx context.Context, c *container, o outcome) error {
	kept, err := extension(statusExtension, o)
	if err != nil {
		return err
	}
	record := containers.Container{ID: c.id, Extensions: map[string]typeurl.Any{statusExtension: kept}}
	if _, err := r.client.ContainerService().Update(ctx, record, "extensions."+statusExtension); err != nil && !errdefs.IsNotFound(err) {
		return fmt.Errorf("record of container %s: %w", c.id, err)
	}
	return nil
}

// closeGrace is how long Close waits for what is under way in the background.
const closeGrace = 5 * time.Second

// background runs f in a goroutine that Close waits for. After Close it does nothing:
// what was to be done is found again by the next process.
func (r *Runtime) background(f func(ctx context.Context)) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	if r.life.Err() != nil {
		return
	}
	r.running.Go(func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(r.life), patience)
		defer cancel()
		stop := context.AfterFunc(r.life, func() { time.AfterFunc(closeGrace, cancel) })
		defer stop()
		f(ctx)
	})
}

// deleteTask takes a task away, killing what it runs. One that is not there is fine.
// s is nil when the pod sandbox is not known any more.
func (r *Runtime) deleteTask(ctx context.Context, s *sandbox, id string) {
	if s != nil {
		s.shim.Lock()
		defer s.shim.Unlock()
	}
	_, err := r.client.TaskService().Delete(ctx, &tasks.DeleteTaskRequest{ContainerID: id})
	if err = errgrpc.ToNative(err); err == nil || errdefs.IsNotFound(err) {
		return
	}
	if err := r.killTask(ctx, id, ""); err != nil && !gone(err) {
		r.logger.Warn("task could not be killed", "container", id, "error", err)
	}
	waited, err := r.client.TaskService().Wait(ctx, &tasks.WaitRequest{ContainerID: id})
	if err == nil {
		_, err = r.client.TaskService().Delete(ctx, &tasks.DeleteTaskRequest{ContainerID: id})
	}
	if err = errgrpc.ToNative(err); err != nil && !gone(err) {
		r.logger.Warn("task could not be deleted", "container", id, "exit", waited.GetExitStatus(), "error", err)
	}
}

// gone says that there is nothing left to act on.
func gone(err error) bool {
	return errdefs.IsNotFound(err) || errdefs.IsFailedPrecondition(err) || errors.Is(err, os.ErrProcessDone)
}
