package podworker

import (
	"context"
	"sync"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/skiff-run/skiff/agent/podstatus"
)

// Pool holds the workers.
type Pool struct {
	config Config
	ctx    context.Context
	wg     sync.WaitGroup

	// mu guards workers.
	mu      sync.Mutex
	workers map[types.UID]*worker
	// resizes asks for a look at the pending resizes.
	resizes chan struct{}
}

// NewPool returns an empty pool whose workers end with ctx, leaving everything
// that runs as it is.
func NewPool(ctx context.Context, config Config) *Pool {
	return &Pool{config: config, ctx: ctx, workers: map[types.UID]*worker{}, resizes: make(chan struct{}, 1)}
}

// Wait returns when every worker has ended; call it after the context ended.
func (p *Pool) Wait() { p.wg.Wait() }

// Update tells the pool of a pod's spec, new or changed.
func (p *Pool) Update(pod *v1.Pod) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if w := p.workers[pod.UID]; w != nil {
		if w.update(pod) || terminal(pod.Status.Phase) {
			p.askResizes()
		}
		return
	}
	w := newWorker(&p.config, pod, p.drop)
	w.resized = p.askResizes
	allocated, known := p.config.Allocations.Allocated(pod)
	w.pod = allocated
	reason, message, ok := p.admit(allocated)
	switch {
	case !ok:
		p.config.Logger.Info("pod refused", "pod", pod.Name, "namespace", pod.Namespace, "reason", reason, "message", message)
		p.config.Events.Eventf(pod, v1.EventTypeWarning, reason, "%s", message)
		w.status = podstatus.Rejected(pod, reason, message, p.config.Now())
		w.refused = true
		p.config.Status.Set(pod, w.status)
	case known:
		p.askResizes()
	case !terminal(pod.Status.Phase):
		if err := p.config.Allocations.Admit(pod); err != nil {
			p.config.Logger.Warn("a resize of this pod while the agent is down will not be noticed", "pod", pod.Name, "namespace", pod.Namespace, "error", err)
		}
	}
	p.start(w)
}

// admit is called with mu held.
func (p *Pool) admit(pod *v1.Pod) (reason, message string, ok bool) {
	if p.config.Admit == nil || pod.DeletionTimestamp != nil || terminal(pod.Status.Phase) {
		return "", "", true
	}
	var active []*v1.Pod
	for _, w := range p.workers {
		if other, counts := w.holdsResources(); counts {
			active = append(active, other)
		}
	}
	return p.config.Admit(pod, active)
}

// Remove tells the pool that the API does not know the pod any more.
func (p *Pool) Remove(uid types.UID) {
	p.mu.Lock()
	w := p.workers[uid]
	p.mu.Unlock()
	if w != nil {
		w.remove()
	}
}

// Adopt takes over a pod of which the runtime holds remains, but of which the
// API knows nothing: it is stopped and purged.
func (p *Pool) Adopt(uid types.UID, namespace, name string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.workers[uid] != nil {
		return
	}
	w := newWorker(&p.config, &v1.Pod{ObjectMeta: metav1.ObjectMeta{UID: uid, Namespace: namespace, Name: name}}, p.drop)
	w.gone, w.orphan = true, true
	p.start(w)
}

// OwnGrace stands for the pod's own grace period.
const OwnGrace = -1

// Evict ends a pod with a reason of the node's, and a grace period in seconds or OwnGrace.
func (p *Pool) Evict(uid types.UID, verdict podstatus.Verdict, grace int64) {
	p.mu.Lock()
	w := p.workers[uid]
	p.mu.Unlock()
	if w != nil {
		w.evict(verdict, grace)
	}
}

// Down says whether nothing of the pod runs or is mounted here any more.
func (p *Pool) Down(uid types.UID) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	w := p.workers[uid]
	return w == nil || w.down.Load()
}

// Wake makes a pod's worker look again.
func (p *Pool) Wake(uid types.UID) {
	p.mu.Lock()
	w := p.workers[uid]
	p.mu.Unlock()
	if w != nil {
		w.signal()
	}
}

// Refresh makes a pod's worker look again and bring its volumes up to date.
func (p *Pool) Refresh(uid types.UID) {
	p.mu.Lock()
	w := p.workers[uid]
	p.mu.Unlock()
	if w != nil {
		w.refresh()
	}
}

// WakeAll makes every worker look again: events may have been lost.
func (p *Pool) WakeAll() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, w := range p.workers {
		w.signal()
	}
}

// Known reports whether the pod has a worker.
func (p *Pool) Known(uid types.UID) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.workers[uid] != nil
}

// Pods returns the pods of this node with the newest status.
func (p *Pool) Pods() []*v1.Pod {
	p.mu.Lock()
	defer p.mu.Unlock()
	pods := make([]*v1.Pod, 0, len(p.workers))
	for _, w := range p.workers {
		if pod := w.snapshot(); pod != nil {
			pods = append(pods, pod)
		}
	}
	return pods
}

// Pod returns one pod with its newest status, by name.
func (p *Pool) Pod(namespace, name string) (*v1.Pod, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	var found *v1.Pod
	for _, w := range p.workers {
		// A pod of the same name may still be on its way out.
		if pod := w.snapshot(); pod != nil && pod.Namespace == namespace && pod.Name == name && (found == nil || pod.DeletionTimestamp == nil) {
			found = pod
		}
	}
	return found, found != nil
}

func (p *Pool) start(w *worker) {
	p.workers[w.uid] = w
	p.wg.Go(func() { w.run(p.ctx) })
}

// drop forgets a worker that has ended.
func (p *Pool) drop(uid types.UID) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.workers, uid)
	p.config.Allocations.Forget(uid)
	p.askResizes()
}

func terminal(phase v1.PodPhase) bool { return phase == v1.PodSucceeded || phase == v1.PodFailed }

// sameForUs reports whether two versions of a pod differ only in what this
// agent itself wrote.
func sameForUs(a, b *v1.Pod) bool {
	return a.Generation == b.Generation && a.DeletionTimestamp.Equal(b.DeletionTimestamp) &&
		equality.Semantic.DeepEqual(a.DeletionGracePeriodSeconds, b.DeletionGracePeriodSeconds) &&
		equality.Semantic.DeepEqual(a.Labels, b.Labels) && equality.Semantic.DeepEqual(a.Annotations, b.Annotations) &&
		len(b.Spec.ReadinessGates) == 0 && b.Generation != 0 && len(a.Spec.EphemeralContainers) == len(b.Spec.EphemeralContainers) &&
		// Somebody else ended the pod, for example the garbage collector.
		terminal(a.Status.Phase) == terminal(b.Status.Phase)
}
