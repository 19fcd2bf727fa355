package main

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/skiff-run/skiff/cmd/skiff/join"
	"github.com/skiff-run/skiff/cmd/skiff/up"
)

// tokenLife is how long a join token is good for unless told otherwise.
const tokenLife = time.Hour

func newInitCommand() *cobra.Command {
	options := up.DefaultOptions()
	options.Detach = true
	var ttl time.Duration
	command := &cobra.Command{
		Use:   "init",
		Short: "Found a cluster on this machine, for others to join",
		Long: `Found a cluster on this machine: certificates, the store, the daemons, and an
administrator's kubeconfig. Prints two lines: one joins further control
machines, the other machines that only run pods.

Where systemd runs and Skiff's units are installed the daemons are started by
it and come back after a reboot; elsewhere a process of this program keeps them
running, as with "skiff up".

What the flags say is kept in /etc/skiff (control.yaml, agent.yaml,
proxy.yaml). Run again, it starts what does not run and prints new lines.`,
		Example: `  skiff init
  skiff init --node-ip 192.168.56.10 --pod-cidr 10.32.0.0/16`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if ttl <= 0 {
				return fmt.Errorf("--token-ttl %s: must be longer than 0, for example 1h", ttl)
			}
			if err := join.Init(cmd.Context(), options, ttl, cmd.OutOrStdout()); err != nil {
				return err
			}
			return stay(cmd, options)
		},
	}
	options.AddClusterFlags(command.Flags())
	options.AddMachineFlags(command.Flags())
	addDetach(command, options)
	command.Flags().DurationVar(&ttl, "token-ttl", tokenLife, "how long the printed join lines are good for")
	return command
}

func newJoinCommand() *cobra.Command {
	options := up.DefaultOptions()
	options.Detach = true
	var target join.Target
	command := &cobra.Command{
		Use:   "join SERVER --token ID.SECRET --ca-hash sha256:HASH",
		Short: "Make this machine part of a cluster",
		Long: `Make this machine part of the cluster that SERVER, any of its control machines,
belongs to. The token says as what: "skiff token create --role control" or
"--role worker" prints the whole line.

The machine believes the cluster only if its authority's key has the given
hash, and the cluster believes the machine for its token. Run again after
success it only starts what does not run; after a failure nothing of the
attempt is left, neither here nor in the cluster.`,
		Example: `  skiff join https://192.168.56.10:6443 --token abcdef.0123456789abcdef --ca-hash sha256:...`,
		Args:    exactlyServer,
		RunE: func(cmd *cobra.Command, args []string) error {
			target.Server = args[0]
			if err := join.Join(cmd.Context(), options, target, cmd.OutOrStdout()); err != nil {
				return err
			}
			return stay(cmd, options)
		},
	}
	options.AddMachineFlags(command.Flags())
	addDetach(command, options)
	command.Flags().StringVar(&target.Token, "token", "", "join token, id.secret")
	command.Flags().StringVar(&target.CAHash, "ca-hash", "", "sha256: and the hash of the public key of the cluster's authority")
	return command
}

func exactlyServer(_ *cobra.Command, args []string) error {
	if len(args) == 1 {
		return nil
	}
	return fmt.Errorf("give the URL of one control machine, for example https://192.168.56.10:6443: \"skiff token create\" there prints the whole line")
}

func addDetach(command *cobra.Command, options *up.Options) {
	command.Flags().BoolVarP(&options.Detach, "detach", "d", true, "return once the node is Ready; false stays, and stops the daemons on Ctrl-C")
}

// stay keeps a command that shall not detach in the foreground.
func stay(cmd *cobra.Command, options *up.Options) error {
	if options.Detach {
		return nil
	}
	return join.Stay(cmd.Context(), options.Layout, cmd.OutOrStdout())
}

// access are the flags of commands that speak to a cluster as its administrator.
type access struct{ root, kubeconfig string }

func (a *access) addFlags(command *cobra.Command) {
	command.PersistentFlags().StringVar(&a.root, "root", "/", "folder below which the cluster keeps all its files")
	command.PersistentFlags().StringVar(&a.kubeconfig, "kubeconfig", "", "an administrator's kubeconfig; this machine's admin.conf when empty")
}

func (a *access) administrator(context.Context) (*join.Administrator, error) {
	if a.kubeconfig != "" {
		return join.NewAdministrator(a.kubeconfig)
	}
	l := up.Layout{Root: a.root}
	return join.NewAdministrator(l.AdminKubeconfig(), l.Servers()...)
}
