// Package deviceplugin is a device plugin for tests: its devices are what the test says they are.
package deviceplugin

import (
	"context"
	"fmt"
	"net"
	"path/filepath"
	"slices"
	"sync"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	pluginapi "k8s.io/kubelet/pkg/apis/deviceplugin/v1beta1"
)

// Plugin serves one resource. Its methods may be called from many goroutines.
type Plugin struct {
	pluginapi.UnimplementedDevicePluginServer
	resource, socket string
	server           *grpc.Server

	mu       sync.Mutex
	devices  map[string]string
	changed  chan struct{}
	calls    []string
	refusing error
}

// Start serves a plugin at a socket in dir, beside the agent's.
func Start(dir, resource string, devices ...string) (*Plugin, error) {
	p := &Plugin{resource: resource, socket: filepath.Join(dir, "test.sock"), server: grpc.NewServer(), devices: map[string]string{}, changed: make(chan struct{})}
	for _, id := range devices {
		p.devices[id] = pluginapi.Healthy
	}
	listener, err := net.Listen("unix", p.socket)
	if err != nil {
		return nil, err
	}
	pluginapi.RegisterDevicePluginServer(p.server, p)
	go func() { _ = p.server.Serve(listener) }() // ends with Stop
	return p, nil
}

// Register tells the agent of the plugin.
func (p *Plugin) Register(ctx context.Context) error {
	return Register(ctx, filepath.Dir(p.socket), &pluginapi.RegisterRequest{Version: pluginapi.Version, Endpoint: filepath.Base(p.socket), ResourceName: p.resource})
}

// Register sends any registration to the agent in dir.
func Register(ctx context.Context, dir string, request *pluginapi.RegisterRequest) error {
	conn, err := grpc.NewClient("unix://"+filepath.Join(dir, "kubelet.sock"), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return err
	}
	defer conn.Close()
	_, err = pluginapi.NewRegistrationClient(conn).Register(ctx, request)
	return err
}

// Stop ends the plugin.
func (p *Plugin) Stop() { p.server.Stop() }

// SetHealth changes the health of a device.
func (p *Plugin) SetHealth(id, health string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.devices[id] = health
	close(p.changed)
	p.changed = make(chan struct{})
}

// Refuse makes allocations fail; nil ends that.
func (p *Plugin) Refuse(err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.refusing = err
}

// Calls are what the plugin was asked.
func (p *Plugin) Calls() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.calls)
}

func (p *Plugin) note(format string, args ...any) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.calls = append(p.calls, fmt.Sprintf(format, args...))
	return p.refusing
}

// GetDevicePluginOptions implements the plugin's service.
func (p *Plugin) GetDevicePluginOptions(context.Context, *pluginapi.Empty) (*pluginapi.DevicePluginOptions, error) {
	return &pluginapi.DevicePluginOptions{PreStartRequired: true, GetPreferredAllocationAvailable: true}, nil
}

// ListAndWatch implements the plugin's service.
func (p *Plugin) ListAndWatch(_ *pluginapi.Empty, stream grpc.ServerStreamingServer[pluginapi.ListAndWatchResponse]) error {
	for {
		p.mu.Lock()
		list := &pluginapi.ListAndWatchResponse{}
		for id, health := range p.devices {
			list.Devices = append(list.Devices, &pluginapi.Device{ID: id, Health: health})
		}
		changed := p.changed
		p.mu.Unlock()
		if err := stream.Send(list); err != nil {
			return err
		}
		select {
		case <-changed:
		case <-stream.Context().Done():
			return nil
		}
	}
}

// GetPreferredAllocation implements the plugin's service: it prefers the last.
func (p *Plugin) GetPreferredAllocation(_ context.Context, r *pluginapi.PreferredAllocationRequest) (*pluginapi.PreferredAllocationResponse, error) {
	one := r.GetContainerRequests()[0]
	ids := slices.Sorted(slices.Values(one.GetAvailableDeviceIDs()))
	return &pluginapi.PreferredAllocationResponse{ContainerResponses: []*pluginapi.ContainerPreferredAllocationResponse{
		{DeviceIDs: ids[len(ids)-int(one.GetAllocationSize()):]},
	}}, nil
}

// Allocate implements the plugin's service: a device is /dev/null under another name.
func (p *Plugin) Allocate(_ context.Context, r *pluginapi.AllocateRequest) (*pluginapi.AllocateResponse, error) {
	ids := slices.Sorted(slices.Values(r.GetContainerRequests()[0].GetDevicesIds()))
	if err := p.note("allocate %v", ids); err != nil {
		return nil, err
	}
	one := &pluginapi.ContainerAllocateResponse{
		Envs: map[string]string{"TEST_DEVICES": fmt.Sprint(ids)}, Annotations: map[string]string{"test.example/devices": fmt.Sprint(ids)},
		Mounts: []*pluginapi.Mount{{ContainerPath: "/driver", HostPath: filepath.Dir(p.socket), ReadOnly: true}},
	}
	for _, id := range ids {
		one.Devices = append(one.Devices, &pluginapi.DeviceSpec{ContainerPath: "/dev/test-" + id, HostPath: "/dev/null", Permissions: "rw"})
	}
	return &pluginapi.AllocateResponse{ContainerResponses: []*pluginapi.ContainerAllocateResponse{one}}, nil
}

// PreStartContainer implements the plugin's service.
func (p *Plugin) PreStartContainer(_ context.Context, r *pluginapi.PreStartContainerRequest) (*pluginapi.PreStartContainerResponse, error) {
	return &pluginapi.PreStartContainerResponse{}, p.note("prestart %v", slices.Sorted(slices.Values(r.GetDevicesIds())))
}
