package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
	"k8s.io/apiserver/pkg/authentication/serviceaccount"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/skiff-run/skiff/control/apiserver"
	"github.com/skiff-run/skiff/control/controllers"
	"github.com/skiff-run/skiff/control/controllers/nodeipam"
	"github.com/skiff-run/skiff/control/scheduler"
	"github.com/skiff-run/skiff/internal/addresspool"
	"github.com/skiff-run/skiff/internal/config"
	"github.com/skiff-run/skiff/internal/pki"
	"github.com/skiff-run/skiff/raftstore"
)

// restartAfter is how long scheduler and controllers wait after they have
// failed together, before they are started again.
const restartAfter = time.Second

// handOverLimit bounds how long a member that stops waits for another to lead.
const handOverLimit = 3 * time.Second

// leader runs scheduler and controllers while this member leads the store.
type leader struct {
	configuration *config.Control
	store         *raftstore.Store
	server        *apiserver.Server
	logger        *slog.Logger
	working       atomic.Bool
	// pool are the addresses of load balancers; changed tells of others.
	pool    atomic.Pointer[[]string]
	changed chan struct{}
}

func newLeader(c *config.Control, store *raftstore.Store, logger *slog.Logger) *leader {
	l := &leader{configuration: c, store: store, logger: logger, changed: make(chan struct{}, 1)}
	l.pool.Store(&c.LoadBalancerPool)
	return l
}

// setPool changes the addresses that load balancers get from now on. Where
// scheduler and controllers run they begin anew, as after a change of leaders.
func (l *leader) setPool(pool []string) {
	if slices.Equal(*l.pool.Swap(&pool), pool) {
		return
	}
	select {
	case l.changed <- struct{}{}:
	default:
	}
}

// health says whether scheduler and controllers work here, or another member
// leads and runs its own.
func (l *leader) health(context.Context) error {
	if !l.store.IsLeader() || l.working.Load() {
		return nil
	}
	return errors.New("not running although this member leads the store")
}

// handOver makes another member lead before this one stops, while the API
// server still sends its clients away: scheduler and controllers go on there at once.
func (l *leader) handOver(ctx context.Context) {
	if status := l.store.Status(); !status.Leader || status.Voters < 2 {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, handOverLimit)
	defer cancel()
	if err := l.store.TransferLeadership(ctx, ""); err != nil {
		l.logger.Warn("could not hand leadership over; another member takes it when it misses this one", "error", err)
	}
}

// run follows leadership until ctx ends.
func (l *leader) run(ctx context.Context) error {
	subscription := l.store.Subscribe()
	defer subscription.Close()
	stop := func() {}
	defer func() { stop() }()
	for leading, was := l.store.IsLeader(), false; ; {
		if leading != was {
			stop()
			stop = func() {}
			if leading {
				stop = l.begin(ctx)
			}
			was = leading
		}
		subscription.Settled()
		select {
		case <-ctx.Done():
			return nil
		case leading = <-subscription.C:
		case <-l.changed:
			was = false
		}
	}
}

// begin starts the loops of a term; the function it returns ends them and
// returns when all have ended.
func (l *leader) begin(ctx context.Context) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for ctx.Err() == nil {
			err := l.work(ctx)
			l.working.Store(false)
			if ctx.Err() != nil {
				return
			}
			l.logger.Error("scheduler and controllers ended; starting them again", "error", err)
			select {
			case <-ctx.Done():
			case <-time.After(restartAfter):
			}
		}
	}()
	return func() {
		cancel()
		<-ended
	}
}

// work runs scheduler and controllers on informers of their own until ctx ends
// or one of them fails.
func (l *leader) work(ctx context.Context) error {
	if err := l.server.WaitBootstrapped(ctx); err != nil {
		return err
	}
	c := l.configuration
	client, err := kubernetes.NewForConfig(l.server.ClientFor(&user.DefaultInfo{Name: user.KubeScheduler, Groups: []string{user.AllAuthenticated}}))
	if err != nil {
		return fmt.Errorf("make the scheduler's client: %w", err)
	}
	factory := l.server.InformerFactory(l.server.Client())
	placing := scheduler.New(client, factory, l.logger)
	l.working.Store(true)
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error {
		pool, err := addresspool.ParseAll(*l.pool.Load())
		if err != nil {
			return err
		}
		return controllers.Run(ctx, controllers.Config{
			ClientFor: func(name string) *rest.Config { return l.server.ClientFor(accountUser(name)) },
			Informers: factory, Logger: l.logger, RootCA: func() ([]byte, error) { return os.ReadFile(filepath.Join(c.PKIDir, "ca.crt")) },
			Authority:    func() (*pki.Authority, error) { return pki.LoadAuthority(c.PKIDir, "ca") },
			PodCIDRs:     []nodeipam.Pool{{Range: netip.MustParsePrefix(c.PodCIDR), NodeMask: c.NodeCIDRMaskSize}},
			ServiceCIDRs: []netip.Prefix{netip.MustParsePrefix(c.ServiceCIDR)}, LoadBalancerPool: pool,
		})
	})
	group.Go(func() error {
		factory.StartWithContext(ctx)
		return placing.Run(ctx)
	})
	return group.Wait()
}

// accountUser is a controller's service account.
func accountUser(name string) user.Info {
	const namespace = "kube-system"
	return &user.DefaultInfo{
		Name:   serviceaccount.MakeUsername(namespace, name),
		Groups: append(serviceaccount.MakeGroupNames(namespace), user.AllAuthenticated),
	}
}
