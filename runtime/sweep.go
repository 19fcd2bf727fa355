package runtime

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/containerd/containerd/api/services/tasks/v1"
	tasktypes "github.com/containerd/containerd/api/types/task"
	"github.com/containerd/errdefs/pkg/errgrpc"
	"golang.org/x/sys/unix"
)

// sweep ends the shims that serve nothing. containerd leaves one behind when its
// client is killed while it creates a task: the shim runs, sometimes with the
// container's process, but no task points to it, and nobody would ever end it
// (containerd issue 6860).
//
// The container such a shim was started for has no record, nor has any whose
// process is its child. The same is true of a pod's shim whose first container was
// removed and whose last one has exited but was not deleted yet; therefore nothing
// is swept while any task is stopped.
func (r *Runtime) sweep(ctx context.Context) error {
	shims, err := r.shims()
	if err != nil || len(shims) == 0 {
		return err
	}
	records, err := r.client.ContainerService().List(ctx)
	if err != nil {
		return fmt.Errorf("list containers: %w", err)
	}
	known := map[string]bool{}
	for _, record := range records {
		known[record.ID] = true
	}
	answer, err := r.client.TaskService().List(ctx, &tasks.ListTasksRequest{})
	if err != nil {
		return fmt.Errorf("list tasks: %w", errgrpc.ToNative(err))
	}
	for _, p := range answer.GetTasks() {
		known[p.GetID()] = true
		if p.GetStatus() == tasktypes.Status_STOPPED {
			return nil // the next look will do
		}
	}
	for _, s := range shims {
		if s.serves(known) {
			continue
		}
		r.logger.Info("ending a shim that serves nothing", "pid", s.pid, "container", s.id, "processes", len(s.children))
		for _, pid := range append(s.children, s.pid) {
			if err := unix.Kill(pid, unix.SIGKILL); err != nil && err != unix.ESRCH {
				return fmt.Errorf("end process %d of idle shim %d: %w", pid, s.pid, err)
			}
		}
	}
	return nil
}

// sweepAgain is how long containerd may take to give up a task whose creator was killed.
const sweepAgain = 5 * time.Second

// sweepTwice looks now, and again when containerd has dealt with what was under way.
func (r *Runtime) sweepTwice(ctx context.Context) {
	timer := time.NewTimer(sweepAgain)
	defer timer.Stop()
	for range 2 {
		if err := r.sweep(ctx); err != nil && r.life.Err() == nil {
			r.logger.Warn("shims that serve nothing could not be ended", "error", err)
		}
		select {
		case <-timer.C:
		case <-r.life.Done():
			return
		}
	}
}

// shim is a process that looks after the containers of a pod.
type shim struct {
	pid      int
	id       string // the container it was started for
	children []int
}

// serves says whether the shim has anything to do with a container that is known.
func (s shim) serves(known map[string]bool) bool {
	if known[s.id] {
		return true
	}
	for _, pid := range s.children {
		cgroups, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", pid))
		if err != nil {
			return true // just ended; the next look will do
		}
		id := containerOf(string(cgroups))
		// A child outside of any container's cgroup is the OCI runtime at work.
		if id == "" || known[id] {
			return true
		}
	}
	return false
}

var containerID = regexp.MustCompile(`([0-9a-f]{64}(-init)?)(\.scope)?\n`)

// containerOf finds the container's ID in the cgroups of a process.
func containerOf(cgroups string) string {
	if m := containerID.FindStringSubmatch(cgroups); m != nil {
		return m[1]
	}
	return ""
}

// shims finds the shims of our containerd and namespace among the processes of
// our own process table.
func (r *Runtime) shims() ([]shim, error) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, fmt.Errorf("look for shims: %w", err)
	}
	table, err := os.Readlink("/proc/self/ns/pid")
	if err != nil {
		return nil, fmt.Errorf("look for shims: %w", err)
	}
	var list []shim
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		// A node within a container has a containerd of its own, at an address
		// that reads the same.
		if of, err := os.Readlink(filepath.Join("/proc", e.Name(), "ns/pid")); err != nil || of != table {
			continue
		}
		line, err := os.ReadFile(filepath.Join("/proc", e.Name(), "cmdline"))
		if err != nil {
			continue // ended meanwhile
		}
		args := strings.Split(string(line), "\x00")
		if !strings.HasPrefix(filepath.Base(args[0]), "containerd-shim-") ||
			argument(args, "-namespace") != r.options.Namespace || argument(args, "-address") != r.options.ContainerdAddress {
			continue
		}
		if children, err := childrenOf(pid); err == nil {
			list = append(list, shim{pid, argument(args, "-id"), children})
		}
	}
	return list, nil
}

// childrenOf lists the processes whose parent is any thread of pid.
func childrenOf(pid int) ([]int, error) {
	proc := filepath.Join("/proc", strconv.Itoa(pid), "task")
	threads, err := os.ReadDir(proc)
	if err != nil {
		return nil, err
	}
	var pids []int
	for _, t := range threads {
		children, err := os.ReadFile(filepath.Join(proc, t.Name(), "children"))
		if err != nil {
			continue // the thread ended
		}
		for field := range strings.FieldsSeq(string(children)) {
			if child, err := strconv.Atoi(field); err == nil {
				pids = append(pids, child)
			}
		}
	}
	return pids, nil
}

func argument(args []string, name string) string {
	for i, a := range args[:max(len(args)-1, 0)] {
		if a == name {
			return args[i+1]
		}
	}
	return ""
}
