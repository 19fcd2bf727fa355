package agent

import (
	"context"
	"fmt"
	"time"

	"github.com/skiff-run/skiff/agent/node"
	"github.com/skiff-run/skiff/agent/podworker"
)

// silence is how long one look at the machine may take before something hangs.
const silence = 2 * time.Minute

// vitals are the parts by which others see how the agent does.
type vitals struct {
	pool  *podworker.Pool
	nodes *node.Manager
}

// Alive returns an error when the agent hangs, for the supervisor that then ends
// it and starts it again: when the pool of pod workers does not answer until ctx
// ends, or when the loop that looks at the machine does not go round although
// containerd answers. A containerd that hangs is no such error: another agent
// would wait for it too, and this one goes on when it answers; the node is
// NotReady meanwhile, and the status line says why.
func (a *Agent) Alive(ctx context.Context) error {
	v := a.vitals.Load()
	if v == nil {
		return nil // it starts
	}
	answered := make(chan struct{})
	// What hangs ends with the process.
	go func() {
		v.pool.Pods()
		close(answered)
	}()
	select {
	case <-answered:
	case <-ctx.Done():
		return fmt.Errorf("the pod workers do not answer: %w", context.Cause(ctx))
	}
	busy := v.nodes.Busy()
	if busy < silence {
		return nil
	}
	if _, err := a.Runtime.Version(ctx, ""); err != nil {
		return nil
	}
	return fmt.Errorf("one look at the machine takes %s although containerd answers", busy.Truncate(time.Second))
}

// Describe says in a line how the agent does, for systemctl status.
func (a *Agent) Describe() string {
	v := a.vitals.Load()
	if v == nil {
		return "node " + a.NodeName + " starts"
	}
	pods := len(v.pool.Pods())
	if pods == 1 {
		return v.nodes.Describe() + "; 1 pod"
	}
	return fmt.Sprintf("%s; %d pods", v.nodes.Describe(), pods)
}
