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
	command.AddCommand(&cobra.Command{
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
			settings, _, err := prepare(configuration)
			if err != nil {
				return err
			}
			p, err := proxy.New(settings)
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
	settings, connection, err := prepare(c)
	if err != nil {
		return err
	}
	flags.Report(settings.Logger)
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
	context.AfterFunc(ctx, daemon.Stopping)
	return group.Wait()
}

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
	settings, _, err := prepare(c)
	if err != nil {
		return err
	}
	p, err := proxy.New(settings)
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

// prepare reads what every way to run needs, and changes nothing.
func prepare(c *config.Proxy) (proxy.Config, *apiclient.Connection, error) {
	logger, err := daemon.NewLogger(os.Stderr, c.LogLevel)
	if err != nil {
		return proxy.Config{}, nil, err
	}
	daemon.LogLibraries(logger)
	settings := proxy.Config{NodeName: c.NodeName, Announce: true, NetworkPolicy: c.NetworkPolicy, StateDir: c.StateDir, Logger: logger}
	if settings.NodeName == "" {
		host, err := os.Hostname()
		if err != nil {
			return settings, nil, fmt.Errorf("find the host name: %w; set nodeName", err)
		}
		settings.NodeName = strings.ToLower(host)
	}
	connection, err := connect(c, logger)
	if err != nil {
		return settings, nil, err
	}
	settings.Client = connection.Client()
	chosen, err := mode.Open(c.Mode, modeOptions(c, logger))
	if err != nil {
		return settings, nil, err
	}
	settings.Mode, settings.Backend, settings.NodePorts = chosen.Name, chosen.Backend, chosen.NodePorts
	settings.Retire = func(ctx context.Context) (bool, error) { return mode.Retire(ctx, chosen.Name) }
	if chosen.Name == "ipvs" {
		settings.CheckPeriod, settings.MinSyncPeriod = c.IPVS.Periods()
	}
	if len(c.NodePortAddresses) > 0 {
		if settings.NodePorts, err = table.ParseNodePortAddresses(c.NodePortAddresses); err != nil {
			return settings, nil, fmt.Errorf("nodePortAddresses: %w", err)
		}
	}
	if c.DNS.Enabled {
		settings.DNS = &dns.Config{
			Address: netip.MustParseAddr(c.DNS.Address), Domain: c.DNS.ClusterDomain, Upstreams: c.DNS.Upstreams, Policy: c.DNS.Policy, Logger: logger.With("component", "dns"),
			StubDomains: map[string][]string{},
		}
		for domain, servers := range c.DNS.StubDomains {
			settings.DNS.StubDomains[domain] = strings.Fields(servers)
		}
	}
	return settings, connection, nil
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
