package podworker

import (
	"context"
	"time"

	v1 "k8s.io/api/core/v1"

	"github.com/skiff-run/skiff/agent/allocation"
)

// resizeEvery is how often resizes that were put off are tried again although nothing is known to have
// changed.
const resizeEvery = 3 * time.Minute

// RunResizes decides about resizes until ctx ends. It must not start before the pods of this node are
// known: they hold what others ask for.
func (p *Pool) RunResizes(ctx context.Context) {
	p.config.Allocations.Keep(p.Known)
	ticker := time.NewTicker(resizeEvery)
	defer ticker.Stop()
	for {
		p.decideResizes()
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		case <-p.resizes:
		}
	}
}

// askResizes has the pending resizes decided anew; it never blocks.
func (p *Pool) askResizes() {
	select {
	case p.resizes <- struct{}{}:
	default:
	}
}

// decideResizes gives pods what they ask for, in order, as far as it fits.
func (p *Pool) decideResizes() {
	p.mu.Lock()
	defer p.mu.Unlock()
	var pending []allocation.Pending
	for _, w := range p.workers {
		if one, is := w.pendingResize(); is {
			pending = append(pending, one)
		}
	}
	allocation.Order(pending)
	for _, one := range pending {
		w := p.workers[one.Wanted.UID]
		var others []*v1.Pod
		for _, other := range p.workers {
			if pod, counts := other.holdsResources(); counts && other != w {
				others = append(others, pod)
			}
		}
		if reason, message, ok := p.config.AdmitResize(one.Wanted, one.Allocated, others); !ok {
			w.putOff(one.Wanted, reason, message)
			continue
		}
		if err := p.config.Allocations.Resize(one.Wanted); err != nil {
			p.config.Logger.Warn("resize a pod; trying again", "pod", one.Wanted.Name, "namespace", one.Wanted.Namespace, "error", err)
			continue
		}
		w.granted(one.Wanted)
	}
}

// pendingResize returns the resize to decide about. What is infeasible stays so until somebody asks for
// something else.
func (w *worker) pendingResize() (allocation.Pending, bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	phase := w.asked.Status.Phase
	if w.status != nil {
		phase = w.status.Phase
	}
	same := allocation.Of(w.asked).Equal(allocation.Of(w.pod))
	if same && w.resizing.pending != nil {
		// It was taken back.
		w.resizing.pending = nil
		w.signal()
	}
	if same || w.orphan || w.refused || terminal(phase) || w.asked.DeletionTimestamp != nil {
		return allocation.Pending{}, false
	}
	one := allocation.Pending{Wanted: w.asked, Allocated: w.pod}
	if c := w.resizing.pending; c != nil {
		if c.Reason == v1.PodReasonInfeasible && c.ObservedGeneration == w.asked.Generation {
			return allocation.Pending{}, false
		}
		one.Since = c.LastTransitionTime.UTC().Format(time.RFC3339)
	}
	return one, true
}
