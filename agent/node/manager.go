package node

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"sync"
	"sync/atomic"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/resourceversion"
	"k8s.io/client-go/kubernetes"
	"k8s.io/component-helpers/apimachinery/lease"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	"k8s.io/utils/clock"

	"github.com/skiff-run/skiff/agent/event"
	"github.com/skiff-run/skiff/internal/activity"
)

const (
	// lookEvery is how often the machine is looked at, starting how often
	// until it is ready for the first time.
	lookEvery    = 10 * time.Second
	lookStarting = 100 * time.Millisecond
	// contradictAfter is how long the manager waits after a write before it
	// contradicts somebody else: two agents of one name must not fight without pause.
	contradictAfter = time.Second
	// heartbeat is how often the status is written though nothing changed.
	heartbeat = 5 * time.Minute
	// The lease: how long it lasts and how often it is renewed.
	leaseSeconds = 40
	leaseRenewal = 5 * time.Second
	// maxImageNames bounds the names of one image in the status.
	maxImageNames = 5
)

// Runtime is what the node's status needs of the runtime.
type Runtime interface {
	Version(ctx context.Context, apiVersion string) (*runtimeapi.VersionResponse, error)
	Status(ctx context.Context, verbose bool) (*runtimeapi.StatusResponse, error)
	ListImages(ctx context.Context, filter *runtimeapi.ImageFilter) ([]*runtimeapi.Image, error)
}

// Config of a Manager.
type Config struct {
	Client  kubernetes.Interface
	Runtime Runtime
	Events  event.Recorder
	Logger  *slog.Logger
	Name    string
	IP      net.IP
	// Labels and Taints the Node object is registered with. Afterwards they are the cluster's.
	Labels map[string]string
	Taints []v1.Taint
	// VolumesInUse names the volumes that have to stay attached; nil for none.
	VolumesInUse func() []v1.UniqueVolumeName
	// Annotations the node keeps on its object.
	Annotations map[string]string
	Port        int32
	// Devices are those of plugins: how many there are, and how many of them work; nil: there are none.
	Devices func() (capacity, allocatable v1.ResourceList)
	// Pressure tells what the machine runs short of.
	Pressure func() Pressure
	Facts    *Facts
	// MaxImages bounds the list of images in the status; negative for no bound.
	MaxImages int
}

// Manager keeps the Node object.
type Manager struct {
	Config
	wake chan struct{}
	// contradicted is sent to when somebody else changed what the manager reports.
	contradicted chan struct{}

	// mu guards node, the API's newest version.
	mu   sync.Mutex
	node *v1.Node
	// What follows belongs to the loop. wasReady is what the runtime said at the
	// last look, whether or not it was reported.
	wasReady  bool
	lastWrite time.Time
	// lastLook is when the loop last looked at the machine, in nanoseconds since 1970.
	lastLook atomic.Int64
	// round is the loop's look and its report.
	round activity.Activity
	// trouble says what keeps the node from being Ready, and unreported why the API
	// does not know what is; both empty when nothing does.
	trouble, unreported atomic.Value
	// ending says why the machine is about to stop, nil while it is not.
	ending    atomic.Pointer[string]
	tolerance tolerance
	images    []v1.ContainerImage
	imagesAt  time.Time
}

// NewManager returns a manager.
func NewManager(c Config) *Manager {
	return &Manager{Config: c, wake: make(chan struct{}, 1), contradicted: make(chan struct{}, 1)}
}

// Ref refers to the node in events.
func (m *Manager) Ref() *v1.ObjectReference {
	return &v1.ObjectReference{Kind: "Node", APIVersion: "v1", Name: m.Name, UID: types.UID(m.Name)}
}

// UID of the Node object, empty before it is registered.
func (m *Manager) UID() types.UID {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.node == nil {
		return ""
	}
	return m.node.UID
}

// Object returns the newest Node known, or nil.
func (m *Manager) Object() *v1.Node {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.node
}

// Observed tells the manager what the API has, nil when the object is gone. A
// watch may show an object later than the answer to our own write does, or
// earlier, so what is older than what is known is left aside, unless it was
// listed: after a restore the API's versions begin anew. When somebody else
// changed what the manager reports, it looks at the machine at once.
func (m *Manager) Observed(node *v1.Node, listed bool) {
	m.mu.Lock()
	known := m.node
	stale := known != nil && node != nil && !listed && known.UID == node.UID && !newer(node, known)
	if !stale {
		m.node = node
	}
	m.mu.Unlock()
	switch {
	case stale:
	case node == nil:
		m.Wake()
	case known == nil || !unchanged(known, node):
		select {
		case m.contradicted <- struct{}{}:
		default:
		}
	}
}

// newer says whether a is a newer version of the node than b. The API's
// versions are numbers; what is none counts as newer.
func newer(a, b *v1.Node) bool {
	order, err := resourceversion.CompareResourceVersion(a.ResourceVersion, b.ResourceVersion)
	return err != nil || order > 0
}

// Wake makes the loop look at the machine at once.
func (m *Manager) Wake() {
	select {
	case m.wake <- struct{}{}:
	default:
	}
}

// HostIPs are the node's addresses.
func (m *Manager) HostIPs() []string { return []string{m.IP.String()} }

