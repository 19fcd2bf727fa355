package podworker

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"
	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/skiff-run/skiff/agent/allocation"
	"github.com/skiff-run/skiff/agent/plan"
	"github.com/skiff-run/skiff/agent/podstate"
	"github.com/skiff-run/skiff/agent/podstatus"
)

const (
	// resync is the safety net under the events.
	resync = 10 * time.Minute
	// retryObserve is how long to wait when the runtime does not answer.
	retryObserve = time.Second
	// paceBurst operations may follow each other at once, more only one per paceEvery.
	paceEvery = time.Second
	paceBurst = 16
)

// worker is the life of one pod on this node.
type worker struct {
	*Config
	uid      types.UID
	observer *podstate.Observer
	ended    func(types.UID)
	// resized is called when a resize is complete.
	resized func()
	wake    chan struct{}

	// mu guards what follows: the mailbox and what others may ask for.
	mu sync.Mutex
	// asked is the pod as the API has it; pod has the amounts it was given in place of those it asks for.
	asked, pod *v1.Pod
	resizing   resizing
	// gone: the API does not know the pod any more. orphan: it never told us.
	gone, orphan bool
	verdict      *podstatus.Verdict
	verdictGrace int64
	// failed attempts to start containers, by name.
	failed map[string]plan.Failed
	// stale: the volumes' content has to be looked at.
	stale        bool
	volumesAgain time.Time
	// status is the newest one generated.
	status *v1.PodStatus

	// What follows belongs to the worker's goroutine.
	refused bool
	// op is what is being performed, or nil.
	op *operation
	// stopped: everything ended and was torn down. finished: the API was told to remove it.
	stopped, finished bool
	// down is stopped, for others to see.
	down atomic.Bool
	// announced holds the exited container for which a back-off was announced, by name.
	announced map[string]string
	retry     retry
	// pace keeps operations that end without effect from spinning.
	pace *rate.Limiter
}

func newWorker(config *Config, pod *v1.Pod, ended func(types.UID)) *worker {
	w := &worker{
		Config: config, uid: pod.UID, asked: pod, pod: pod, resizing: resizingOf(pod), ended: ended, wake: make(chan struct{}, 1), stale: true,
		observer: podstate.NewObserver(config.Runtime, pod.UID), failed: map[string]plan.Failed{}, announced: map[string]string{},
		pace: rate.NewLimiter(rate.Every(paceEvery), paceBurst),
	}
	w.signal()
	return w
}

