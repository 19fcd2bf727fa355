// Command skiff-control is a control machine's daemon: API server, replicated
// store, scheduler and controllers in one process.
package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"
	utilnet "k8s.io/apimachinery/pkg/util/net"

	"github.com/skiff-run/skiff/control/apiserver"
	"github.com/skiff-run/skiff/control/operations"
	"github.com/skiff-run/skiff/control/renewal"
	"github.com/skiff-run/skiff/internal/config"
	"github.com/skiff-run/skiff/internal/daemon"
	"github.com/skiff-run/skiff/internal/operator"
	"github.com/skiff-run/skiff/internal/pki"
	"github.com/skiff-run/skiff/internal/version"
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
nothing acknowledged is lost and running pods do not notice.

` + config.Help(config.ControlKind),
		Args: cobra.NoArgs, SilenceUsage: true, SilenceErrors: true, Version: version.Version,
	}
	flags := config.AddFlags(command.PersistentFlags(), config.ControlKind, configuration)
	command.RunE = func(cmd *cobra.Command, _ []string) error {
		if err := flags.Complete(); err != nil {
			return err
		}
		return run(cmd.Context(), configuration, flags)
	}
	command.AddCommand(config.ValidateCommand(flags))
	return command
}

func run(ctx context.Context, c *config.Control, flags *config.Flags[config.Control]) (err error) {
	hangups := daemon.Hangups()
	logger, level, err := daemon.NewLogger(os.Stderr, c.LogLevel)
	if err != nil {
		return err
	}
	flags.Report(logger)
	live := flags.Follow([]string{"logLevel", "loadBalancerPool"})
	daemon.LogLibraries(logger)
	// A machine that was off for a year has to renew before it can serve.
	if renewed, err := pki.RenewDue(c.PKIDir); len(renewed) > 0 || err != nil {
		logger.Warn("certificates renewed at the start", "names", renewed, "error", err)
	}
	if c.NodeName == "" {
		if c.NodeName, err = os.Hostname(); err != nil {
			return fmt.Errorf("find the host name: %w; set nodeName", err)
		}
		c.NodeName = strings.ToLower(c.NodeName)
	}
	address, err := advertised(c.AdvertiseAddress)
	if err != nil {
		return err
	}
	if err := followAddress(c, address, logger); err != nil {
		return err
	}
	ctx, end := context.WithCancelCause(ctx)
	defer end(nil)
	member := &member{configuration: c, address: address, logger: logger, removed: func() { end(errRemoved) }}
	store, err := member.open(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, store.Close()) }()
	defer func() {
		if cause := context.Cause(ctx); errors.Is(cause, raftstore.ErrRemoved) {
			err = cause // what else went wrong did because of that
		}
	}()

	leader := newLeader(c, store, logger)
	settings, err := serverConfig(c, address, store, leader, logger)
	if err != nil {
		return err
	}
	server, err := apiserver.New(settings)
	if err != nil {
		return errors.Join(err, settings.Listener.Close())
	}
	operations := operate(c, store, server, settings, logger)
	logger.Info("serving", "address", settings.Listener.Addr(), "version", version.Version)
	group, serving := errgroup.WithContext(ctx)
	if os.Getenv("GOGC") == "" {
		group.Go(func() error {
			paceGarbage(serving)
			return nil
		})
	}
	group.Go(func() error {
		if server.WaitBootstrapped(serving) == nil {
			operations.Run(serving)
		}
		return nil
	})
	group.Go(func() error { return server.Run(serving) })
	leader.server = server
	group.Go(func() error { return leader.run(serving) })
	group.Go(func() error {
		<-serving.Done()
		leader.handOver(context.WithoutCancel(serving))
		return nil
	})
	group.Go(func() error {
		keeper(c, store, logger).Run(serving)
		return nil
	})
	group.Go(func() error {
		daemon.Reload(serving, hangups, logger, func(context.Context) (applied, waiting []string, err error) {
			return live.Reload(func(c *config.Control) error {
				leader.setPool(c.LoadBalancerPool)
				return level.Set(c.LogLevel)
			})
		})
		return nil
	})
	(&supervision{store: store, server: server, leader: leader}).start(serving, group)
	context.AfterFunc(serving, daemon.Stopping)
	return group.Wait()
}

// followAddress has the API server's certificate signed anew when it does not
// name the address this machine has now. On a machine without the authority's
// key it is somebody else's to keep right.
func followAddress(c *config.Control, address netip.Addr, logger *slog.Logger) error {
	if chain, err := pki.ReadBundle(filepath.Join(c.PKIDir, "apiserver.crt")); err == nil && chain[0].VerifyHostname(address.String()) == nil {
		return nil
	}
	if _, err := os.Stat(filepath.Join(c.PKIDir, "ca.key")); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	host, err := os.Hostname()
	if err != nil {
		return fmt.Errorf("find the host name: %w", err)
	}
	if _, err = pki.EnsureControl(pki.Control{
		Dir: c.PKIDir, Names: []string{host, c.NodeName}, Addresses: []net.IP{address.AsSlice()}, ServiceCIDR: c.ServiceCIDR, ClusterDomain: c.ClusterDomain,
	}); err == nil {
		logger.Info("the API server's certificate was signed for this machine's address", "address", address)
	}
	return err
}

// keeper renews this machine's certificates.
func keeper(c *config.Control, store *raftstore.Store, logger *slog.Logger) *renewal.Keeper {
	return &renewal.Keeper{
		Dir: c.PKIDir, Member: store.Status().MemberID, Ledger: renewal.NewLedger(store), Logger: logger.With("component", "renewal"),
	}
}

// operate puts what an operator asks for behind the server.
func operate(c *config.Control, store *raftstore.Store, server *apiserver.Server, settings apiserver.Config, logger *slog.Logger) *operations.Operations {
	o := operations.New(operations.Config{
		Store: store, Client: server.Client(), PKIDir: c.PKIDir, EncryptionConfig: c.EncryptionConfig, NodeName: c.NodeName, Version: version.Version,
		Address: net.JoinHostPort(settings.AdvertiseAddress.String(), strconv.Itoa(c.Port)),
		Settings: operator.Settings{
			ClusterName: c.ClusterName, ServiceCIDR: c.ServiceCIDR, PodCIDR: c.PodCIDR, NodeCIDRMaskSize: c.NodeCIDRMaskSize,
			NodePortRange: c.NodePortRange, ClusterDomain: c.ClusterDomain, ClusterDNS: settings.DNSAddress().String(), Port: c.Port,
		},
		Checks: settings.Components, Logger: logger.With("component", "operations"),
	})
	server.Handle(operator.Root+"/", o)
	return o
}

func serverConfig(c *config.Control, advertise netip.Addr, store *raftstore.Store, leader *leader, logger *slog.Logger) (apiserver.Config, error) {
	ports, err := utilnet.ParsePortRange(c.NodePortRange)
	if err != nil {
		return apiserver.Config{}, fmt.Errorf("nodePortRange: %w", err)
	}
	listener, err := net.Listen("tcp", net.JoinHostPort(c.BindAddress, strconv.Itoa(c.Port)))
	if err != nil {
		return apiserver.Config{}, fmt.Errorf("serve the API: %w; another program has the port: stop it, or set port", err)
	}
	return apiserver.Config{
		Store: store, Logger: logger.With("component", "apiserver"), PKIDir: c.PKIDir, Listener: listener,
		AdvertiseAddress: advertise, AdvertisePort: c.Port, ServiceCIDR: netip.MustParsePrefix(c.ServiceCIDR), NodePorts: *ports,
		ClusterDomain: c.ClusterDomain, AgentPort: 10250,
		EncryptionConfig: c.EncryptionConfig,
		// The variable of client-go, whose informers then check themselves too.
		DetectMutations: os.Getenv("KUBE_CACHE_MUTATION_DETECTOR") == "true",
		Components: map[string]func(context.Context) error{
			"etcd-0": store.Health, "scheduler": leader.health, "controller-manager": leader.health,
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
