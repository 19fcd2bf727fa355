// Command skiff-agent runs the pods of one machine.
package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"github.com/skiff-run/skiff/agent"
	"github.com/skiff-run/skiff/agent/node"
	"github.com/skiff-run/skiff/internal/config"
	"github.com/skiff-run/skiff/internal/daemon"
	"github.com/skiff-run/skiff/internal/tracking"
	"github.com/skiff-run/skiff/internal/version"
	"github.com/skiff-run/skiff/runtime"
)

// containerdPatience is how long the agent waits for containerd at its start.
const containerdPatience = 30 * time.Second

func main() {
	daemon.Run("skiff-agent", func(ctx context.Context) error { return newCommand().ExecuteContext(ctx) })
}

func newCommand() *cobra.Command {
	configuration := config.DefaultAgent()
	command := &cobra.Command{
		Use:   "skiff-agent",
		Short: "Run the pods of this machine",
		Long: `Run the pods the API server assigned to this machine, through containerd.
Pods keep running when the daemon stops, so it can be restarted at any time;
"skiff-agent cleanup" ends them and removes everything the agent made.

` + config.Help(config.AgentKind),
		Args: cobra.NoArgs, SilenceUsage: true, SilenceErrors: true, Version: version.Version,
	}
	flags := config.AddFlags(command.PersistentFlags(), config.AgentKind, configuration)
	command.RunE = func(cmd *cobra.Command, _ []string) error {
		if err := flags.Complete(); err != nil {
			return err
		}
		return run(cmd.Context(), configuration, flags)
	}
	command.AddCommand(config.ValidateCommand(flags), &cobra.Command{
		Use:   "cleanup",
		Short: "End every pod of this machine and remove what the agent made",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := flags.Complete(); err != nil {
				return err
			}
			logger, _, err := daemon.NewLogger(os.Stderr, configuration.LogLevel)
			if err != nil {
				return err
			}
			return agent.Cleanup(cmd.Context(), configuration, logger)
		},
	})
	return command
}

func run(ctx context.Context, c *config.Agent, flags *config.Flags[config.Agent]) error {
	hangups := daemon.Hangups()
	logger, level, err := daemon.NewLogger(os.Stderr, c.LogLevel)
	if err != nil {
		return err
	}
	flags.Report(logger)
	daemon.LogLibraries(logger)
	live := flags.Follow(append(agent.Reloadable(), "logLevel"))
	name, err := nodeName(c)
	if err != nil {
		return err
	}
	if err := tracking.On(ctx); err != nil {
		return err
	}
	connection, err := connect(c, name, logger)
	if err != nil {
		return err
	}
	ip, err := nodeIP(c, connection.Config.Host)
	if err != nil {
		return err
	}
	logger.Info("agent starts", "node", name, "address", ip, "containerd", c.ContainerdAddress)
	options, err := agent.RuntimeOptions(c, logger)
	if err != nil {
		return err
	}
	starting, cancel := context.WithTimeout(ctx, containerdPatience)
	defer cancel()
	containers, err := runtime.New(starting, options)
	if err != nil {
		return err
	}
	defer func() {
		if err := containers.Close(); err != nil {
			logger.Warn("close the runtime", "error", err)
		}
	}()
	serving, keep, err := servingCertificate(c, connection, name, ip)
	if err != nil {
		return err
	}
	running := make(chan struct{})
	a, err := agent.New(agent.Config{
		Settings: c, NodeName: name, NodeIP: ip, Version: version.Version, Client: connection.Client(), Logger: logger, Certificate: serving,
		Runtime: agent.NewContainerd(containers), Host: agent.Machine{Runtime: containers, PodPidsLimit: int64(c.Resources.PodPidsLimit)},
		Ready: func() {
			daemon.Ready()
			close(running)
		},
	})
	if err != nil {
		return err
	}
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error {
		select {
		case <-ctx.Done():
			return nil
		case <-running:
		}
		daemon.Reload(ctx, hangups, logger, func(context.Context) (applied, waiting []string, err error) {
			return live.Reload(func(c *config.Agent) error {
				if err := a.Reload(c); err != nil {
					return err
				}
				return level.Set(c.LogLevel)
			})
		})
		return nil
	})
	group.Go(func() error {
		if err := connection.Wait(ctx); err != nil {
			return err
		}
		stop := keep()
		defer stop()
		return a.Run(ctx)
	})
	group.Go(func() error { return connection.Run(ctx) })
	group.Go(func() error {
		daemon.Watchdog(ctx, logger, a.Alive)
		return nil
	})
	group.Go(func() error {
		daemon.FollowStatus(ctx, a.Describe)
		return nil
	})
	context.AfterFunc(ctx, daemon.Stopping)
	return group.Wait()
}

func nodeName(c *config.Agent) (string, error) {
	if c.NodeName != "" {
		return c.NodeName, nil
	}
	name, err := os.Hostname()
	if err != nil {
		return "", fmt.Errorf("host name: %w; set nodeName", err)
	}
	return strings.ToLower(name), nil
}

func nodeIP(c *config.Agent, server string) (net.IP, error) {
	if c.NodeIP != "" {
		ip := net.ParseIP(c.NodeIP)
		if ip == nil {
			return nil, errors.New("nodeIP: must be an IP address")
		}
		return ip, nil
	}
	u, err := url.Parse(server)
	if err != nil {
		return nil, fmt.Errorf("address of the API server %q: %w", server, err)
	}
	host := u.Host
	if u.Port() == "" {
		host = net.JoinHostPort(u.Hostname(), "443")
	}
	return node.RouteAddress(host)
}
