package devices

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/types"
	pluginapi "k8s.io/kubelet/pkg/apis/deviceplugin/v1beta1"
)

// forgottenAfter is how long the devices of a plugin that is gone still count as broken ones; then there are none.
const forgottenAfter = 5 * time.Minute

// Config of a Manager.
type Config struct {
	// Dir is where plugins and the agent have their sockets, /var/lib/kubelet/device-plugins on a usual node.
	Dir string
	// File keeps who has which device.
	File   string
	Logger *slog.Logger
	// Changed is called when the node's devices changed, Health when those of a pod did. They must not block.
	Changed func()
	Health  func(uid types.UID)
	Now     func() time.Time
}

// Manager knows the plugins, their devices and who has them. Its methods may be called from many goroutines.
type Manager struct {
	Config
	wg sync.WaitGroup

	// mu guards what follows. No plugin is called while it is held.
	mu        sync.Mutex
	inventory map[string]*inventory
	pods      map[types.UID]map[string]Grants
	// known: the pods of this node were read, so whoever is not among them has ended.
	known bool
}

// inventory is what there is of one resource.
type inventory struct {
	// plugin is nil while none is connected; left is since when.
	plugin  *plugin
	left    time.Time
	devices map[string]*pluginapi.Device
}

func (i *inventory) healthy(id string) bool {
	d := i.devices[id]
	return i.plugin != nil && d != nil && d.Health == pluginapi.Healthy
}

// Grants are the devices of one container, by resource.
type Grants map[string]*Grant

// Grant is what a container has of one resource.
type Grant struct {
	IDs []string `json:"ids"`
	// Answer is what the plugin said the container needs, encoded; nil before it was asked.
	Answer []byte `json:"answer,omitempty"`
}

// New reads who has which device. A file that cannot be read is an error: giving a device to two pods is worse than
// not starting.
func New(c Config) (*Manager, error) {
	m := &Manager{Config: c, inventory: map[string]*inventory{}, pods: map[types.UID]map[string]Grants{}}
	return m, m.load()
}

// Known tells that all pods of this node were admitted once: devices of others are free.
func (m *Manager) Known() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.known = true
}

// Managed reports whether a resource belongs to a plugin, present or not.
func (m *Manager) Managed(name v1.ResourceName) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.managed(string(name))
}

func (m *Manager) managed(name string) bool {
	if m.inventory[name] != nil {
		return true
	}
	for _, containers := range m.pods {
		for _, grants := range containers {
			if grants[name] != nil {
				return true
			}
		}
	}
	return false
}

// Capacity is how many devices there are, and how many of them work.
func (m *Manager) Capacity() (capacity, allocatable v1.ResourceList) {
	m.mu.Lock()
	defer m.mu.Unlock()
	capacity, allocatable = v1.ResourceList{}, v1.ResourceList{}
	for name, i := range m.inventory {
		all, healthy := int64(len(i.devices)), int64(0)
		for id := range i.devices {
			if i.healthy(id) {
				healthy++
			}
		}
		if i.plugin == nil && m.Now().Sub(i.left) >= forgottenAfter {
			all = 0
		}
		capacity[v1.ResourceName(name)] = *resource.NewQuantity(all, resource.DecimalSI)
		allocatable[v1.ResourceName(name)] = *resource.NewQuantity(healthy, resource.DecimalSI)
	}
	return capacity, allocatable
}

// Status tells which devices a container has and how they are.
func (m *Manager) Status(uid types.UID, container string) []v1.ResourceStatus {
	m.mu.Lock()
	defer m.mu.Unlock()
	grants := m.pods[uid][container]
	var list []v1.ResourceStatus
	for _, name := range slices.Sorted(maps.Keys(grants)) {
		status := v1.ResourceStatus{Name: v1.ResourceName(name)}
		for _, id := range grants[name].IDs {
			health := v1.ResourceHealthStatusHealthy
			if i := m.inventory[name]; i != nil && i.devices[id] != nil && !i.healthy(id) {
				health = v1.ResourceHealthStatusUnhealthy
			}
			status.Resources = append(status.Resources, v1.ResourceHealth{ResourceID: v1.ResourceID(id), Health: health})
		}
		list = append(list, status)
	}
	return list
}

