package eviction

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	stats "k8s.io/kubelet/pkg/apis/stats/v1alpha1"

	"github.com/skiff-run/skiff/agent/podsource"
	"github.com/skiff-run/skiff/agent/podstatus"
	"github.com/skiff-run/skiff/agent/resources"
	"github.com/skiff-run/skiff/internal/config"
)

const (
	// every is how often the machine is looked at.
	every = 10 * time.Second
	// Evicted pods are waited for before the next is chosen.
	cleanUp     = 30 * time.Second
	cleanUpPoll = time.Second
	// atOnce is the grace period, in seconds, when there is no time.
	atOnce = 1
)

// Observer reads the signals of the machine.
type Observer interface {
	Observe(ctx context.Context) (Observations, error)
	DedicatedImageFs(ctx context.Context) (bool, error)
}

// Pods are the pods of this node.
type Pods interface {
	Pods() []*v1.Pod
	// Evict ends a pod with a verdict and a grace period in seconds.
	Evict(uid types.UID, verdict podstatus.Verdict, grace int64)
}

// Recorder writes events; client-go's is one.
type Recorder interface {
	Eventf(object runtime.Object, eventType, reason, messageFormat string, args ...any)
	AnnotatedEventf(object runtime.Object, annotations map[string]string, eventType, reason, messageFormat string, args ...any)
}

// Limits say when pods are evicted, and how.
type Limits struct {
	Thresholds []config.Threshold
	// EnforcePods: the pods together are held to what is allocatable.
	EnforcePods bool
	// Transition is how long a condition outlasts the pressure.
	Transition time.Duration
	// MaxGrace bounds the grace period for soft thresholds, in seconds.
	MaxGrace int64
}

// Config of a Manager.
type Config struct {
	Limits
	Machine Observer
	Pods    Pods
	// Usage measures the pods.
	Usage func(ctx context.Context) map[string]*stats.PodStats
	// FreeDisk removes what nobody needs from the disk: ended containers and unused images.
	FreeDisk func(ctx context.Context) error
	// Changed is called when the node's conditions change.
	Changed func()
	Events  Recorder
	Node    runtime.Object
	Logger  *slog.Logger
	Now     func() time.Time
	// Every is how often the machine is looked at; 0: 10 s.
	Every time.Duration
}

// Manager looks at the machine and evicts.
type Manager struct {
	Config
	state state
	// dedicated is nil until it is known.
	dedicated *bool
	// next are limits that the next look takes up; wake makes that come at once.
	next atomic.Pointer[Limits]
	wake chan struct{}

	// mu guards conditions.
	mu         sync.Mutex
	conditions []v1.NodeConditionType
}

// NewManager returns a manager.
func NewManager(c Config) *Manager {
	if c.Every == 0 {
		c.Every = every
	}
	m := &Manager{Config: c, wake: make(chan struct{}, 1)}
	m.limit(c.Limits)
	return m
}

// SetLimits changes the limits. It looks at the machine by them at once.
func (m *Manager) SetLimits(limits Limits) {
	m.next.Store(&limits)
	select {
	case m.wake <- struct{}{}:
	default:
	}
}

// limit has the next look go by the limits.
func (m *Manager) limit(limits Limits) {
	if limits.EnforcePods {
		limits.Thresholds = withAllocatable(limits.Thresholds)
	}
	m.Limits = limits
	m.state.limit(limits.Thresholds, limits.Transition)
}

// Conditions are the pressures of the node.
func (m *Manager) Conditions() []v1.NodeConditionType {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.conditions
}

// Admit refuses pods that would make the pressure worse.
func (m *Manager) Admit(pod *v1.Pod) (reason, message string, ok bool) {
	conditions := m.Conditions()
	if len(conditions) == 0 || podsource.IsCritical(pod) {
		return "", "", true
	}
	if len(conditions) == 1 && conditions[0] == v1.NodeMemoryPressure {
		if resources.QOSClass(pod) != v1.PodQOSBestEffort || toleratesMemoryPressure(pod) {
			return "", "", true
		}
	}
	return Reason, fmt.Sprintf("The node had condition: %v. ", conditions), false
}

func toleratesMemoryPressure(pod *v1.Pod) bool {
	taint := v1.Taint{Key: v1.TaintNodeMemoryPressure, Effect: v1.TaintEffectNoSchedule}
	return slices.ContainsFunc(pod.Spec.Tolerations, func(t v1.Toleration) bool {
		return (t.Effect == "" || t.Effect == taint.Effect) && (t.Key == "" || t.Key == taint.Key) &&
			(t.Operator == v1.TolerationOpExists || t.Key != "" && t.Value == taint.Value)
	})
}

// Run looks at the machine until ctx ends.
func (m *Manager) Run(ctx context.Context) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		case <-m.wake:
		}
		if limits := m.next.Swap(nil); limits != nil {
			m.limit(*limits)
		}
		evicted, err := m.look(ctx)
		if err != nil && ctx.Err() == nil {
			m.Logger.Warn("look for pressure on the machine", "error", err)
		}
		wait := m.Every
		if len(evicted) > 0 {
			m.await(ctx, evicted)
			wait = 0
		}
		timer.Reset(wait)
	}
}

