package podworker

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	v1 "k8s.io/api/core/v1"

	"github.com/skiff-run/skiff/agent/criconfig"
	"github.com/skiff-run/skiff/agent/podstate"
	"github.com/skiff-run/skiff/agent/podstatus"
)

// retryDown is how long to wait before clean-up that failed is tried again.
const retryDown = 2 * time.Second

// stepDown moves a pod that must not run any more towards its end.
func (w *worker) stepDown(ctx context.Context, v view, state *podstate.Pod) (again time.Time, exit bool) {
	grace := w.downGrace(&v, state)
	if w.op != nil && (!w.op.stopping || grace < w.op.grace) {
		// Starting things is over, or the end is wanted sooner.
		w.op.cancel()
		return time.Time{}, false
	}
	if !w.stopped {
		w.publishDown(v, state)
	}
	if w.op != nil {
		return time.Time{}, false
	}
	switch {
	case state.Active() || state.AnySandboxReady():
		w.stopped = false
		w.down.Store(false)
		if now := w.Now(); !w.pace.AllowN(now, 1) {
			return now.Add(paceEvery), false
		}
		w.Logger.Info("stopping pod", "pod", v.pod.Name, "namespace", v.pod.Namespace, "uid", w.uid, "grace", grace)
		o := w.begin(ctx, func(ctx context.Context) { w.stopPod(ctx, v.pod, state, grace) })
		o.stopping, o.grace = true, grace
	case !w.stopped:
		if err := w.tearDown(ctx); err != nil {
			w.Logger.Warn("clean up after a pod; trying again", "pod", v.pod.Name, "namespace", v.pod.Namespace, "error", err)
			return w.Now().Add(retryDown), false
		}
		w.stopped = true
		w.down.Store(true)
		status := w.finalStatus(v, state)
		if !v.gone && v.pod.DeletionTimestamp == nil {
			w.Status.Set(v.pod, status)
		}
		w.signal()
	case v.gone:
		if err := w.purge(ctx, v.pod, state); err != nil {
			w.Logger.Warn("remove the remains of a pod; trying again", "pod", v.pod.Name, "namespace", v.pod.Namespace, "error", err)
			return w.Now().Add(retryDown), false
		}
		w.Status.Forget(w.uid)
		return time.Time{}, true
	case v.pod.DeletionTimestamp != nil && !w.finished:
		w.finished = true
		w.Status.Finish(v.pod, v.old)
	}
	return time.Time{}, false
}

// downGrace is the grace period in seconds. Of an orphan it is what its
// containers remember.
func (w *worker) downGrace(v *view, state *podstate.Pod) int64 {
	if v.verdict != nil && v.pod.DeletionTimestamp == nil && w.verdictSet() {
		return v.verdictGrace
	}
	if v.orphan {
		for i := range state.Containers {
			if g := state.Containers[i].Record.GracePeriod; g != nil {
				return *g
			}
		}
	}
	return gracePeriod(v.pod)
}

// verdictSet: the verdict came with a grace period of its own.
func (w *worker) verdictSet() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.verdict != nil
}

func (w *worker) publishDown(v view, state *podstate.Pod) {
	if v.orphan {
		return
	}
	if state.Active() {
		w.syncProbes(v, state)
	}
	w.publish(v, state, nil, true)
}

// finalStatus is the pod's last status: nothing of it will run again.
func (w *worker) finalStatus(v view, state *podstate.Pod) *v1.PodStatus {
	if v.orphan || w.refused {
		return v.old
	}
	status := podstatus.Generate(podstatus.Input{
		Pod: v.pod, Old: w.look().old, State: state, Probes: w.Probes, HostIPs: w.Node.HostIPs(), RecursiveReadOnly: w.CRI.RecursiveReadOnly, Terminal: true, Verdict: v.verdict, Now: w.Now(),
	})
	status = podstatus.Finalize(v.pod, status, w.Now())
	w.setStatus(status)
	return status
}

// tearDown releases what a stopped pod holds. Its containers stay for their logs.
func (w *worker) tearDown(ctx context.Context) error {
	w.Probes.Forget(w.uid)
	w.Objects.Unregister(w.uid)
	w.Images.Forget(string(w.uid))
	if err := w.Volumes.TearDown(w.uid); err != nil {
		return err
	}
	if err := w.Cgroups.RemovePod(ctx, w.uid); err != nil {
		return fmt.Errorf("remove the pod's cgroup: %w", err)
	}
	return nil
}

// purge removes everything that is left of a pod.
func (w *worker) purge(ctx context.Context, pod *v1.Pod, state *podstate.Pod) error {
	for i := range state.Containers {
		if err := w.removeContainer(ctx, pod, &state.Containers[i]); err != nil {
			return err
		}
	}
	for i := range state.Sandboxes {
		if err := w.Runtime.RemovePodSandbox(ctx, state.Sandboxes[i].ID); err != nil && !notFound(err) {
			return fmt.Errorf("remove sandbox %s: %w", state.Sandboxes[i].ID, err)
		}
	}
	if err := w.Volumes.Remove(w.uid); err != nil {
		return err
	}
	if pod.Name != "" {
		if err := os.RemoveAll(w.CRI.LogDir(pod)); err != nil {
			return fmt.Errorf("remove the pod's logs: %w", err)
		}
	}
	return nil
}

// removeContainer removes a container and the link to its log.
func (w *worker) removeContainer(ctx context.Context, pod *v1.Pod, c *podstate.Container) error {
	if err := w.Runtime.RemoveContainer(ctx, c.ID); err != nil && !notFound(err) {
		return fmt.Errorf("remove container %s: %w", c.ID, err)
	}
	link := filepath.Join(w.ContainerLogsDir, logLink(pod, c.Name, c.ID))
	if err := os.Remove(link); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove the link to a log: %w", err)
	}
	return nil
}

// collect removes containers and sandboxes that later ones have replaced: of
// every container the newest ended one stays.
func (w *worker) collect(ctx context.Context, pod *v1.Pod) {
	state, err := podstate.NewObserver(w.Runtime, w.uid).Observe(ctx)
	if err != nil {
		return
	}
	kept := map[string]bool{}
	used := map[string]bool{}
	for i := range state.Containers {
		c := &state.Containers[i]
		if c.State != podstate.Exited || !kept[c.Name] {
			if c.State == podstate.Exited {
				kept[c.Name] = true
			}
			used[c.SandboxID] = true
			continue
		}
		if err := w.removeContainer(ctx, pod, c); err != nil {
			w.Logger.Warn("remove an old container", "pod", pod.Name, "namespace", pod.Namespace, "error", err)
			continue
		}
		if err := removeLog(filepath.Join(w.CRI.LogDir(pod), criconfig.LogPath(c.Name, c.Record.Attempt))); err != nil {
			w.Logger.Warn("remove an old log", "pod", pod.Name, "namespace", pod.Namespace, "error", err)
		}
	}
	for i := 1; i < len(state.Sandboxes); i++ {
		s := &state.Sandboxes[i]
		if s.Ready || used[s.ID] {
			continue
		}
		if err := w.Runtime.RemovePodSandbox(ctx, s.ID); err != nil && !notFound(err) {
			w.Logger.Warn("remove an old sandbox", "pod", pod.Name, "namespace", pod.Namespace, "error", err)
		}
	}
}

// removeLog removes a container's log with the files that rotation moved aside.
func removeLog(path string) error {
	aside, err := filepath.Glob(path + ".*")
	errs := []error{err}
	for _, file := range append(aside, path) {
		if err := os.Remove(file); err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}
