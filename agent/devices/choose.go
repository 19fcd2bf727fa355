package devices

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	pluginapi "k8s.io/kubelet/pkg/apis/deviceplugin/v1beta1"
)

// preferPatience is how long a plugin may think about which devices it would like to give.
const preferPatience = 2 * time.Second

// Admit chooses the devices of a pod's containers. active are the pods that hold devices besides. Containers that
// have their devices from before keep them. The error says what is missing.
func (m *Manager) Admit(ctx context.Context, pod *v1.Pod, active []*v1.Pod) error {
	m.mu.Lock()
	wants := m.wants(pod)
	if m.known {
		m.prune(pod.UID, active)
	}
	has := m.pods[pod.UID]
	m.mu.Unlock()
	if !wants {
		return nil
	}
	chosen := map[string]Grants{}
	reusable := map[string][]string{}
	each := func(c *v1.Container, keeps bool) error {
		for _, name := range slices.Sorted(maps.Keys(c.Resources.Limits)) {
			amount := c.Resources.Limits[name]
			needed := int(amount.Value())
			if !m.Managed(name) || needed == 0 {
				continue
			}
			if old := has[c.Name][string(name)]; old != nil {
				if len(old.IDs) != needed {
					return fmt.Errorf("pod %q container %q changed request for resource %q from %d to %d", pod.UID, c.Name, name, len(old.IDs), needed)
				}
				add(chosen, c.Name, string(name), old)
			} else {
				ids, err := m.choose(ctx, string(name), needed, reusable[string(name)], chosen)
				if err != nil {
					return err
				}
				add(chosen, c.Name, string(name), &Grant{IDs: ids})
			}
			ids := chosen[c.Name][string(name)].IDs
			rest := slices.DeleteFunc(slices.Clone(reusable[string(name)]), func(id string) bool { return slices.Contains(ids, id) })
			if !keeps {
				// An init container has ended before the next container starts.
				rest = append(rest, ids...)
			}
			reusable[string(name)] = rest
		}
		return nil
	}
	for i := range pod.Spec.InitContainers {
		c := &pod.Spec.InitContainers[i]
		if err := each(c, c.RestartPolicy != nil && *c.RestartPolicy == v1.ContainerRestartPolicyAlways); err != nil {
			return err
		}
	}
	for i := range pod.Spec.Containers {
		if err := each(&pod.Spec.Containers[i], true); err != nil {
			return err
		}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.pods[pod.UID] = chosen
	m.store()
	return nil
}

func add(to map[string]Grants, container, name string, g *Grant) {
	if to[container] == nil {
		to[container] = Grants{}
	}
	to[container][name] = g
}

func (m *Manager) wants(pod *v1.Pod) bool {
	for _, containers := range [][]v1.Container{pod.Spec.InitContainers, pod.Spec.Containers} {
		for i := range containers {
			for name := range containers[i].Resources.Limits {
				if m.managed(string(name)) {
					return true
				}
			}
		}
	}
	return false
}

// prune frees the devices of pods that have ended.
func (m *Manager) prune(self types.UID, active []*v1.Pod) {
	before := len(m.pods)
	for uid := range m.pods {
		if uid != self && !slices.ContainsFunc(active, func(p *v1.Pod) bool { return p.UID == uid }) {
			delete(m.pods, uid)
		}
	}
	if len(m.pods) != before {
		m.store()
	}
}

// choose picks working devices that nobody has: first those an earlier container of the pod is done with, then those
// the plugin prefers.
func (m *Manager) choose(ctx context.Context, name string, needed int, reusable []string, chosen map[string]Grants) ([]string, error) {
	m.mu.Lock()
	i := m.inventory[name]
	if i == nil || i.plugin == nil && len(i.devices) == 0 {
		m.mu.Unlock()
		return nil, fmt.Errorf("cannot allocate unregistered device %s", name)
	}
	healthy := map[string]bool{}
	for id := range i.devices {
		if i.healthy(id) {
			healthy[id] = true
		}
	}
	if len(healthy) == 0 {
		m.mu.Unlock()
		return nil, fmt.Errorf("no healthy devices present; cannot allocate unhealthy devices %s", name)
	}
	taken := map[string]bool{}
	note := func(containers map[string]Grants) {
		for _, grants := range containers {
			if g := grants[name]; g != nil {
				for _, id := range g.IDs {
					taken[id] = true
				}
			}
		}
	}
	for _, containers := range m.pods {
		note(containers)
	}
	note(chosen)
	p := i.plugin
	m.mu.Unlock()

	var ids []string
	for _, id := range reusable {
		if len(ids) < needed && healthy[id] {
			ids = append(ids, id)
		}
	}
	var free []string
	for _, id := range slices.Sorted(maps.Keys(healthy)) {
		if !taken[id] {
			free = append(free, id)
		}
	}
	rest := needed - len(ids)
	if len(free) < rest {
		return nil, fmt.Errorf("requested number of devices unavailable for %s. Requested: %d, Available: %d", name, rest, len(free))
	}
	if rest > 0 && rest < len(free) && p.options.GetGetPreferredAllocationAvailable() {
		for _, id := range m.preferred(ctx, p, free, ids, needed) {
			if len(ids) < needed && slices.Contains(free, id) && !slices.Contains(ids, id) {
				ids = append(ids, id)
			}
		}
	}
	for _, id := range free {
		if len(ids) < needed && !slices.Contains(ids, id) {
			ids = append(ids, id)
		}
	}
	return ids, nil
}

// preferred asks the plugin; no answer is as good as any.
func (m *Manager) preferred(ctx context.Context, p *plugin, free, must []string, needed int) []string {
	ctx, cancel := context.WithTimeout(ctx, preferPatience)
	defer cancel()
	answer, err := p.client.GetPreferredAllocation(ctx, &pluginapi.PreferredAllocationRequest{ContainerRequests: []*pluginapi.ContainerPreferredAllocationRequest{{
		AvailableDeviceIDs: append(slices.Clone(must), free...), MustIncludeDeviceIDs: must, AllocationSize: int32(needed),
	}}})
	if err == nil && len(answer.GetContainerResponses()) == 0 {
		err = errors.New("it answered nothing")
	}
	if err != nil {
		m.Logger.Warn("ask a device plugin for its preference; any device will do", "resource", p.resource, "error", err)
		return nil
	}
	return answer.GetContainerResponses()[0].GetDeviceIDs()
}
