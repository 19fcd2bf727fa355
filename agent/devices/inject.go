package devices

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"google.golang.org/protobuf/proto"
	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	pluginapi "k8s.io/kubelet/pkg/apis/deviceplugin/v1beta1"
)

const (
	allocatePatience = 30 * time.Second
	preStartPatience = pluginapi.KubeletPreStartContainerRPCTimeoutInSecs * time.Second
)

// Inject adds to a container's configuration what its devices need. The plugin is asked when the container is made for
// the first time, and before every start if it wishes so.
func (m *Manager) Inject(ctx context.Context, pod *v1.Pod, container string, config *runtimeapi.ContainerConfig) error {
	m.mu.Lock()
	grants := maps.Clone(m.pods[pod.UID][container])
	m.mu.Unlock()
	for _, name := range slices.Sorted(maps.Keys(grants)) {
		answer, err := m.answer(ctx, pod.UID, container, name, grants[name])
		if err != nil {
			return err
		}
		apply(answer, config)
		if err := m.preStart(ctx, name, grants[name].IDs); err != nil {
			return err
		}
	}
	return nil
}

// answer is what the plugin says about the devices, as kept from before or asked for now.
func (m *Manager) answer(ctx context.Context, uid types.UID, container, name string, g *Grant) (*pluginapi.ContainerAllocateResponse, error) {
	if g.Answer != nil {
		kept := &pluginapi.ContainerAllocateResponse{}
		if err := proto.Unmarshal(g.Answer, kept); err != nil {
			return nil, fmt.Errorf("read what the device plugin of %s said: %w", name, err)
		}
		return kept, nil
	}
	p, err := m.current(name)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, allocatePatience)
	defer cancel()
	response, err := p.client.Allocate(ctx, &pluginapi.AllocateRequest{ContainerRequests: []*pluginapi.ContainerAllocateRequest{{DevicesIds: g.IDs}}})
	if err == nil && len(response.GetContainerResponses()) != 1 {
		err = errors.New("no containers return in allocation response")
	}
	if err != nil {
		return nil, fmt.Errorf("device plugin of %s: allocate %v: %w", name, g.IDs, err)
	}
	answer := response.GetContainerResponses()[0]
	data, err := proto.Marshal(answer)
	if err != nil {
		return nil, fmt.Errorf("keep what the device plugin of %s said: %w", name, err)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.pods[uid][container][name] != nil {
		m.pods[uid][container][name] = &Grant{IDs: g.IDs, Answer: data}
		m.store()
	}
	return answer, nil
}

func (m *Manager) preStart(ctx context.Context, name string, ids []string) error {
	p, err := m.current(name)
	if err != nil {
		return nil // what it said is known; whether it wants to be asked is not
	}
	if !p.options.GetPreStartRequired() {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, preStartPatience)
	defer cancel()
	if _, err := p.client.PreStartContainer(ctx, &pluginapi.PreStartContainerRequest{DevicesIds: ids}); err != nil {
		return fmt.Errorf("device plugin PreStartContainer rpc failed with err: %w", err)
	}
	return nil
}

// apply adds a plugin's answer to a configuration. Variables the pod sets itself, and paths it mounts, win.
func apply(a *pluginapi.ContainerAllocateResponse, config *runtimeapi.ContainerConfig) {
	for _, name := range slices.Sorted(maps.Keys(a.GetEnvs())) {
		if !slices.ContainsFunc(config.Envs, func(e *runtimeapi.KeyValue) bool { return e.GetKey() == name }) {
			config.Envs = append(config.Envs, &runtimeapi.KeyValue{Key: name, Value: []byte(a.GetEnvs()[name])})
		}
	}
	for _, mount := range a.GetMounts() {
		if !slices.ContainsFunc(config.Mounts, func(have *runtimeapi.Mount) bool { return have.GetContainerPath() == mount.GetContainerPath() }) {
			config.Mounts = append(config.Mounts, &runtimeapi.Mount{ContainerPath: mount.GetContainerPath(), HostPath: mount.GetHostPath(), Readonly: mount.GetReadOnly()})
		}
	}
	for _, d := range a.GetDevices() {
		if !slices.ContainsFunc(config.Devices, func(have *runtimeapi.Device) bool { return have.GetContainerPath() == d.GetContainerPath() }) {
			config.Devices = append(config.Devices, &runtimeapi.Device{ContainerPath: d.GetContainerPath(), HostPath: d.GetHostPath(), Permissions: d.GetPermissions()})
		}
	}
	for name, value := range a.GetAnnotations() {
		if config.Annotations == nil {
			config.Annotations = map[string]string{}
		}
		if _, have := config.Annotations[name]; !have {
			config.Annotations[name] = value
		}
	}
	for _, d := range a.GetCdiDevices() {
		config.CDIDevices = append(config.CDIDevices, &runtimeapi.CDIDevice{Name: d.GetName()})
	}
}
