package devices

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation"
	pluginapi "k8s.io/kubelet/pkg/apis/deviceplugin/v1beta1"
)

const (
	// socketName is where plugins look for the agent.
	socketName = "kubelet.sock"
	// connectPatience is how long a plugin that registers may take to answer.
	connectPatience = 10 * time.Second
)

// plugin is one connection to a plugin.
type plugin struct {
	resource string
	conn     *grpc.ClientConn
	client   pluginapi.DevicePluginClient
	options  *pluginapi.DevicePluginOptions
}

func (p *plugin) close() { _ = p.conn.Close() }

// registry answers plugins that register.
type registry struct {
	pluginapi.UnimplementedRegistrationServer
	manager *Manager
	// ctx ends with the manager, and so do the watches begun by a registration.
	ctx context.Context
}

// serve listens for plugins. Sockets of an earlier run are removed first: plugins take that as the sign to register anew.
func (m *Manager) serve(ctx context.Context) error {
	if err := os.MkdirAll(m.Dir, 0o750); err != nil {
		return fmt.Errorf("make the directory of device plugins: %w", err)
	}
	entries, err := os.ReadDir(m.Dir)
	if err != nil {
		return fmt.Errorf("list device plugins: %w", err)
	}
	for _, e := range entries {
		if e.Type()&fs.ModeSocket != 0 {
			if err := os.Remove(filepath.Join(m.Dir, e.Name())); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return fmt.Errorf("remove the socket of an earlier run: %w", err)
			}
		}
	}
	listener, err := net.Listen("unix", filepath.Join(m.Dir, socketName))
	if err != nil {
		return fmt.Errorf("listen for device plugins: %w", err)
	}
	server := grpc.NewServer()
	pluginapi.RegisterRegistrationServer(server, &registry{manager: m, ctx: ctx})
	m.wg.Go(func() {
		<-ctx.Done()
		server.Stop()
	})
	if err := server.Serve(listener); err != nil && ctx.Err() == nil {
		return fmt.Errorf("serve device plugins: %w", err)
	}
	return nil
}

// Register implements the registration service.
func (r *registry) Register(ctx context.Context, request *pluginapi.RegisterRequest) (*pluginapi.Empty, error) {
	name := request.GetResourceName()
	switch {
	case !slices.Contains(pluginapi.SupportedVersions[:], request.GetVersion()):
		return nil, status.Errorf(codes.InvalidArgument, "requested API version %q is not supported by kubelet. Supported version is %q", request.GetVersion(), pluginapi.SupportedVersions)
	case !extended(name):
		return nil, status.Errorf(codes.InvalidArgument, "the ResourceName %q is invalid", name)
	case request.GetEndpoint() == "" || filepath.Base(request.GetEndpoint()) != request.GetEndpoint() || request.GetEndpoint() == socketName:
		return nil, status.Errorf(codes.InvalidArgument, "the Endpoint %q is no name of a socket in %s", request.GetEndpoint(), r.manager.Dir)
	}
	if err := r.manager.connect(ctx, r.ctx, name, filepath.Join(r.manager.Dir, request.GetEndpoint())); err != nil {
		r.manager.Logger.Warn("device plugin registered and cannot be reached", "resource", name, "error", err)
		return nil, status.Error(codes.Unavailable, err.Error())
	}
	return &pluginapi.Empty{}, nil
}

// extended reports whether a name is one of a resource that Kubernetes itself does not define.
func extended(name string) bool {
	domain, _, qualified := strings.Cut(name, "/")
	return qualified && !strings.Contains(domain+"/", "kubernetes.io/") && !strings.HasPrefix(name, v1.DefaultResourceRequestsPrefix) &&
		len(validation.IsQualifiedName(v1.DefaultResourceRequestsPrefix+name)) == 0
}

// connect makes the plugin at the socket that of the resource, and watches its devices while ctx lives.
func (m *Manager) connect(asking, ctx context.Context, name, socket string) error {
	conn, err := grpc.NewClient("unix://"+socket, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return fmt.Errorf("connect to %s: %w", socket, err)
	}
	p := &plugin{resource: name, conn: conn, client: pluginapi.NewDevicePluginClient(conn)}
	asking, cancel := context.WithTimeout(asking, connectPatience)
	defer cancel()
	if p.options, err = p.client.GetDevicePluginOptions(asking, &pluginapi.Empty{}, grpc.WaitForReady(true)); err != nil {
		p.close()
		return fmt.Errorf("ask %s for its options: %w", socket, err)
	}
	m.connected(p)
	m.mu.Lock()
	m.store()
	m.mu.Unlock()
	m.Logger.Info("device plugin registered", "resource", name, "socket", socket)
	m.wg.Go(func() {
		defer p.close()
		err := m.watch(ctx, p)
		m.disconnected(p)
		if ctx.Err() == nil {
			m.Logger.Warn("device plugin is gone", "resource", name, "error", err)
		}
	})
	return nil
}

// watch takes over what the plugin lists until it ends.
func (m *Manager) watch(ctx context.Context, p *plugin) error {
	stream, err := p.client.ListAndWatch(ctx, &pluginapi.Empty{})
	if err != nil {
		return err
	}
	for {
		list, err := stream.Recv()
		if err != nil {
			return err
		}
		m.update(p, list.GetDevices())
	}
}
