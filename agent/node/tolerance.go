package node

import (
	"time"

	v1 "k8s.io/api/core/v1"
)

// runtimeGrace is how long a Ready node stays Ready in the API while its
// runtime does not answer. Restarts of agent and containerd take a second or
// two, and pods run on meanwhile: they must not lose their places behind
// services for it. The kubelet waits 30 s.
const runtimeGrace = 10 * time.Second

// tolerance decides how long trouble with the runtime stays unsaid.
type tolerance struct {
	started bool
	// since is when there was no trouble last, or when the agent started.
	since time.Time
}

// bears says whether trouble at this look is not to be reported yet. node is
// what the API has, boot the machine's boot: after a reboot no pod runs, and a
// node that is not Ready has nothing to lose.
func (t *tolerance) bears(trouble string, node *v1.Node, boot string, now time.Time) bool {
	if !t.started || trouble == "" {
		t.started, t.since = true, now
	}
	return trouble != "" && isReady(node) && node.Status.NodeInfo.BootID == boot && now.Sub(t.since) < runtimeGrace
}
