// Command skiff-control is a control machine's daemon: API server, replicated
// store, scheduler and controllers in one process.
package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"runtime/debug"
	"strconv"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"
	utilnet "k8s.io/apimachinery/pkg/util/net"
	"k8s.io/apiserver/pkg/authentication/serviceaccount"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/skiff-run/skiff/control/apiserver"
	"github.com/skiff-run/skiff/control/controllers"
	"github.com/skiff-run/skiff/control/controllers/nodeipam"
	"github.com/skiff-run/skiff/control/scheduler"
	"github.com/skiff-run/skiff/internal/config"
	"github.com/skiff-run/skiff/internal/daemon"
	"github.com/skiff-run/skiff/raftstore"
)

func main() {
	daemon.Run("skiff-control", func(ctx context.Context) error { return newCommand().ExecuteContext(ctx) })
}

func newCommand() *cobra.Command {
	configuration := config.DefaultControl()
	command := &cobra.Command{
		Use:   "skiff-control",
		Short: "Serve the Kubernetes API, keep its state, schedule and control",
		Long: `Serve the Kubernetes API, keep its state in a replicated store, and run the
scheduler and the controllers. It may be killed at any moment and started again:
nothing acknowledged is lost and running pods do not notice.`,
		Args: cobra.NoArgs, SilenceUsage: true, SilenceErrors: true, Version: daemon.Version,
	}
	flags := config.AddFlags(command.Flags(), config.ControlKind, configuration)
	command.RunE = func(cmd *cobra.Command, _ []string) error {
		if err := flags.Complete(); err != nil {
			return err
		}
		return run(cmd.Context(), configuration)
	}
	return command
}

// memoryReturn is the share of live memory at which the garbage collector
// runs: earlier than Go's default, because idle memory is what users pay for.
const memoryReturn = 60

func run(ctx context.Context, c *config.Control) (err error) {
	logger, err := daemon.NewLogger(os.Stderr, c.LogLevel)
	if err != nil {
		return err
	}
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(memoryReturn)
	}
	store, err := raftstore.Open(ctx, raftstore.Options{
		Dir: filepath.Join(c.DataDir, "store"), MemberID: c.MemberID, Logger: logger.With("component", "store"),
		OnFatal: func(err error) {
			logger.Error("the store cannot go on; the process ends so that nothing is acknowledged that is not kept", "error", err)
			os.Exit(1)
		},
	})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, store.Close()) }()

	settings, err := serverConfig(c, store, logger)
	if err != nil {
		return err
	}
	server, err := apiserver.New(settings)
	if err != nil {
		return errors.Join(err, settings.Listener.Close())
	}
	logger.Info("serving", "address", settings.Listener.Addr(), "version", daemon.Version)
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return server.Run(ctx) })
	group.Go(func() error { return lead(ctx, c, store, server, logger) })
	group.Go(func() error {
		daemon.Watchdog(ctx, logger, store.Health)
		return nil
	})
	daemon.Ready("serving on " + settings.Listener.Addr().String())
	err = group.Wait()
	daemon.Stopping()
	return err
}

func serverConfig(c *config.Control, store *raftstore.Store, logger *slog.Logger) (apiserver.Config, error) {
	ports, err := utilnet.ParsePortRange(c.NodePortRange)
	if err != nil {
		return apiserver.Config{}, fmt.Errorf("nodePortRange: %w", err)
	}
	advertise, err := advertised(c.AdvertiseAddress)
	if err != nil {
		return apiserver.Config{}, err
	}
	listener, err := net.Listen("tcp", net.JoinHostPort(c.BindAddress, strconv.Itoa(c.Port)))
	if err != nil {
		return apiserver.Config{}, fmt.Errorf("serve the API: %w; another program has the port: stop it, or set port", err)
	}
	return apiserver.Config{
		Store: store, Logger: logger.With("component", "apiserver"), PKIDir: c.PKIDir, Listener: listener,
		AdvertiseAddress: advertise, AdvertisePort: c.Port, ServiceCIDR: netip.MustParsePrefix(c.ServiceCIDR), NodePorts: *ports,
		ClusterDomain: c.ClusterDomain, AgentPort: 10250,
		Components: map[string]func(context.Context) error{
			"etcd-0":             store.Health,
			"scheduler":          func(context.Context) error { return nil },
			"controller-manager": func(context.Context) error { return nil },
		},
	}, nil
}

// advertised is the configured address, or the one this machine uses towards
// the world.
func advertised(configured string) (netip.Addr, error) {
	if configured != "" {
		return netip.ParseAddr(configured)
	}
	address, err := utilnet.ChooseHostInterface()
	if err != nil {
		return netip.Addr{}, fmt.Errorf("find this machine's address: %w; set advertiseAddress", err)
	}
	found, _ := netip.AddrFromSlice(address)
	return found.Unmap(), nil
}

// lead runs scheduler and controllers while this member leads the store.
func lead(ctx context.Context, c *config.Control, store *raftstore.Store, server *apiserver.Server, logger *slog.Logger) error {
	subscription := store.Subscribe()
	defer subscription.Close()
	var stop context.CancelFunc
	ended := make(chan struct{})
	defer func() {
		if stop != nil {
			stop()
			<-ended
		}
	}()
	leading := store.IsLeader()
	for {
		switch {
		case leading && stop == nil:
			var term context.Context
			term, stop = context.WithCancel(ctx)
			ended = make(chan struct{})
			go func() {
				defer close(ended)
				if err := runLoops(term, c, server, logger); err != nil && term.Err() == nil {
					logger.Error("scheduler or controllers ended", "error", err)
				}
			}()
		case !leading && stop != nil:
			stop()
			<-ended
			stop = nil
		}
		select {
		case <-ctx.Done():
			return nil
		case leading = <-subscription.C:
		}
	}
}

func runLoops(ctx context.Context, c *config.Control, server *apiserver.Server, logger *slog.Logger) error {
	if err := server.WaitBootstrapped(ctx); err != nil {
		return err
	}
	schedulerClient, err := kubernetes.NewForConfig(server.ClientFor(&user.DefaultInfo{Name: user.KubeScheduler, Groups: []string{user.AllAuthenticated}}))
	if err != nil {
		return fmt.Errorf("make the scheduler's client: %w", err)
	}
	rootCA, err := os.ReadFile(filepath.Join(c.PKIDir, "ca.crt"))
	if err != nil {
		return fmt.Errorf("read the cluster's CA: %w", err)
	}
	factory := server.InformerFactory(server.Client())
	placing := scheduler.New(schedulerClient, factory, logger)
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error {
		return controllers.Run(ctx, controllers.Config{
			ClientFor: func(name string) *rest.Config { return server.ClientFor(accountUser(name)) },
			Informers: factory, Logger: logger, RootCA: rootCA,
			PodCIDRs:     []nodeipam.Pool{{Range: netip.MustParsePrefix(c.PodCIDR), NodeMask: c.NodeCIDRMaskSize}},
			ServiceCIDRs: []netip.Prefix{netip.MustParsePrefix(c.ServiceCIDR)},
		})
	})
	group.Go(func() error {
		factory.StartWithContext(ctx)
		return placing.Run(ctx)
	})
	return group.Wait()
}

func accountUser(name string) user.Info {
	const namespace = "kube-system"
	return &user.DefaultInfo{
		Name:   serviceaccount.MakeUsername(namespace, name),
		Groups: append(serviceaccount.MakeGroupNames(namespace), user.AllAuthenticated),
	}
}
