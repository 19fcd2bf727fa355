package probe

import (
	"context"
	"math/rand/v2"
	"sync"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/skiff-run/skiff/agent/event"
	"github.com/skiff-run/skiff/agent/plan"
	"github.com/skiff-run/skiff/agent/podstate"
)

// attempts at a check that cannot be made, before it is given up until the next time.
const attempts = 3

// Manager runs the probes of all pods.
type Manager struct {
	ctx     context.Context
	checker *checker
	events  event.Recorder
	changed func(types.UID)
	// started is when the agent started: probes of containers that ran before
	// are spread over their period.
	started time.Time

	// mu guards probes and what is in them.
	mu     sync.Mutex
	probes map[string]*containerProbes
	wg     sync.WaitGroup
}

// containerProbes are the probes of one running container, by its id.
type containerProbes struct {
	uid  types.UID
	runs map[Kind]*run
}

// target is what a check needs to know.
type target struct {
	pod         *v1.Pod
	container   *v1.Container
	containerID string
	podIP       string
	spec        *v1.Probe
	kind        Kind
	// startedAt is when the container started.
	startedAt time.Time
}

// run is one probe of one container.
type run struct {
	target  target
	counter *counter
	timer   *time.Timer
	// probed: at least one check was made, so the result means something.
	probed, stopped bool
	// How often the checks were good, bad, and could not be made.
	successful, failed, unknown uint64
}

// NewManager returns a manager whose checks end with ctx. changed is called
// when a result of a pod's probe turns; it must not block.
func NewManager(ctx context.Context, exec Executor, events event.Recorder, changed func(types.UID)) *Manager {
	return &Manager{ctx: ctx, checker: newChecker(exec), events: events, changed: changed, started: time.Now(), probes: map[string]*containerProbes{}}
}

// Before tells what an earlier agent reported of a container.
type Before func(containerID string) (started, ready bool)

// Sync makes the probes of a pod match its running containers. What before
// says of a container holds until its probes prove otherwise.
func (m *Manager) Sync(pod *v1.Pod, state *podstate.Pod, podIP string, before Before) {
	m.mu.Lock()
	defer m.mu.Unlock()
	alive := map[string]bool{}
	visit := func(c *v1.Container) {
		latest := state.Latest(c.Name)
		if latest == nil || latest.State != podstate.Running {
			return
		}
		alive[latest.ID] = true
		m.syncContainer(pod, c, latest, podIP, before)
	}
	for i := range pod.Spec.InitContainers {
		if plan.IsSidecar(&pod.Spec.InitContainers[i]) {
			visit(&pod.Spec.InitContainers[i])
		}
	}
	for i := range pod.Spec.Containers {
		visit(&pod.Spec.Containers[i])
	}
	for id, c := range m.probes {
		if c.uid == pod.UID && !alive[id] {
			m.remove(id)
		}
	}
}

// Forget stops all probes of a pod.
func (m *Manager) Forget(uid types.UID) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for id, c := range m.probes {
		if c.uid == uid {
			m.remove(id)
		}
	}
}

// Wait returns when no check runs any more; call it after ctx ended.
func (m *Manager) Wait() {
	m.mu.Lock()
	for id := range m.probes {
		m.remove(id)
	}
	m.mu.Unlock()
	m.wg.Wait()
}

func (m *Manager) remove(id string) {
	for _, r := range m.probes[id].runs {
		r.stop()
	}
	delete(m.probes, id)
}

// stop is called with the manager's mutex held.
func (r *run) stop() {
	r.stopped = true
	if r.timer != nil {
		r.timer.Stop()
	}
}

func (m *Manager) syncContainer(pod *v1.Pod, c *v1.Container, latest *podstate.Container, podIP string, before Before) {
	probes := m.probes[latest.ID]
	if probes == nil {
		probes = &containerProbes{uid: pod.UID, runs: map[Kind]*run{}}
		m.probes[latest.ID] = probes
		for kind, spec := range map[Kind]*v1.Probe{Startup: c.StartupProbe, Liveness: c.LivenessProbe, Readiness: c.ReadinessProbe} {
			if spec != nil {
				probes.runs[kind] = &run{counter: newCounter(kind, spec), target: target{container: c, containerID: latest.ID, spec: spec, kind: kind, startedAt: latest.StartedAt}}
			}
		}
		started, ready := before(latest.ID)
		if r := probes.runs[Startup]; r != nil && started {
			r.counter.result, r.probed, r.stopped = plan.Success, true, true
		}
		if r := probes.runs[Readiness]; r != nil && ready {
			r.counter.result, r.probed = plan.Success, true
		}
	}
	gate := probes.runs[Startup]
	for kind, r := range probes.runs {
		r.target.pod, r.target.podIP = pod, podIP
		switch {
		case pod.DeletionTimestamp != nil && kind != Readiness:
			// A pod on its way out must not be restarted.
			r.stop()
			r.counter.result = plan.Success
		case r.stopped || r.timer != nil:
		case kind != Startup && gate != nil && gate.counter.result != plan.Success:
		default:
			m.schedule(r, m.firstDelay(r))
		}
	}
}

