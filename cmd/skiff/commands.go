package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/skiff-run/skiff/cmd/skiff/join"
	"github.com/skiff-run/skiff/cmd/skiff/up"
	"github.com/skiff-run/skiff/internal/version"
)

func newCommand() *cobra.Command {
	root := &cobra.Command{
		Use:   "skiff",
		Short: "A Kubernetes cluster that fits in your head",
		Long: `Skiff is a small Kubernetes cluster: stock kubectl, Helm and client-go work
against it unchanged.

  skiff up --detach      run a whole cluster on this machine
  skiff kubectl get pods talk to it (or use any kubectl with the printed KUBECONFIG)
  skiff down             stop it; its data stays
  skiff reset            remove its data

  skiff init             found a cluster that further machines can join
  skiff token create     print the line by which a machine joins
  skiff join             make this machine part of a cluster
  skiff check            look whether this machine is fit, and what ails it
  skiff status           show the control machines, the store, and what is wrong
  skiff bundle           gather logs and states for a bug report, without secrets
  skiff snapshot save    keep the whole state of the cluster in a file`,
		SilenceUsage:  true,
		SilenceErrors: true,
		Version:       version.Version,
	}
	root.SetVersionTemplate("skiff {{.Version}}\n")
	root.AddCommand(newUpCommand(), newDownCommand(), newResetCommand(), newInitCommand(), newJoinCommand(), newTokenCommand(), newStatusCommand(), newCheckCommand(), newBundleCommand(),
		newMemberCommand(), newLeaderCommand(), newSnapshotCommand(), newRecoverCommand(), newPKICommand(), &cobra.Command{
			// Only for the help text: main hands the arguments over before cobra sees them.
			Use:                "kubectl [arguments]",
			Short:              "The built-in kubectl, on this machine's cluster by default",
			DisableFlagParsing: true,
		})
	return root
}

func newUpCommand() *cobra.Command {
	options := up.DefaultOptions()
	command := &cobra.Command{
		Use:   "up",
		Short: "Run a whole cluster on this machine",
		Long: `Run the control plane, the agent and the proxy of a cluster on this machine,
and containerd if none is running. Certificates and configuration are made
where they are missing. Returns an error that says what to do when the machine
lacks something.

In the foreground until Ctrl-C, which stops everything again as "skiff down"
does; with --detach it returns once the node is Ready.

Files: /etc/skiff (certificates, kubeconfigs, and optional control.yaml,
agent.yaml, proxy.yaml that override the defaults), /var/lib/skiff (data),
/var/log/skiff (logs of the daemons).`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return up.Run(cmd.Context(), options, cmd.OutOrStdout())
		},
	}
	options.AddFlags(command.Flags())
	return command
}

func newDownCommand() *cobra.Command {
	var root string
	command := &cobra.Command{
		Use:   "down",
		Short: "Stop the cluster on this machine; its data stays",
		Long: `Stop what "skiff up" started: all pods of this machine, the daemons, and
containerd if up started it. No process, mount, namespace, rule or link is left
behind. The data stays: "skiff up" finds it again.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return up.Down(cmd.Context(), up.Layout{Root: root}, cmd.OutOrStdout())
		},
	}
	command.Flags().StringVar(&root, "root", "/", "folder below which the cluster keeps all its files")
	return command
}

func newResetCommand() *cobra.Command {
	var root string
	var yes, force bool
	command := &cobra.Command{
		Use:   "reset",
		Short: "Leave the cluster, stop it here and remove its data",
		Long: `Take this machine out of its cluster, stop it, and remove its data, certificates
and logs. A control machine leaves the store first; when the cluster cannot be
told nothing is changed, unless with --force.
Images and containers of a containerd that "skiff up" did not start stay.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if !yes {
				return fmt.Errorf("reset removes all data of the cluster on this machine for good: add --yes if that is what you want")
			}
			return join.Reset(cmd.Context(), up.Layout{Root: root}, force, cmd.OutOrStdout())
		},
	}
	command.Flags().StringVar(&root, "root", "/", "folder below which the cluster keeps all its files")
	command.Flags().BoolVar(&yes, "yes", false, "really remove the data")
	command.Flags().BoolVar(&force, "force", false, "remove it also when the cluster cannot be told that this machine leaves")
	return command
}
