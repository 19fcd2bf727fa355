package runtime

import (
	"context"
	"sync"
	"time"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// maxPending bounds the events that wait for their reader; beyond it they are
// replaced by one that asks for a complete look.
const maxPending = 4096

// notifier hands events to the reader of Events without ever blocking who has one.
type notifier struct {
	out  chan *runtimeapi.ContainerEventResponse
	wake chan struct{}

	mu      sync.Mutex // guards pending
	pending []*runtimeapi.ContainerEventResponse
}

func (n *notifier) init() {
	n.out, n.wake = make(chan *runtimeapi.ContainerEventResponse), make(chan struct{}, 1)
}

func (n *notifier) send(e *runtimeapi.ContainerEventResponse) {
	e.CreatedAt = time.Now().UnixNano()
	n.mu.Lock()
	if len(n.pending) >= maxPending {
		n.pending = []*runtimeapi.ContainerEventResponse{{CreatedAt: e.CreatedAt}}
	} else {
		n.pending = append(n.pending, e)
	}
	n.mu.Unlock()
	select {
	case n.wake <- struct{}{}:
	default:
	}
}

// resync asks the reader for a complete look.
func (n *notifier) resync() { n.send(&runtimeapi.ContainerEventResponse{}) }

func (n *notifier) run(ctx context.Context) {
	for {
		n.mu.Lock()
		batch := n.pending
		n.pending = nil
		n.mu.Unlock()
		for _, e := range batch {
			select {
			case n.out <- e:
			case <-ctx.Done():
				return
			}
		}
		if len(batch) > 0 {
			continue
		}
		select {
		case <-n.wake:
		case <-ctx.Done():
			return
		}
	}
}

func (r *Runtime) notify(c *container, kind runtimeapi.ContainerEventType) {
	r.events.send(&runtimeapi.ContainerEventResponse{
		ContainerId: c.id, ContainerEventType: kind,
		PodSandboxStatus: &runtimeapi.PodSandboxStatus{
			Id: c.sandbox.id, Metadata: c.sandbox.config.GetMetadata(), State: c.sandbox.state(),
		},
	})
}
