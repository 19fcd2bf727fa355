package runtime

import (
	"context"
	"fmt"
	"time"

	"github.com/containerd/containerd/api/services/tasks/v1"
	tasktypes "github.com/containerd/containerd/api/types/task"
	"github.com/containerd/errdefs"
	"github.com/containerd/errdefs/pkg/errgrpc"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// exit is how a container's process ended, in containerd's words.
type exit struct {
	code    uint32
	at      time.Time
	unknown string // why code and at are made up; empty when they are known
}

// noteExit makes a container exited. Of simultaneous calls one counts: the event
// and the look after a reconnect may report the same exit.
//
// containerd keeps the exit until the task is deleted, which happens last: killed
// anywhere before, the next process finds the same exit again.
func (r *Runtime) noteExit(ctx context.Context, c *container, e exit) {
	c.op.Lock()
	defer c.op.Unlock()
	c.mu.Lock()
	if c.state == runtimeapi.ContainerState_CONTAINER_EXITED {
		c.mu.Unlock()
		return
	}
	o, oom, pump := c.outcome, c.oom, c.pump
	c.mu.Unlock()
	// The event of an OOM kill may come after that of the exit; the counter does not lag.
	if kills, err := r.cgroups.OOMKills(c.facts.CgroupsPath); err == nil && kills > 0 {
		oom = true
	}
	o.FinishedAt, o.ExitCode = e.at, int32(e.code)
	switch {
	case e.unknown != "":
		o.Reason, o.Message = reasonUnknown, e.unknown
	case oom:
		o.Reason = reasonOOMKilled
	case e.code == 0:
		o.Reason = reasonCompleted
	default:
		o.Reason = reasonError
	}
	if o.StartedAt.IsZero() {
		o.StartedAt = c.facts.CreatedAt
	}
	// The shim's pipes end with the last process that writes to them, which is
	// usually this one. Otherwise deleting the task makes the shim let go.
	deleted := make(chan struct{})
	go func() {
		defer close(deleted)
		if pump != nil {
			timer := time.NewTimer(drainPatience)
			select {
			case <-pump.Done():
			case <-timer.C:
			}
			timer.Stop()
		}
		if err := r.keepExit(ctx, c, o); err != nil {
			r.logger.Error("the exit of a container could not be recorded; containerd still knows it", "container", c.id, "error", err)
			return
		}
		r.deleteTask(ctx, c.sandbox, c.id)
	}()
	if pump != nil {
		select {
		case <-pump.Done():
		case <-deleted:
		}
	}
	if pump == nil || !isClosed(pump.Done()) {
		r.closePump(c)
	}
	c.end(o)
	r.notify(c, runtimeapi.ContainerEventType_CONTAINER_STOPPED_EVENT)
	<-deleted
	r.closePump(c)
}

// drainPatience is how long the last output is waited for before the task is
// deleted: a process that left the container's group may hold the pipe for ever.
const drainPatience = time.Second

func isClosed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

func (r *Runtime) keepExit(ctx context.Context, c *container, o outcome) error {
	c.mu.Lock()
	o.Resources = c.outcome.Resources
	c.mu.Unlock()
	return r.saveThis(ctx, c, o)
}

// check asks containerd what became of a container that was thought to run.
func (r *Runtime) check(ctx context.Context, c *container) error {
	answer, err := r.client.TaskService().Get(ctx, &tasks.GetRequest{ContainerID: c.id})
	if err = errgrpc.ToNative(err); errdefs.IsNotFound(err) {
		r.noteExit(ctx, c, lost())
		return nil
	}
	if err != nil {
		return fmt.Errorf("look at container %s: %w", c.id, err)
	}
	if p := answer.GetProcess(); p.GetStatus() == tasktypes.Status_STOPPED {
		r.noteExit(ctx, c, exitOf(p))
	}
	return nil
}

func exitOf(p *tasktypes.Process) exit {
	return exit{code: p.GetExitStatus(), at: p.GetExitedAt().AsTime()}
}

// lost is the exit of a container whose shim is gone, after a reboot for example.
// containerd 1.7 and later also forget a task that ended while containerd was down:
// they take its shim for a leaked one.
func lost() exit {
	return exit{code: exitCodeUnknown, at: time.Now(), unknown: "the container's end was not observed: the machine or containerd was restarted, or its shim was killed"}
}
