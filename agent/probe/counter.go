package probe

import (
	v1 "k8s.io/api/core/v1"

	"github.com/skiff-run/skiff/agent/plan"
)

// Kind of a probe.
type Kind int

// Kinds of probes.
const (
	Startup Kind = iota
	Liveness
	Readiness
)

func (k Kind) String() string {
	return [...]string{"Startup", "Liveness", "Readiness"}[k]
}

// counter turns single outcomes into a result: it takes as many in a row as
// the thresholds say.
type counter struct {
	kind               Kind
	successes, failure int32
	// run is the length of the present row, good its sense.
	run    int32
	good   bool
	result plan.Result
}

func newCounter(kind Kind, spec *v1.Probe) *counter {
	c := &counter{kind: kind, successes: max(spec.SuccessThreshold, 1), failure: max(spec.FailureThreshold, 1)}
	switch kind {
	case Liveness:
		c.result = plan.Success
	case Readiness:
		c.result = plan.Failure
	}
	return c
}

// add counts one outcome. changed: the result turned. done: there is nothing
// more to find out about this container.
func (c *counter) add(good bool) (changed, done bool) {
	if good != c.good || c.run == 0 {
		c.good, c.run = good, 0
	}
	c.run++
	if (good && c.run < c.successes) || (!good && c.run < c.failure) {
		return false, false
	}
	result := plan.Failure
	if good {
		result = plan.Success
	}
	changed = result != c.result
	c.result = result
	switch c.kind {
	case Startup:
		done = true
	case Liveness:
		done = !good
	}
	return changed, done
}
