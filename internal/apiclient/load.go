// Package apiclient connects agent and proxy to the control plane.
//
// It turns a kubeconfig and what is known of the control machines into a client
// that speaks protobuf over one connection, learns of further API servers from
// those it reaches, and moves to another when the present one fails. Nothing
// else of agent and proxy knows that there is more than one.
package apiclient

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sync/errgroup"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
)

const (
	// serverName is in every API server's certificate.
	serverName = "kubernetes"
	protobuf   = "application/vnd.kubernetes.protobuf"
	// serversFile is beside the kubeconfig and holds the addresses learnt last,
	// one a line: after a restart the kubeconfig's server may be gone.
	serversFile = "servers"
)

// Options of a connection.
type Options struct {
	// Kubeconfig holds the credentials and the address of an API server.
	Kubeconfig string
	// Addresses are host:port of API servers besides the kubeconfig's own.
	Addresses []string
	UserAgent string
	// Rotation gets the client certificate from the API; nil uses the
	// kubeconfig's, which somebody else renews.
	Rotation *Rotation
	Logger   *slog.Logger
}

// Connection is the way to the control plane. Its methods may be called from
// several goroutines.
type Connection struct {
	// Config makes clients that use the connection.
	Config *rest.Config

	kubeconfig string
	hostname   string
	client     kubernetes.Interface
	rotation   *Rotation
	rotating   *rotating
	dialer     *Dialer
	configured []string
	remembered string
	logger     *slog.Logger
}

// Load reads the kubeconfig and prepares a client. Nothing is sent before Run
// or a request.
func Load(o Options) (*Connection, error) {
	if o.Rotation != nil && o.Rotation.BootstrapKubeconfig != "" {
		if err := o.Rotation.adoptKubeconfig(o.Kubeconfig); err != nil {
			return nil, err
		}
	}
	file, err := readKubeconfig(o.Kubeconfig)
	if err != nil {
		return nil, err
	}
	server, err := url.Parse(file.server)
	if err != nil || server.Host == "" {
		return nil, fmt.Errorf("kubeconfig %s: server %q is not a URL", o.Kubeconfig, file.server)
	}
	c := &Connection{
		kubeconfig: o.Kubeconfig, hostname: server.Hostname(), rotation: o.Rotation,
		configured: unique(append([]string{hostPort(server)}, o.Addresses...)),
		remembered: filepath.Join(filepath.Dir(o.Kubeconfig), serversFile), logger: o.Logger,
	}
	c.dialer = NewDialer(c.configured)
	c.dialer.patience = patience
	c.dialer.moved = func(address string) { c.logger.Info("moving to another API server", "address", address) }
	if data, err := os.ReadFile(c.remembered); err == nil {
		c.dialer.Set(unique(append(slices.Clone(c.configured), strings.Fields(string(data))...)))
	}
	var shown credentials = file
	if o.Rotation != nil {
		c.rotating = &rotating{kubeconfigFile: file}
		shown = c.rotating
	}
	c.Config = c.restConfig(&transport{credentials: shown, dialer: c.dialer, hostname: c.hostname})
	c.Config.Host, c.Config.UserAgent = file.server, o.UserAgent
	if c.client, err = kubernetes.NewForConfig(c.Config); err != nil {
		return nil, fmt.Errorf("make client of %s: %w", file.server, err)
	}
	if o.Rotation != nil {
		if err := o.Rotation.begin(file.ca); err != nil {
			return nil, err
		}
		if c.rotating.manager, err = c.newManager(o.Rotation, file); err != nil {
			return nil, err
		}
	}
	return c, nil
}

func (c *Connection) restConfig(t *transport) *rest.Config {
	return &rest.Config{
		Host: "https://" + net.JoinHostPort(t.hostname, "443"), Transport: &judge{next: t, dialer: c.dialer}, QPS: 100, Burst: 200,
		ContentConfig: rest.ContentConfig{ContentType: protobuf, AcceptContentTypes: protobuf + ",application/json"},
	}
}

// Client is a client over the connection.
func (c *Connection) Client() kubernetes.Interface { return c.client }

// Run keeps the addresses of the API servers up to date, and the certificate
// and the trusted authorities if they are ours to keep, until ctx ends.
func (c *Connection) Run(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return c.Follow(ctx) })
	if c.rotating != nil {
		group.Go(func() error {
			c.followAuthorities(ctx)
			return nil
		})
		c.rotating.manager.Start()
		defer c.rotating.manager.Stop()
	}
	return group.Wait()
}

func hostPort(u *url.URL) string {
	if u.Port() != "" {
		return u.Host
	}
	return net.JoinHostPort(u.Hostname(), "443")
}

func unique(addresses []string) []string {
	var out []string
	for _, address := range addresses {
		if !slices.Contains(out, address) {
			out = append(out, address)
		}
	}
	return out
}
