// Package apiclient connects agent and proxy to the control plane.
//
// It turns a kubeconfig and what is known of the control machines into a client
// that speaks protobuf over one connection, learns of further API servers from
// those it reaches, and moves to another when the present one fails. Nothing
// else of agent and proxy knows that there is more than one.
package apiclient

import (
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
)

const (
	// serverName is in every API server's certificate.
	serverName = "kubernetes"
	protobuf   = "application/vnd.kubernetes.protobuf"
	// serversFile is beside the kubeconfig and holds the addresses learnt last,
	// one a line: after a restart the kubeconfig's server may be gone.
	serversFile = "servers"
)

// Connection is the way to the control plane. Its methods may be called from
// several goroutines.
type Connection struct {
	// Config makes clients that use the connection.
	Config *rest.Config

	dialer     *Dialer
	configured []string
	remembered string
	logger     *slog.Logger
}

// Load reads the kubeconfig and prepares a client. addresses are host:port of
// API servers besides the kubeconfig's own.
func Load(kubeconfig string, addresses []string, userAgent string, logger *slog.Logger) (*Connection, error) {
	config, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	if err != nil {
		return nil, fmt.Errorf("kubeconfig %s: %w", kubeconfig, err)
	}
	server, err := url.Parse(config.Host)
	if err != nil || server.Host == "" {
		return nil, fmt.Errorf("kubeconfig %s: server %q is not a URL", kubeconfig, config.Host)
	}
	config.UserAgent = userAgent
	config.ContentType = protobuf
	config.AcceptContentTypes = protobuf + ",application/json"
	config.QPS, config.Burst = 100, 200
	if config.TLSClientConfig.ServerName == "" {
		config.TLSClientConfig.ServerName = serverName
	}
	if err := impatience(); err != nil {
		return nil, err
	}
	c := &Connection{
		Config: config, configured: unique(append([]string{hostPort(server)}, addresses...)),
		remembered: filepath.Join(filepath.Dir(kubeconfig), serversFile), logger: logger,
	}
	c.dialer = NewDialer(c.configured)
	c.dialer.patience = patience
	c.dialer.moved = func(address string) { logger.Info("moving to another API server", "address", address) }
	if data, err := os.ReadFile(c.remembered); err == nil {
		c.dialer.Set(unique(append(slices.Clone(c.configured), strings.Fields(string(data))...)))
	}
	config.Dial = c.dialer.DialContext
	config.Wrap(func(next http.RoundTripper) http.RoundTripper { return &judge{next: next, dialer: c.dialer} })
	return c, nil
}

// impatience makes HTTP/2 ask a silent API server for a sign of life: one that
// is paused holds its connections open for ever. client-go takes these settings
// from the environment only; what an operator set stays.
func impatience() error {
	for name, seconds := range map[string]string{"HTTP2_READ_IDLE_TIMEOUT_SECONDS": "3", "HTTP2_PING_TIMEOUT_SECONDS": "2"} {
		if os.Getenv(name) == "" {
			if err := os.Setenv(name, seconds); err != nil {
				return fmt.Errorf("set %s: %w", name, err)
			}
		}
	}
	return nil
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
