// Package controllers runs the controllers of a cluster: kube-controller-manager's
// role, without its process.
//
// Every controller is a folder with one reconcile function on the skeleton of
// package reconcile; this package only says which there are, gives each a client
// in the name of its own service account, and starts and stops them together. They
// share the informers they are given, which share the API server's objects, so
// they keep no copy of the cluster. They write through the API like anybody, and
// run only where the store's leader is.
package controllers

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"time"

	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/rest"

	"golang.org/x/sync/errgroup"

	"github.com/skiff-run/skiff/control/controllers/nodeipam"
	"github.com/skiff-run/skiff/control/controllers/nodelifecycle"
	"github.com/skiff-run/skiff/internal/addresspool"
	"github.com/skiff-run/skiff/internal/pki"
)

// Config is what the controllers need from the API server's side, and what an
// operator may choose.
type Config struct {
	// ClientFor returns the configuration of a client which acts as the service
	// account of that name in kube-system.
	ClientFor func(serviceAccount string) *rest.Config
	// Informers is a factory that nobody has started for longer than the context
	// given to Run: Run starts what it needs of it, and all of it ends with the
	// context.
	Informers informers.SharedInformerFactory
	Logger    *slog.Logger

	// RootCA reads the PEM bundle by which pods verify the API server, which
	// changes while authorities are replaced; without it no ConfigMap is published.
	RootCA func() ([]byte, error)
	// Authority reads the authority that signs certificates; without it requests
	// for certificates wait.
	Authority func() (*pki.Authority, error)
	// PodCIDRs are cut into one block per node; without them nodes get no pod range.
	PodCIDRs []nodeipam.Pool
	// ServiceCIDRs are kept out of the nodes' pod ranges.
	ServiceCIDRs []netip.Prefix
	// LoadBalancerPool has the addresses of services of type LoadBalancer; without
	// it they wait for somebody else.
	LoadBalancerPool addresspool.Pool
	// Nodes says when a node is given up; the zero value means the defaults.
	Nodes nodelifecycle.Options
	// TerminatedPods is how many finished pods are kept; zero means the default, less
	// means all.
	TerminatedPods int
	// Rediscover is how often the garbage collector asks which kinds are served; zero
	// means every 30 s.
	Rediscover time.Duration
}

// controller is one of them, ready to run.
type controller interface {
	// Run works until ctx ends and returns when everything of it has stopped.
	Run(ctx context.Context) error
}

// Run runs all controllers until ctx ends, and returns when the last of their
// goroutines has.
func Run(ctx context.Context, config Config) error {
	config = config.withDefaults()
	made := make([]controller, len(all))
	for i, one := range all {
		var err error
		if made[i], err = one.make(config.part(one.serviceAccount)); err != nil {
			return fmt.Errorf("controller %s: %w", one.name, err)
		}
	}
	group, together := errgroup.WithContext(ctx)
	for i, one := range made {
		if one == nil {
			continue
		}
		group.Go(func() error {
			if err := one.Run(together); err != nil && together.Err() == nil {
				return fmt.Errorf("controller %s: %w", all[i].name, err)
			}
			return nil
		})
	}
	config.Informers.StartWithContext(ctx)
	err := group.Wait()
	if ctx.Err() != nil {
		// Otherwise others still use them, and to wait would be to wait for ever.
		config.Informers.Shutdown()
	}
	return err
}

func (c Config) withDefaults() Config {
	if c.Nodes == (nodelifecycle.Options{}) {
		c.Nodes = nodelifecycle.DefaultOptions()
	}
	if c.Rediscover == 0 {
		c.Rediscover = 30 * time.Second
	}
	return c
}

// part is what one controller is made of.
type part struct {
	Config
	rest *rest.Config
}

// part returns the configuration for the controller with that service account. Its
// client has no rate limit: it is in the API server's own process, which shares
// its time fairly by other means.
func (c Config) part(serviceAccount string) part {
	own := rest.CopyConfig(c.ClientFor(serviceAccount))
	own.QPS = -1
	c.Logger = c.Logger.With("controller", serviceAccount)
	return part{Config: c, rest: own}
}

func (p part) client() (kubernetes.Interface, error) {
	client, err := kubernetes.NewForConfig(p.rest)
	if err != nil {
		return nil, fmt.Errorf("make client: %w", err)
	}
	return client, nil
}

func (p part) metadata() (metadata.Interface, error) {
	client, err := metadata.NewForConfig(p.rest)
	if err != nil {
		return nil, fmt.Errorf("make metadata client: %w", err)
	}
	return client, nil
}
