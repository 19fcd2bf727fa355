// Command skiff-proxy serves service addresses and cluster DNS on one machine.
package main

import (
	"context"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"github.com/skiff-run/skiff/internal/apiclient"
	"github.com/skiff-run/skiff/internal/config"
	"github.com/skiff-run/skiff/internal/daemon"
	"github.com/skiff-run/skiff/internal/tracking"
	"github.com/skiff-run/skiff/internal/version"
	"github.com/skiff-run/skiff/proxy"
	"github.com/skiff-run/skiff/proxy/dns"
	"github.com/skiff-run/skiff/proxy/mode"
	"github.com/skiff-run/skiff/proxy/policy"
	"github.com/skiff-run/skiff/proxy/table"
)

func main() {
	daemon.Run("skiff-proxy", func(ctx context.Context) error { return newCommand().ExecuteContext(ctx) })
}

func newCommand() *cobra.Command {
	configuration := config.DefaultProxy()
	command := &cobra.Command{
		Use:   "skiff-proxy",
		Short: "Serve service addresses and cluster DNS on this machine",
		Long: `Program this machine's kernel so that service addresses lead to pods, and
answer the cluster's DNS names. The rules stay when the daemon stops, so it can
be restarted at any time; "skiff-proxy cleanup" removes them.

` + config.Help(config.ProxyKind),
		Args: cobra.NoArgs, SilenceUsage: true, SilenceErrors: true, Version: version.Version,
	}
	flags := config.AddFlags(command.PersistentFlags(), config.ProxyKind, configuration)
	var once, print bool
	command.Flags().BoolVar(&once, "once", false, "program the present state and end")
	command.Flags().BoolVar(&print, "print", false, "with --once: print what would be programmed, and change nothing")
	command.RunE = func(cmd *cobra.Command, _ []string) error {
		if err := flags.Complete(); err != nil {
			return err
		}
		switch {
		case print && !once:
			return errors.New("--print: shows what --once would program; give both")
		case once:
			return runOnce(cmd.Context(), configuration, print, cmd.OutOrStdout())
		}
		return run(cmd.Context(), configuration, flags)
	}
	command.AddCommand(config.ValidateCommand(flags), &cobra.Command{
		Use:   "guard",
		Short: "Close this machine's pods until network policies are read",
		Long: `Close the pods of a machine that starts and had network policies when it was
stopped, until the proxy has read them. Where there were none, or the kernel has
rules of the proxy, it changes nothing. It does not ask the API.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := flags.Complete(); err != nil {
				return err
			}
			prepared, err := prepare(configuration)
			if err != nil {
				return err
			}
			p, err := proxy.New(prepared.settings)
			if err != nil {
				return err
			}
			return p.Guard(cmd.Context())
		},
	}, &cobra.Command{
		Use:   "cleanup",
		Short: "Remove every rule and link the proxy made, and nothing else",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return errors.Join(mode.Cleanup(cmd.Context()), policy.Cleanup(cmd.Context()), dns.Cleanup(), tracking.Off(cmd.Context()))
		},
	})
	return command
}

func run(ctx context.Context, c *config.Proxy, flags *config.Flags[config.Proxy]) error {
	hangups := daemon.Hangups()
	prepared, err := prepare(c)
	if err != nil {
		return err
	}
	settings, connection := prepared.settings, prepared.connection
	flags.Report(settings.Logger)
	live := flags.Follow(reloadable)
	if err := tracking.On(ctx); err != nil {
		return err
	}
	if c.HealthPort != 0 {
		settings.HealthAddress = net.JoinHostPort("0.0.0.0", strconv.Itoa(c.HealthPort))
	}
	if c.MetricsPort != 0 {
		settings.MetricsAddress = net.JoinHostPort("127.0.0.1", strconv.Itoa(c.MetricsPort))
	}
	p, err := proxy.New(settings)
	if err != nil {
		return err
	}
	settings.Logger.Info("starting", "node", settings.NodeName, "mode", settings.Mode, "version", version.Version)
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error {
		if err := connection.Wait(ctx); err != nil {
			return err
		}
		return p.Run(ctx)
	})
	group.Go(func() error { return connection.Run(ctx) })
	group.Go(func() error {
		if p.WaitReady(ctx) == nil {
			daemon.Ready()
			// Before, cluster DNS need not answer.
			daemon.Watchdog(ctx, settings.Logger, p.Alive)
		}
		return nil
	})
	group.Go(func() error {
		daemon.FollowStatus(ctx, p.Describe)
		return nil
	})
	group.Go(func() error {
		daemon.Reload(ctx, hangups, settings.Logger, func(context.Context) (applied, waiting []string, err error) {
			return live.Reload(func(c *config.Proxy) error {
				changed, err := prepared.configure(c)
				if err != nil {
					return err
				}
				p.Reload(changed)
				return prepared.level.Set(c.LogLevel)
			})
		})
		return nil
	})
	context.AfterFunc(ctx, daemon.Stopping)
	return group.Wait()
}

// reloadable are the settings that may change while the proxy runs.
var reloadable = []string{"logLevel", "nodePortAddresses", "dns.upstreams", "dns.policy", "dns.stubDomains"}

// connect prepares the way to the control plane.
func connect(c *config.Proxy, logger *slog.Logger) (*apiclient.Connection, error) {
	options := apiclient.Options{
		Kubeconfig: c.Kubeconfig, Addresses: c.ControlAddresses, UserAgent: "skiff-proxy/" + version.Version, Logger: logger,
	}
	if c.RotateCertificates || c.BootstrapKubeconfig != "" {
		options.Rotation = &apiclient.Rotation{
			Dir: filepath.Join(filepath.Dir(c.Kubeconfig), "pki"), Name: "proxy-client", Signer: apiclient.ProxySigner,
			Subject: pkix.Name{CommonName: "system:kube-proxy"}, BootstrapKubeconfig: c.BootstrapKubeconfig,
		}
	}
	return apiclient.Load(options)
}

// runOnce programs or prints the present state.
func runOnce(ctx context.Context, c *config.Proxy, print bool, output io.Writer) error {
	prepared, err := prepare(c)
	if err != nil {
		return err
	}
	p, err := proxy.New(prepared.settings)
	if err != nil {
		return err
	}
	if !print {
		if err := tracking.On(ctx); err != nil {
			return err
		}
		return p.Once(ctx)
	}
	text, err := p.Print(ctx)
	if err != nil {
		return err
	}
	_, err = io.WriteString(output, text)
	return err
}

// prepared is what every way to run needs.
type prepared struct {
	settings   proxy.Config
	connection *apiclient.Connection
	level      *daemon.Level
	// nodePorts are the addresses of node ports when the configuration names none.
	nodePorts table.NodePortAddresses
}

// prepare reads what every way to run needs, and changes nothing.
func prepare(c *config.Proxy) (*prepared, error) {
	logger, level, err := daemon.NewLogger(os.Stderr, c.LogLevel)
	if err != nil {
		return nil, err
	}
	daemon.LogLibraries(logger)
	settings := proxy.Config{NodeName: c.NodeName, Announce: true, NetworkPolicy: c.NetworkPolicy, StateDir: c.StateDir, Logger: logger}
	if settings.NodeName == "" {
		host, err := os.Hostname()
		if err != nil {
			return nil, fmt.Errorf("find the host name: %w; set nodeName", err)
		}
		settings.NodeName = strings.ToLower(host)
	}
	connection, err := connect(c, logger)
	if err != nil {
		return nil, err
	}
	settings.Client = connection.Client()
	chosen, err := mode.Open(c.Mode, modeOptions(c, logger))
	if err != nil {
		return nil, err
	}
	settings.Mode, settings.Backend = chosen.Name, chosen.Backend
	settings.Retire = func(ctx context.Context) (bool, error) { return mode.Retire(ctx, chosen.Name) }
	if chosen.Name == "ipvs" {
		settings.CheckPeriod, settings.MinSyncPeriod = c.IPVS.Periods()
	}
	p := &prepared{settings: settings, connection: connection, level: level, nodePorts: chosen.NodePorts}
	p.settings, err = p.configure(c)
	return p, err
}

// configure returns the settings with what may change while the proxy runs.
func (p *prepared) configure(c *config.Proxy) (settings proxy.Config, err error) {
	settings = p.settings
	settings.NodePorts = p.nodePorts
	if len(c.NodePortAddresses) > 0 {
		if settings.NodePorts, err = table.ParseNodePortAddresses(c.NodePortAddresses); err != nil {
			return settings, fmt.Errorf("nodePortAddresses: %w", err)
		}
	}
	if !c.DNS.Enabled {
		return settings, nil
	}
	settings.DNS = &dns.Config{
		Address: netip.MustParseAddr(c.DNS.Address), Domain: c.DNS.ClusterDomain, Upstreams: c.DNS.Upstreams, Policy: c.DNS.Policy, Logger: settings.Logger.With("component", "dns"),
		StubDomains: map[string][]string{},
	}
	for domain, servers := range c.DNS.StubDomains {
		settings.DNS.StubDomains[domain] = strings.Fields(servers)
	}
	return settings, nil
}

// modeOptions converts what Validate has checked.
func modeOptions(c *config.Proxy, logger *slog.Logger) mode.Options {
	options := mode.Options{Logger: logger, IPTables: mode.IPTables{LocalhostNodePorts: c.IPTables.LocalhostNodePorts}}
	if c.IPTables.Variant != "auto" {
		options.IPTables.Variant = c.IPTables.Variant
	}
	options.IPVS = mode.IPVS{Scheduler: c.IPVS.Scheduler, StrictARP: c.IPVS.StrictARP}
	options.IPVS.TCPTimeout, options.IPVS.TCPFinTimeout, options.IPVS.UDPTimeout = c.IPVS.Timeouts()
	for _, text := range c.IPVS.ExcludeCIDRs {
		options.IPVS.ExcludeCIDRs = append(options.IPVS.ExcludeCIDRs, netip.MustParsePrefix(text))
	}
	for _, text := range c.ClusterCIDRs() {
		options.ClusterCIDRs = append(options.ClusterCIDRs, netip.MustParsePrefix(text))
	}
	return options
}