// signal makes the worker look again; it never blocks.
func (w *worker) signal() {
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

// update takes over a newer version of the pod; resize: its resources changed.
func (w *worker) update(pod *v1.Pod) (resize bool) {
	contradicted := w.Status.Observed(pod)
	w.mu.Lock()
	quiet := sameForUs(w.asked, pod)
	resize = !quiet && !allocation.Of(w.asked).Equal(allocation.Of(pod))
	w.asked = pod
	w.pod, _ = w.Allocations.Allocated(pod)
	if !quiet {
		// Labels and annotations are visible in volumes.
		w.stale = true
	}
	w.mu.Unlock()
	if !quiet || contradicted {
		w.signal()
	}
	return resize
}

func (w *worker) remove() {
	w.mu.Lock()
	w.gone = true
	w.mu.Unlock()
	w.signal()
}

func (w *worker) refresh() {
	w.mu.Lock()
	w.stale = true
	for name, f := range w.failed {
		// What was missing may be there now.
		if f.Reason == reasonConfig || name == plan.SandboxKey {
			f.RetryAt = time.Time{}
			w.failed[name] = f
		}
	}
	w.mu.Unlock()
	w.signal()
}

func (w *worker) evict(verdict podstatus.Verdict, grace int64) {
	w.mu.Lock()
	if w.verdict == nil {
		if grace == OwnGrace {
			grace = gracePeriod(w.pod)
		}
		w.verdict, w.verdictGrace = &verdict, grace
	}
	w.mu.Unlock()
	w.signal()
}

// snapshot returns the pod with the newest status.
func (w *worker) snapshot() *v1.Pod {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.orphan {
		return nil
	}
	pod := *w.pod
	if w.status != nil {
		pod.Status = *w.status
	}
	return &pod
}

// holdsResources returns the pod, and whether it counts against the node.
func (w *worker) holdsResources() (*v1.Pod, bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	phase := w.pod.Status.Phase
	if w.status != nil {
		phase = w.status.Phase
	}
	return w.pod, !w.orphan && !terminal(phase)
}

// run is the worker's goroutine.
func (w *worker) run(ctx context.Context) {
	timer := time.NewTimer(resync)
	defer timer.Stop()
	defer w.endOperation()
	for {
		select {
		case <-ctx.Done():
			return
		case <-w.wake:
		case <-timer.C:
		case <-w.op.doneOrNever():
			w.op = nil
		}
		again, exit := w.step(ctx)
		if exit {
			w.ended(w.uid)
			return
		}
		wait := resync
		if !again.IsZero() {
			wait = min(wait, max(again.Sub(w.Now()), 0))
		}
		timer.Reset(wait)
	}
}

// view is one consistent look at the mailbox.
type view struct {
	pod          *v1.Pod
	gone, orphan bool
	verdict      *podstatus.Verdict
	verdictGrace int64
	failed       map[string]plan.Failed
	stale        bool
	volumesAgain time.Time
	old          *v1.PodStatus
	actuated     *allocation.Resources
}

func (w *worker) look() view {
	w.mu.Lock()
	defer w.mu.Unlock()
	failed := make(map[string]plan.Failed, len(w.failed))
	for k, v := range w.failed {
		failed[k] = v
	}
	old := w.status
	if old == nil {
		old = &w.pod.Status
	}
	var actuated *allocation.Resources
	if a, known := w.Allocations.Actuated(w.uid); known {
		actuated = &a
	}
	return view{
		actuated: actuated,
		pod:      w.pod, gone: w.gone, orphan: w.orphan, verdict: w.verdict, verdictGrace: w.verdictGrace,
		failed: failed, stale: w.stale, volumesAgain: w.volumesAgain, old: old,
	}
}

// step looks at everything once and starts what has to be done. again is when
// to look without being woken; exit: the worker's task is over.
func (w *worker) step(ctx context.Context) (again time.Time, exit bool) {
	v := w.look()
	state, err := w.observer.Observe(ctx)
	if err != nil {
		if ctx.Err() == nil {
			w.Logger.Warn("the runtime does not tell about a pod; asking again", "pod", v.pod.Name, "namespace", v.pod.Namespace, "error", err)
		}
		return w.Now().Add(retryObserve), false
	}
	if v.verdict == nil {
		var deadline time.Time
		v.verdict, deadline = w.pastDeadline(&v)
		again = earlier(again, deadline)
	}
	if v.gone || v.pod.DeletionTimestamp != nil || v.verdict != nil || w.refused || terminal(v.old.Phase) || terminal(v.pod.Status.Phase) {
		next, exit := w.stepDown(ctx, v, state)
		return earlier(again, next), exit
	}
	return earlier(again, w.stepUp(ctx, v, state)), false
}

// stepUp moves an active pod towards its spec.
func (w *worker) stepUp(ctx context.Context, v view, state *podstate.Pod) (again time.Time) {
	w.Objects.Register(v.pod)
	// What an earlier agent knew of the probes counts in the plan.
	w.syncProbes(v, state)
	p := plan.Compute(plan.Input{Pod: v.pod, State: state, Probes: w.Probes, Failed: v.failed, Actuated: v.actuated, Now: w.Now()})
	w.announceBackoff(v.pod, state, &p)
	w.publish(v, state, p.Waiting, false)
	if p.Finished {
		next, _ := w.stepDown(ctx, v, state)
		return next
	}
	now := w.Now()
	stale := v.stale || (!v.volumesAgain.IsZero() && !now.Before(v.volumesAgain))
	if w.op == nil && (!p.Empty() || (stale && p.SandboxID != "")) {
		if !w.pace.AllowN(now, 1) {
			return now.Add(paceEvery)
		}
		w.begin(ctx, func(ctx context.Context) { w.perform(ctx, v.pod, state, &p, stale) })
	}
	again = earlier(p.WakeAt, v.volumesAgain)
	if w.op != nil {
		// The operation's end wakes the worker; times that have come do not matter before.
		return time.Time{}
	}
	return again
}

// publish generates the status and hands it on.
func (w *worker) publish(v view, state *podstate.Pod, waiting map[string]plan.Wait, over bool) *v1.PodStatus {
	if v.orphan {
		return v.old
	}
	if w.refused {
		return v.old
	}
	status := podstatus.Generate(podstatus.Input{
		Resize: w.settleResize(v.pod, v.actuated), Actuated: v.actuated, Devices: w.deviceStatus,
		Pod: v.pod, Old: v.old, State: state, Waiting: waiting, Probes: w.Probes, HostIPs: w.Node.HostIPs(),
		RecursiveReadOnly: w.CRI.RecursiveReadOnly, Terminal: over, Verdict: v.verdict, Now: w.Now(),
	})
	w.setStatus(status)
	w.Status.Set(v.pod, status)
	return status
}

// deviceStatus tells how the devices of a container are.
func (w *worker) deviceStatus(container string) []v1.ResourceStatus {
	if w.Devices == nil {
		return nil
	}
	return w.Devices.Status(w.uid, container)
}

func (w *worker) setStatus(status *v1.PodStatus) {
	w.mu.Lock()
	w.status = status
	w.mu.Unlock()
}

func (w *worker) syncProbes(v view, state *podstate.Pod) {
	ip := ""
	if ips := w.podIPs(v.pod, state); len(ips) > 0 {
		ip = ips[0]
	}
	w.Probes.Sync(v.pod, state, ip, func(id string) (started, ready bool) {
		for _, statuses := range [][]v1.ContainerStatus{v.old.ContainerStatuses, v.old.InitContainerStatuses} {
			for i := range statuses {
				if s := &statuses[i]; s.ContainerID == "containerd://"+id && s.State.Running != nil {
					return s.Started != nil && *s.Started, s.Ready
				}
			}
		}
		return false, false
	})
}

// podIPs are the pod's addresses: the node's for pods on its network.
func (w *worker) podIPs(pod *v1.Pod, state *podstate.Pod) []string {
	if pod.Spec.HostNetwork {
		return w.Node.HostIPs()
	}
	return state.IPs()
}

// pastDeadline ends a pod that was active longer than it may; deadline is when
// that will be.
func (w *worker) pastDeadline(v *view) (*podstatus.Verdict, time.Time) {
	limit := v.pod.Spec.ActiveDeadlineSeconds
	if limit == nil || v.old.StartTime == nil || terminal(v.old.Phase) {
		return nil, time.Time{}
	}
	deadline := v.old.StartTime.Add(time.Duration(*limit) * time.Second)
	if w.Now().Before(deadline) {
		return nil, deadline
	}
	return &podstatus.Verdict{Reason: "DeadlineExceeded", Message: "Pod was active on the node longer than the specified deadline"}, time.Time{}
}

// earlier returns the earlier of two times, of which zero means never.
func earlier(a, b time.Time) time.Time {
	if a.IsZero() || (!b.IsZero() && b.Before(a)) {
		return b
	}
	return a
}
