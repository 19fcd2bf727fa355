package shutdown

import (
	"context"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"

	"github.com/skiff-run/skiff/agent/event"
	"github.com/skiff-run/skiff/agent/podstatus"
	"github.com/skiff-run/skiff/internal/config"
)

// What pods are told, in upstream's words.
const (
	NotAdmittedReason  = "NodeShutdown"
	NotAdmittedMessage = "Pod was rejected as the node is shutting down."
	endedReason        = "Terminated"
	endedMessage       = "Pod was terminated in response to imminent node shutdown."
	nodeMessage        = "node is shutting down"
	eventReason        = "NodeShutdown"
)

const (
	// reconnect is when a lost connection to logind is made anew.
	reconnect = time.Second
	// lookEvery is how often pods that end are looked at.
	lookEvery = 100 * time.Millisecond
)

// Pods are those of this node.
type Pods interface {
	Pods() []*v1.Pod
	// Evict ends a pod, which may take grace seconds.
	Evict(uid types.UID, verdict podstatus.Verdict, grace int64)
	// Down says whether nothing of the pod runs or is mounted any more.
	Down(uid types.UID) bool
}

// Config of a Manager.
type Config struct {
	// Priorities are the times of groups of pods, in order; none: the machine's shutdown is not delayed.
	Priorities []config.ShutdownPriority
	Pods       Pods
	// Tell makes the node say that it is ending, or with an empty message that it is not.
	Tell   func(message string)
	Events event.Recorder
	Node   runtime.Object
	Logger *slog.Logger
	// Bus is the address of the system's bus; the usual one when empty.
	Bus string
	// LogindDir is the folder of pieces of logind's configuration, /etc/systemd/logind.conf.d when empty.
	LogindDir string
}

// Manager delays shutdowns of the machine.
type Manager struct {
	Config
	ending atomic.Bool
	// priorities are those in force; changed tells of others.
	priorities atomic.Pointer[[]config.ShutdownPriority]
	changed    chan struct{}
}

// New returns a manager.
func New(c Config) *Manager {
	if c.LogindDir == "" {
		c.LogindDir = "/etc/systemd/logind.conf.d"
	}
	m := &Manager{Config: c, changed: make(chan struct{}, 1)}
	m.priorities.Store(&c.Priorities)
	return m
}

// SetPriorities changes how long the next shutdown waits for pods.
func (m *Manager) SetPriorities(priorities []config.ShutdownPriority) {
	m.priorities.Store(&priorities)
	select {
	case m.changed <- struct{}{}:
	default:
	}
}

// Ending says whether the machine is about to stop, so that no pod is taken on.
func (m *Manager) Ending() bool { return m.ending.Load() }

// Run delays shutdowns until ctx ends. Where no logind runs it says so once and
// looks for one now and then.
func (m *Manager) Run(ctx context.Context) {
	told := ""
	for ctx.Err() == nil {
		if len(*m.priorities.Load()) == 0 {
			select {
			case <-ctx.Done():
			case <-m.changed:
			}
			continue
		}
		if err := m.watch(ctx); err != nil && ctx.Err() == nil && err.Error() != told {
			told = err.Error()
			m.Logger.Warn("shutdowns of the machine are not delayed for its pods; trying again", "error", err)
		}
		select {
		case <-ctx.Done():
		case <-time.After(reconnect):
		}
	}
}

// watch waits for shutdowns until the connection to logind breaks.
func (m *Manager) watch(ctx context.Context) error {
	l, err := connect(ctx, m.Bus)
	if err != nil {
		return err
	}
	defer l.close()
	if err := l.allowDelay(ctx, m.LogindDir, total(*m.priorities.Load())); err != nil {
		return err
	}
	inhibitor, err := l.inhibit(ctx)
	if err != nil {
		return err
	}
	defer func() { release(inhibitor) }()
	m.Logger.Info("shutdowns of the machine are delayed for its pods", "time", total(*m.priorities.Load()))
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-m.changed:
			priorities := *m.priorities.Load()
			m.Logger.Info("shutdowns of the machine are delayed for its pods", "time", total(priorities))
			if len(priorities) == 0 {
				return nil
			}
			if err := l.allowDelay(ctx, m.LogindDir, total(priorities)); err != nil {
				return err
			}
		case signal, ok := <-l.signals:
			if !ok {
				return nil
			}
			if len(signal.Body) == 0 {
				continue
			}
			switch begins, known := signal.Body[0].(bool); {
			case !known:
			case begins:
				m.end(ctx)
				release(inhibitor)
				inhibitor = nil
			default:
				m.resume()
				release(inhibitor)
				if inhibitor, err = l.inhibit(ctx); err != nil {
					return err
				}
			}
		}
	}
}

func release(inhibitor *os.File) {
	if inhibitor != nil {
		_ = inhibitor.Close()
	}
}

// resume takes on pods again after a shutdown was called off.
func (m *Manager) resume() {
	m.Logger.Info("the shutdown of the machine was called off")
	m.Events.Eventf(m.Node, v1.EventTypeNormal, eventReason, "Shutdown manager detected shutdown cancellation")
	m.ending.Store(false)
	m.Tell("")
}

// end ends the pods group by group.
func (m *Manager) end(ctx context.Context) {
	m.Logger.Info("the machine is shut down: ending its pods")
	m.Events.Eventf(m.Node, v1.EventTypeNormal, eventReason, "Shutdown manager detected shutdown event")
	m.ending.Store(true)
	m.Tell(nodeMessage)
	var active []*v1.Pod
	for _, pod := range m.Pods.Pods() {
		if pod.Status.Phase != v1.PodSucceeded && pod.Status.Phase != v1.PodFailed {
			active = append(active, pod)
		}
	}
	for _, g := range groups(*m.priorities.Load(), active) {
		m.endGroup(ctx, g)
	}
	m.Logger.Info("the pods of this node have ended, the shutdown goes on")
}

// endGroup waits until the pods of a group are down, but not longer than their time.
func (m *Manager) endGroup(ctx context.Context, g group) {
	if len(g.pods) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, g.grace)
	defer cancel()
	var wg sync.WaitGroup
	for _, pod := range g.pods {
		grace := int64(g.grace / time.Second)
		if own := pod.Spec.TerminationGracePeriodSeconds; own != nil {
			grace = min(grace, *own)
		}
		m.Pods.Evict(pod.UID, podstatus.Verdict{Reason: endedReason, Message: endedMessage, Disruption: endedMessage}, grace)
		wg.Go(func() {
			ticker := time.NewTicker(lookEvery)
			defer ticker.Stop()
			for !m.Pods.Down(pod.UID) {
				select {
				case <-ctx.Done():
					m.Logger.Warn("a pod did not end in time for the machine's shutdown", "pod", pod.Name, "namespace", pod.Namespace)
					return
				case <-ticker.C:
				}
			}
		})
	}
	wg.Wait()
}