// firstDelay is the time until the first check: the initial delay counted from
// the container's start, and a random part of the period when the agent itself
// just started.
func (m *Manager) firstDelay(r *run) time.Duration {
	delay := r.target.untilInitialDelay()
	if r.target.startedAt.Before(m.started) {
		delay += rand.N(period(r.target.spec))
	}
	return delay
}

// untilInitialDelay is what is left of the initial delay.
func (t *target) untilInitialDelay() time.Duration {
	return max(time.Until(t.startedAt.Add(time.Duration(t.spec.InitialDelaySeconds)*time.Second)), 0)
}

func period(spec *v1.Probe) time.Duration {
	return time.Duration(max(spec.PeriodSeconds, 1)) * time.Second
}

// schedule is called with mu held.
func (m *Manager) schedule(r *run, after time.Duration) {
	r.timer = time.AfterFunc(after, func() { m.fire(r) })
}

// fire makes one check and plans the next.
func (m *Manager) fire(r *run) {
	m.mu.Lock()
	if r.stopped || m.ctx.Err() != nil {
		m.mu.Unlock()
		return
	}
	began := time.Now()
	t := r.target
	m.wg.Add(1)
	m.mu.Unlock()
	defer m.wg.Done()

	good, known := m.probe(&t)

	m.mu.Lock()
	if r.stopped {
		m.mu.Unlock()
		return
	}
	r.count(good, known)
	var changed, done, first bool
	if known {
		first, r.probed = !r.probed, true
		changed, done = r.counter.add(good)
	}
	if done {
		r.stop()
	} else {
		// Periods are counted from check to check, however long one takes.
		m.schedule(r, max(period(t.spec)-time.Since(began), 0))
	}
	if t.kind == Startup && r.counter.result == plan.Success {
		if probes := m.probes[t.containerID]; probes != nil {
			for kind, other := range probes.runs {
				if kind != Startup && other.timer == nil && !other.stopped {
					m.schedule(other, other.target.untilInitialDelay())
				}
			}
		}
	}
	m.mu.Unlock()
	if changed || first {
		m.changed(t.pod.UID)
	}
}

// probe makes one check and reports failures to the user. What could not be
// checked is not known, and counts neither way.
func (m *Manager) probe(t *target) (good, known bool) {
	var result outcome
	var output string
	var err error
	for range attempts {
		if result, output, err = m.checker.check(m.ctx, t); err == nil {
			break
		}
	}
	if m.ctx.Err() != nil {
		return false, false
	}
	ref := event.Container(t.pod, t.container.Name)
	switch {
	case err != nil:
		m.events.Eventf(ref, v1.EventTypeWarning, event.Unhealthy, "%s probe errored and resulted in %s state: %s", t.kind, "unknown", err)
		return false, false
	case result == warned:
		m.events.Eventf(ref, v1.EventTypeWarning, event.ProbeWarning, "%s probe warning: %s", t.kind, output)
	case result == failed:
		m.events.Eventf(ref, v1.EventTypeWarning, event.Unhealthy, "%s probe failed: %s", t.kind, output)
		return false, true
	}
	return true, true
}

// Startup, Liveness and Readiness return the result of a container's probe;
// None when it has none or has not been made yet.
func (m *Manager) Startup(id string) plan.Result   { return m.result(id, Startup) }
func (m *Manager) Liveness(id string) plan.Result  { return m.result(id, Liveness) }
func (m *Manager) Readiness(id string) plan.Result { return m.result(id, Readiness) }

func (m *Manager) result(id string, kind Kind) plan.Result {
	m.mu.Lock()
	defer m.mu.Unlock()
	probes := m.probes[id]
	if probes == nil || probes.runs[kind] == nil || !probes.runs[kind].probed {
		return plan.None
	}
	return probes.runs[kind].counter.result
}