// look looks once, and returns the pods it evicted.
func (m *Manager) look(ctx context.Context) ([]types.UID, error) {
	if m.dedicated == nil {
		dedicated, err := m.Machine.DedicatedImageFs(ctx)
		if err != nil {
			return nil, err
		}
		m.dedicated = &dedicated
	}
	seen, err := m.Machine.Observe(ctx)
	act, conditions := m.state.look(seen, m.Now())
	m.mu.Lock()
	changed := !slices.Equal(m.conditions, conditions)
	m.conditions = conditions
	m.mu.Unlock()
	if changed {
		m.Logger.Info("pressure on the machine", "conditions", conditions)
		m.Changed()
	}
	active := m.active()
	if evicted := m.enforceDisk(ctx, active); len(evicted) > 0 {
		return evicted, err
	}
	if len(act) == 0 {
		return nil, err
	}
	return m.relieve(ctx, act, seen, active), err
}

// active are the pods that may be ended.
func (m *Manager) active() []*v1.Pod {
	return slices.DeleteFunc(m.Pods.Pods(), func(p *v1.Pod) bool { return p.Status.Phase == v1.PodSucceeded || p.Status.Phase == v1.PodFailed })
}

// enforceDisk evicts the pods that take more of the disk than they may.
func (m *Manager) enforceDisk(ctx context.Context, active []*v1.Pod) []types.UID {
	if !slices.ContainsFunc(active, limitsDisk) {
		return nil
	}
	used := m.Usage(ctx)
	var evicted []types.UID
	for _, pod := range active {
		u := used[string(pod.UID)]
		if u == nil {
			continue
		}
		if why := beyondDisk(pod, u, *m.dedicated); why != "" && m.evict(pod, atOnce, why, nil, false) {
			evicted = append(evicted, pod.UID)
		}
	}
	return evicted
}

// relieve frees what the machine is shortest of: first without harm to any pod, then by ending one.
func (m *Manager) relieve(ctx context.Context, act []config.Threshold, seen Observations, active []*v1.Pod) []types.UID {
	threshold := act[0]
	name := resourceOf(threshold.Signal)
	m.Logger.Warn("the machine runs short", "signal", threshold.Signal, "available", seen[threshold.Signal].available().String())
	m.Events.Eventf(m.Node, v1.EventTypeWarning, "EvictionThresholdMet", "Attempting to reclaim %s", name)
	if m.freesDisk(threshold.Signal) {
		if err := m.FreeDisk(ctx); err != nil {
			m.Logger.Warn("free the disk", "error", err)
		}
		if after, err := m.Machine.Observe(ctx); err == nil && len(crossed(m.Thresholds, after, true)) == 0 {
			m.Logger.Info("the pressure is gone without an eviction", "resource", name)
			return nil
		}
	}
	used := m.Usage(ctx)
	rank(active, used, threshold.Signal, *m.dedicated)
	for _, pod := range active {
		grace := int64(atOnce)
		if threshold.GracePeriod > 0 {
			grace = m.MaxGrace
			if own := pod.Spec.TerminationGracePeriodSeconds; own != nil {
				grace = min(grace, *own)
			}
		}
		text, annotations := message(name, pod, used[string(pod.UID)], act, seen)
		if m.evict(pod, grace, text, annotations, true) {
			return []types.UID{pod.UID}
		}
	}
	m.Logger.Warn("no pod can be evicted", "resource", name)
	return nil
}

// freesDisk: removing images and ended containers helps.
func (m *Manager) freesDisk(signal string) bool {
	switch signal {
	case imagefsAvailable, imagefsInodes:
		return true
	case nodefsAvailable, nodefsInodes:
		return !*m.dedicated
	}
	return false
}

// evict ends a pod, unless the node cannot do without it.
func (m *Manager) evict(pod *v1.Pod, grace int64, why string, annotations map[string]string, pressure bool) bool {
	if podsource.IsCritical(pod) {
		m.Logger.Warn("cannot evict a critical pod", "pod", pod.Name, "namespace", pod.Namespace)
		return false
	}
	m.Logger.Warn("evicting pod", "pod", pod.Name, "namespace", pod.Namespace, "uid", pod.UID, "message", why)
	m.Events.AnnotatedEventf(pod, annotations, v1.EventTypeWarning, Reason, "%s", why)
	verdict := podstatus.Verdict{Reason: Reason, Message: why}
	if pressure {
		verdict.Disruption = why
	}
	m.Pods.Evict(pod.UID, verdict, grace)
	return true
}

// await waits until the evicted pods have ended: what they used is free only then.
func (m *Manager) await(ctx context.Context, evicted []types.UID) {
	ctx, cancel := context.WithTimeout(ctx, cleanUp)
	defer cancel()
	ticker := time.NewTicker(cleanUpPoll)
	defer ticker.Stop()
	for {
		running := m.active()
		if !slices.ContainsFunc(running, func(p *v1.Pod) bool { return slices.Contains(evicted, p.UID) }) {
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
	}
}