// Allocatable is what pods may use.
func (m *Manager) Allocatable() v1.ResourceList {
	list := m.Facts.Allocatable()
	if m.Devices != nil {
		_, devices := m.Devices()
		maps.Copy(list, devices)
	}
	return list
}

// Run registers the node and keeps its status and lease until ctx ends.
func (m *Manager) Run(ctx context.Context) {
	m.Events.Eventf(m.Ref(), v1.EventTypeNormal, event.Starting, "Starting kubelet.")
	var wg sync.WaitGroup
	defer wg.Wait()
	leased := false
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		case <-m.wake:
		case <-m.contradicted:
			if !m.wasReady {
				continue // the next look is near
			}
			if wait := contradictAfter - time.Since(m.lastWrite); wait > 0 {
				timer.Reset(wait)
				continue
			}
		}
		end := m.round.Begin()
		err := m.sync(ctx)
		end()
		m.unreported.Store(text(err))
		if err != nil {
			if ctx.Err() == nil {
				m.Logger.Warn("report the node's status; trying again", "node", m.Name, "error", err)
			}
			timer.Reset(time.Second)
			continue
		}
		if !leased {
			leased = true
			wg.Go(func() { m.renewLease(ctx) })
		}
		if m.wasReady {
			timer.Reset(lookEvery)
		} else {
			timer.Reset(lookStarting)
		}
	}
}

func (m *Manager) renewLease(ctx context.Context) {
	controller := lease.NewController(clock.RealClock{}, m.Client, m.Name, leaseSeconds, nil, leaseRenewal, m.Name, v1.NamespaceNodeLease, m.own)
	controller.Run(ctx)
}

// sync makes the Node object say what is.
func (m *Manager) sync(ctx context.Context) error {
	current := m.Object()
	if current == nil {
		var err error
		if current, err = m.register(ctx); err != nil {
			return err
		}
		m.Observed(current, true)
	}
	now := time.Now()
	next := current.DeepCopy()
	m.setMeta(next)
	m.setStatus(ctx, next, now)
	m.announce(current, next)
	due := now.Sub(m.lastWrite) >= heartbeat
	if !due && unchanged(current, next) {
		return nil
	}
	after, err := m.patch(ctx, current, next)
	if apierrors.IsNotFound(err) {
		m.Observed(nil, true)
		return nil
	}
	if err != nil {
		return err
	}
	m.lastWrite = now
	m.Observed(after, false)
	return nil
}

func (m *Manager) register(ctx context.Context) (*v1.Node, error) {
	node, err := m.Client.CoreV1().Nodes().Get(ctx, m.Name, metav1.GetOptions{})
	if err == nil || !apierrors.IsNotFound(err) {
		return node, err
	}
	node = &v1.Node{ObjectMeta: metav1.ObjectMeta{Name: m.Name, Labels: map[string]string{}}, Spec: v1.NodeSpec{Taints: m.Taints}}
	for k, v := range m.Labels {
		node.Labels[k] = v
	}
	m.setMeta(node)
	m.setStatus(ctx, node, time.Now())
	created, err := m.Client.CoreV1().Nodes().Create(ctx, node, metav1.CreateOptions{})
	if err != nil {
		return nil, fmt.Errorf("register node %s: %w", m.Name, err)
	}
	m.Logger.Info("node registered", "node", m.Name, "address", m.IP)
	return created, nil
}

// announce tells by event what turned.
func (m *Manager) announce(before, after *v1.Node) {
	if old := before.Status.NodeInfo.BootID; old != "" && old != after.Status.NodeInfo.BootID {
		m.Events.Eventf(m.Ref(), v1.EventTypeWarning, event.Rebooted, "Node %s has been rebooted, boot id: %s", m.Name, after.Status.NodeInfo.BootID)
	}
	names := map[v1.NodeConditionType][2]string{
		v1.NodeMemoryPressure: {"NodeHasInsufficientMemory", "NodeHasSufficientMemory"},
		v1.NodeDiskPressure:   {"NodeHasDiskPressure", "NodeHasNoDiskPressure"},
		v1.NodePIDPressure:    {"NodeHasInsufficientPID", "NodeHasSufficientPID"},
		v1.NodeReady:          {event.NodeReady, event.NodeNotReady},
	}
	for _, c := range after.Status.Conditions {
		old := conditionOf(before, c.Type)
		if pair, ours := names[c.Type]; ours && (old == nil || old.Status != c.Status) {
			reason := pair[1]
			if c.Status == v1.ConditionTrue {
				reason = pair[0]
			}
			if old == nil && reason == event.NodeNotReady {
				continue
			}
			m.Events.Eventf(m.Ref(), v1.EventTypeNormal, reason, "Node %s status is now: %s", m.Name, reason)
		}
	}
}

// own makes the Node object the owner of its lease.
func (m *Manager) own(l *coordinationv1.Lease) error {
	node := m.Object()
	if node == nil {
		return fmt.Errorf("node %s is not registered", m.Name)
	}
	l.OwnerReferences = []metav1.OwnerReference{{APIVersion: "v1", Kind: "Node", Name: m.Name, UID: node.UID}}
	return nil
}
