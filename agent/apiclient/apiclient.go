// Package apiclient connects the agent to the control plane.
//
// It turns a kubeconfig and the list of control addresses into a client that
// speaks protobuf over one connection and moves to another address when the
// present one fails. Nothing else of the agent knows that there is more than
// one API server.
package apiclient

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
)

const (
	// dialTimeout bounds one attempt at one address.
	dialTimeout = 800 * time.Millisecond
	// silence is how long an unanswered connection is kept.
	silence = 4 * time.Second
	// serverName is in every API server's certificate.
	serverName = "kubernetes"

	protobuf = "application/vnd.kubernetes.protobuf"
)

// Load reads the kubeconfig. addresses are host:port of every API server;
// without any the kubeconfig's is the only one.
func Load(kubeconfig string, addresses []string, userAgent string) (*rest.Config, error) {
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
	if len(addresses) == 0 {
		addresses = []string{hostPort(server)}
	} else if len(addresses) > 1 && config.TLSClientConfig.ServerName == "" {
		config.TLSClientConfig.ServerName = serverName
	}
	config.Dial = NewDialer(addresses).DialContext
	return config, nil
}

func hostPort(u *url.URL) string {
	if u.Port() != "" {
		return u.Host
	}
	return net.JoinHostPort(u.Hostname(), "443")
}

// Dialer connects to any of several addresses: to the one that answered last
// as long as it answers, else to the next.
type Dialer struct {
	addresses []string
	current   atomic.Int64
	dial      func(ctx context.Context, network, address string) (net.Conn, error)
}

// NewDialer returns a dialer for the addresses, of which there must be one.
func NewDialer(addresses []string) *Dialer {
	d := &net.Dialer{
		Timeout:         dialTimeout,
		KeepAliveConfig: net.KeepAliveConfig{Enable: true, Idle: 3 * time.Second, Interval: time.Second, Count: 2},
		Control:         limitSilence,
	}
	return &Dialer{addresses: addresses, dial: d.DialContext}
}

// limitSilence makes the kernel give up a connection whose peer acknowledges
// nothing: a machine that lost its power sends no goodbye.
func limitSilence(_, _ string, c syscall.RawConn) error {
	var err error
	if controlErr := c.Control(func(fd uintptr) {
		err = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(silence.Milliseconds()))
	}); controlErr != nil {
		return controlErr
	}
	return err
}

// DialContext ignores the address it is asked for and connects to an API server.
func (d *Dialer) DialContext(ctx context.Context, network, _ string) (net.Conn, error) {
	var errs []error
	begin := d.current.Load()
	for i := range d.addresses {
		n := (begin + int64(i)) % int64(len(d.addresses))
		conn, err := d.dial(ctx, network, d.addresses[n])
		if err == nil {
			d.current.Store(n)
			return conn, nil
		}
		errs = append(errs, err)
		if ctx.Err() != nil {
			break
		}
	}
	return nil, errors.Join(errs...)
}
