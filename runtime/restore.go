package runtime

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/containerd/containerd/api/services/tasks/v1"
	tasktypes "github.com/containerd/containerd/api/types/task"
	"github.com/containerd/errdefs/pkg/errgrpc"
	"golang.org/x/sys/unix"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/skiff-run/skiff/runtime/network"
)

// restore finds what earlier processes left: sandboxes by their files, containers
// by their records in containerd. What belongs to neither is removed.
func (r *Runtime) restore(ctx context.Context) error {
	if err := r.readRecords(); err != nil {
		return err
	}
	records, err := r.client.ContainerService().List(ctx, `labels."`+sandboxLabel+`"`)
	if err != nil {
		return fmt.Errorf("list containers: %w", err)
	}
	var orphans []string
	for _, record := range records {
		s := r.sandboxes[record.Labels[sandboxLabel]]
		if record.Labels[kindLabel] == kindInit {
			if s == nil {
				orphans = append(orphans, record.ID)
			}
			continue
		}
		var c *container
		if s != nil {
			if c, err = fromRecord(record, s); err != nil {
				r.logger.Error("container's record is damaged; it is removed", "container", record.ID, "error", err)
			}
		}
		if c == nil {
			orphans = append(orphans, record.ID)
			continue
		}
		r.containers[c.id] = c
	}
	errs := each(orphans, func(id string) error {
		r.logger.Info("removing a container without a pod sandbox", "container", id)
		r.deleteTask(ctx, nil, id)
		return r.removeRecord(ctx, id)
	})
	return errors.Join(append(errs, r.removeStrayRuns())...)
}

// removeStrayRuns takes down the namespaces of sandboxes whose record was never written, and pipes of containers that are gone.
func (r *Runtime) removeStrayRuns() error {
	var errs []error
	runs, err := os.ReadDir(r.sandboxRuns())
	errs = append(errs, err)
	for _, e := range runs {
		if r.sandboxes[e.Name()] == nil {
			errs = append(errs, r.removeRun(e.Name()))
		}
	}
	pipes, err := os.ReadDir(r.pipes(""))
	errs = append(errs, err)
	for _, e := range pipes {
		if c := r.containers[e.Name()]; c == nil || c.state == runtimeapi.ContainerState_CONTAINER_EXITED {
			errs = append(errs, os.RemoveAll(r.pipes(e.Name())))
		}
	}
	return errors.Join(errs...)
}

// resync compares every container with containerd's tasks. It runs when events are
// followed anew: at the start, and whenever some may have been lost.
func (r *Runtime) resync(ctx context.Context) error {
	if err := r.images.Load(ctx); err != nil {
		return err
	}
	answer, err := r.client.TaskService().List(ctx, &tasks.ListTasksRequest{})
	if err != nil {
		return fmt.Errorf("list tasks: %w", errgrpc.ToNative(err))
	}
	processes := map[string]*tasktypes.Process{}
	for _, p := range answer.GetTasks() {
		processes[p.GetID()] = p
	}
	for _, s := range r.allSandboxes() {
		if s.sharedPID() {
			s.mu.Lock()
			s.initPID = 0
			if p := processes[s.initID()]; p != nil && p.GetStatus() == tasktypes.Status_RUNNING {
				s.initPID = p.GetPid()
			}
			s.ready = s.ready && s.initPID != 0
			s.mu.Unlock()
		}
	}
	errs := each(r.allContainers(), func(c *container) error { return r.adopt(ctx, c, processes[c.id]) })
	r.background(r.sweepTwice)
	return errors.Join(append(errs, r.reconcileNetwork(ctx))...)
}

// adopt makes one container match its task, which is nil when there is none.
func (r *Runtime) adopt(ctx context.Context, c *container, p *tasktypes.Process) error {
	if !c.op.TryLock() {
		return nil // being started or noted as exited right now; that finds out by itself
	}
	c.mu.Lock()
	state, started, pump := c.state, c.outcome.StartedAt, c.pump
	c.mu.Unlock()
	c.op.Unlock()
	switch {
	case state == runtimeapi.ContainerState_CONTAINER_EXITED:
		if p != nil {
			// Killed between the note of the exit and the end of the task.
			r.background(func(ctx context.Context) { r.deleteTask(ctx, c.sandbox, c.id) })
		}
	case p == nil || p.GetStatus() == tasktypes.Status_UNKNOWN:
		c.suspect.Store(state == runtimeapi.ContainerState_CONTAINER_CREATED)
		if state == runtimeapi.ContainerState_CONTAINER_RUNNING || !started.IsZero() {
			r.background(func(ctx context.Context) { r.noteExit(ctx, c, lost()) })
		}
	case p.GetStatus() == tasktypes.Status_CREATED:
		// Killed between creating the task and starting it: begin again.
		c.suspect.Store(true)
		r.deleteTask(ctx, c.sandbox, c.id)
	default:
		if pump == nil {
			pump, err := r.openPump(c)
			if err != nil {
				return err
			}
			pump.Armed()
		}
		c.mu.Lock()
		c.state, c.pid = runtimeapi.ContainerState_CONTAINER_RUNNING, p.GetPid()
		if started.IsZero() {
			c.outcome.StartedAt = startedAt(p.GetPid())
		}
		c.mu.Unlock()
		if p.GetStatus() == tasktypes.Status_STOPPED {
			r.background(func(ctx context.Context) { r.noteExit(ctx, c, exitOf(p)) })
		}
	}
	return nil
}

// startedAt is when a process was started, for a container whose start was not
// kept in time. The kernel counts it in hundredths of a second since boot.
func startedAt(pid uint32) time.Time {
	now := time.Now()
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return now
	}
	// The program's name, in parentheses, may contain anything.
	_, rest, _ := strings.Cut(string(stat[strings.LastIndexByte(string(stat), ')')+1:]), " ")
	fields := strings.Fields(rest)
	var up unix.Timespec
	if len(fields) < 20 || unix.ClockGettime(unix.CLOCK_BOOTTIME, &up) != nil {
		return now
	}
	ticks, err := strconv.ParseInt(fields[19], 10, 64)
	if err != nil {
		return now
	}
	return now.Add(time.Duration(ticks)*10*time.Millisecond - time.Duration(up.Nano()))
}

// reconcileNetwork reclaims the addresses and links of sandboxes that are gone.
func (r *Runtime) reconcileNetwork(ctx context.Context) error {
	var alive []network.Pod
	for _, s := range r.allSandboxes() {
		// One that is not ready any more keeps its address until it is stopped.
		if _, err := os.Stat(r.sandboxRun(s.id)); err == nil && !s.hostNetwork() {
			alive = append(alive, s.pod())
		}
	}
	runs, err := os.ReadDir(r.sandboxRuns())
	if err != nil {
		return fmt.Errorf("list sandboxes' folders: %w", err)
	}
	known := map[string]bool{}
	for _, pod := range alive {
		known[pod.ID] = true
	}
	for _, e := range runs {
		// Being made right now: its record comes last.
		if id := strings.TrimSpace(e.Name()); !known[id] {
			alive = append(alive, network.Pod{ID: id})
		}
	}
	return r.network.Reconcile(ctx, alive)
}