// Granted returns all devices that are given away: by pod, container and resource. Used by the pod resources API.
func (m *Manager) Granted() map[types.UID]map[string]map[string][]string {
	m.mu.Lock()
	defer m.mu.Unlock()
	all := map[types.UID]map[string]map[string][]string{}
	for uid, containers := range m.pods {
		all[uid] = map[string]map[string][]string{}
		for container, grants := range containers {
			all[uid][container] = map[string][]string{}
			for name, g := range grants {
				all[uid][container][name] = slices.Clone(g.IDs)
			}
		}
	}
	return all
}

// Counted raises the amounts of a list to what pods have: a pod keeps its devices while a plugin is away.
func (m *Manager) Counted(list v1.ResourceList) v1.ResourceList {
	m.mu.Lock()
	defer m.mu.Unlock()
	given := map[string]map[string]bool{}
	for _, containers := range m.pods {
		for _, grants := range containers {
			for name, g := range grants {
				if given[name] == nil {
					given[name] = map[string]bool{}
				}
				for _, id := range g.IDs {
					given[name][id] = true
				}
			}
		}
	}
	for name, ids := range given {
		if q := list[v1.ResourceName(name)]; q.Value() < int64(len(ids)) {
			list[v1.ResourceName(name)] = *resource.NewQuantity(int64(len(ids)), resource.DecimalSI)
		}
	}
	return list
}

// Release takes a pod's devices back.
func (m *Manager) Release(uid types.UID) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.pods[uid] == nil {
		return
	}
	delete(m.pods, uid)
	m.store()
}

// update takes over what a plugin lists, and tells whom it concerns.
func (m *Manager) update(p *plugin, list []*pluginapi.Device) {
	m.mu.Lock()
	i := m.inventory[p.resource]
	if i == nil || i.plugin != p {
		m.mu.Unlock()
		return // another plugin has taken its place
	}
	before := i.devices
	i.devices = make(map[string]*pluginapi.Device, len(list))
	for _, d := range list {
		i.devices[d.ID] = d
	}
	var concerned []types.UID
	for uid, containers := range m.pods {
		for _, grants := range containers {
			if g := grants[p.resource]; g != nil && slices.ContainsFunc(g.IDs, func(id string) bool { return healthOf(before[id]) != healthOf(i.devices[id]) }) {
				concerned = append(concerned, uid)
			}
		}
	}
	m.mu.Unlock()
	m.Changed()
	for _, uid := range concerned {
		m.Health(uid)
	}
}

func healthOf(d *pluginapi.Device) string {
	if d == nil {
		return ""
	}
	return d.Health
}

// connected makes p the plugin of its resource.
func (m *Manager) connected(p *plugin) {
	m.mu.Lock()
	defer m.mu.Unlock()
	i := m.inventory[p.resource]
	if i == nil {
		i = &inventory{}
		m.inventory[p.resource] = i
	}
	if i.plugin != nil {
		i.plugin.close()
	}
	i.plugin, i.devices = p, map[string]*pluginapi.Device{}
}

// disconnected notes that the plugin is gone: its devices are no use without it.
func (m *Manager) disconnected(p *plugin) {
	m.mu.Lock()
	i := m.inventory[p.resource]
	ours := i != nil && i.plugin == p
	var concerned []types.UID
	if ours {
		i.plugin, i.left = nil, m.Now()
		for uid, containers := range m.pods {
			for _, grants := range containers {
				if grants[p.resource] != nil {
					concerned = append(concerned, uid)
				}
			}
		}
	}
	m.mu.Unlock()
	if !ours {
		return
	}
	m.Changed()
	for _, uid := range concerned {
		m.Health(uid)
	}
}

// current returns the connected plugin of a resource.
func (m *Manager) current(name string) (*plugin, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if i := m.inventory[name]; i != nil && i.plugin != nil {
		return i.plugin, nil
	}
	return nil, fmt.Errorf("the device plugin of %s is not connected", name)
}

// Run serves the registration socket until ctx ends.
func (m *Manager) Run(ctx context.Context) error {
	defer m.wg.Wait()
	return m.serve(ctx)
}
