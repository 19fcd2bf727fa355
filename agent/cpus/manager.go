package cpus

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"sync"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/cpuset"

	"github.com/skiff-run/skiff/agent/resources"
)

// Config of a Manager.
type Config struct {
	// Static: processors are given away. Without, the manager only makes sure that none were.
	Static   bool
	Topology Topology
	// Reserved processors are never given away; everybody shares them.
	Reserved cpuset.CPUSet
	// File keeps who has which processor.
	File   string
	Logger *slog.Logger
	// Changed is called when the shared processors changed. It must not block.
	Changed func()
}

// Manager knows who has which processor. Its methods may be called from many goroutines.
type Manager struct {
	Config

	// mu guards what follows.
	mu    sync.Mutex
	pods  map[types.UID]map[string]cpuset.CPUSet
	known bool
}

// saved is the content of the file; sets are written as lists such as 1-3,5.
type saved struct {
	Policy string                          `json:"policy"`
	Pods   map[types.UID]map[string]string `json:"pods,omitempty"`
}

func (c Config) policy() string {
	if c.Static {
		return "static"
	}
	return "none"
}

// New reads who has which processor. It fails when that does not fit the policy or the machine.
func New(c Config) (*Manager, error) {
	m := &Manager{Config: c, pods: map[types.UID]map[string]cpuset.CPUSet{}}
	if c.Static && c.Topology.All().Difference(c.Reserved).IsEmpty() {
		return nil, fmt.Errorf("the static CPU manager policy has nothing to give: all processors are reserved")
	}
	data, err := os.ReadFile(c.File)
	if errors.Is(err, fs.ErrNotExist) {
		return m, nil
	}
	var s saved
	if err == nil {
		err = json.Unmarshal(data, &s)
	}
	if err != nil {
		return nil, fmt.Errorf("read who has which processor: %w; drain this node and delete %s", err, c.File)
	}
	if s.Policy != c.policy() && len(s.Pods) > 0 {
		return nil, fmt.Errorf("configured policy %q differs from state checkpoint policy %q: drain this node and delete the CPU manager checkpoint file %s", c.policy(), s.Policy, c.File)
	}
	all := c.Topology.All()
	for uid, containers := range s.Pods {
		m.pods[uid] = map[string]cpuset.CPUSet{}
		for name, list := range containers {
			set, err := cpuset.Parse(list)
			if err != nil || !set.IsSubsetOf(all) {
				return nil, fmt.Errorf("processors %q of container %s are not all of this machine, which has %s: drain this node and delete %s", list, name, all, c.File)
			}
			m.pods[uid][name] = set
		}
	}
	return m, nil
}

// Known tells that all pods of this node were admitted once: processors of others are free.
func (m *Manager) Known() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.known = true
}

// Exclusive returns the processors a container has for itself, or "".
func (m *Manager) Exclusive(pod *v1.Pod, container *v1.Container) string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.pods[pod.UID][container.Name].String()
}

// Shared returns the processors of containers that have none for themselves; "" without the static policy.
func (m *Manager) Shared() string {
	if !m.Static {
		return ""
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.shared().String()
}

func (m *Manager) shared() cpuset.CPUSet {
	rest := m.Topology.All()
	for _, containers := range m.pods {
		for _, set := range containers {
			rest = rest.Difference(set)
		}
	}
	return rest
}

// wanted is how many exclusive processors a container gets.
func wanted(pod *v1.Pod, c *v1.Container) int {
	request := c.Resources.Requests[v1.ResourceCPU]
	if resources.QOSClass(pod) != v1.PodQOSGuaranteed || pod.Spec.Resources != nil || request.MilliValue()%1000 != 0 {
		return 0
	}
	return int(request.Value())
}

// Admit gives a pod its processors. active are the pods that hold some besides.
func (m *Manager) Admit(pod *v1.Pod, active []*v1.Pod) error {
	if !m.Static {
		return nil
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	changed := m.prune(pod.UID, active)
	if m.pods[pod.UID] != nil {
		m.settle(changed)
		return nil // from before the agent was restarted
	}
	given := map[string]cpuset.CPUSet{}
	reusable, held := cpuset.New(), cpuset.New()
	each := func(c *v1.Container, keeps bool) error {
		n := wanted(pod, c)
		if n == 0 {
			return nil
		}
		available := m.shared().Difference(m.Reserved).Difference(held)
		set, _ := m.Topology.take(reusable, min(n, reusable.Size()))
		more, ok := m.Topology.take(available.Difference(reusable), n-set.Size())
		if !ok {
			return fmt.Errorf("not enough cpus available to satisfy request: requested=%d, available=%d", n, available.Union(reusable).Size())
		}
		set = set.Union(more)
		given[c.Name] = set
		if keeps {
			held, reusable = held.Union(set), reusable.Difference(set)
		} else {
			reusable = reusable.Union(set)
		}
		return nil
	}
	for i := range pod.Spec.InitContainers {
		c := &pod.Spec.InitContainers[i]
		if err := each(c, c.RestartPolicy != nil && *c.RestartPolicy == v1.ContainerRestartPolicyAlways); err != nil {
			m.settle(changed)
			return err
		}
	}
	for i := range pod.Spec.Containers {
		if err := each(&pod.Spec.Containers[i], true); err != nil {
			m.settle(changed)
			return err
		}
	}
	if len(given) > 0 {
		m.pods[pod.UID] = given
	}
	m.settle(changed || len(given) > 0)
	return nil
}

// Release takes a pod's processors back.
func (m *Manager) Release(uid types.UID) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.pods[uid] != nil {
		delete(m.pods, uid)
		m.settle(true)
	}
}

// Prune takes the processors of pods back that are not active any more.
func (m *Manager) Prune(active []*v1.Pod) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.settle(m.prune("", active))
}

func (m *Manager) prune(self types.UID, active []*v1.Pod) (changed bool) {
	if !m.known {
		return false
	}
	for _, uid := range slices.Collect(maps.Keys(m.pods)) {
		if uid != self && !slices.ContainsFunc(active, func(p *v1.Pod) bool { return p.UID == uid }) {
			delete(m.pods, uid)
			changed = true
		}
	}
	return changed
}

// settle stores what changed and tells of it. It is called with mu held.
func (m *Manager) settle(changed bool) {
	if !changed {
		return
	}
	s := saved{Policy: m.policy(), Pods: map[types.UID]map[string]string{}}
	for uid, containers := range m.pods {
		s.Pods[uid] = map[string]string{}
		for name, set := range containers {
			s.Pods[uid][name] = set.String()
		}
	}
	data, err := json.Marshal(s)
	temporary := filepath.Join(filepath.Dir(m.File), "."+filepath.Base(m.File))
	if err == nil {
		err = os.WriteFile(temporary, data, 0o600)
	}
	if err == nil {
		err = os.Rename(temporary, m.File)
	}
	if err != nil {
		m.Logger.Error("keep who has which processor", "error", err)
	}
	m.Changed()
}
