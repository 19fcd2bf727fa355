package main

import (
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/skiff-run/skiff/cmd/skiff/bundle"
)

func newBundleCommand() *cobra.Command {
	o := bundle.Options{}
	command := &cobra.Command{
		Use:   "bundle",
		Short: "Gather what a bug report needs into one file",
		Long: `Gather logs, states and configuration of this machine and its cluster into one
archive, for a bug report: the daemons' logs, versions and unit states, the
configuration, what "skiff check" and "skiff status" say, certificates' ends,
nodes, pods, services, events and leases, metrics and profiles of the daemons,
and the kernel's, the network's and containerd's state.

No secret leaves the machine: private keys, tokens and passwords are taken out of
every file; Secrets, data of ConfigMaps, commands of containers and values of
their environments are never read or kept. Still it names your machines, addresses and
workloads: look into it before you hand it on.

It works also while the cluster does not: what cannot be had is printed, and said
in the archive's errors.txt. Run it as root; others see less. The file can be read by
its owner only.`,
		Example: `  skiff bundle                       # skiff-bundle-HOST-TIME.tar.gz here
  skiff bundle -o report.tar.gz --since 2h
  skiff bundle --all-namespaces      # pods, services and events of everybody
  tar xzf report.tar.gz && less report/README`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if o.Since <= 0 {
				return fmt.Errorf("--since %s: must be longer than 0, for example 24h", o.Since)
			}
			return bundle.Make(cmd.Context(), o, cmd.OutOrStdout())
		},
	}
	flags := command.Flags()
	flags.StringVar(&o.Root, "root", "/", "folder below which the cluster keeps all its files")
	flags.StringVar(&o.Kubeconfig, "kubeconfig", "", "an administrator's kubeconfig; this machine's admin.conf when empty")
	flags.StringVarP(&o.Output, "output", "o", "", "file to make")
	flags.DurationVar(&o.Since, "since", 24*time.Hour, "how far back the journal is read")
	flags.BoolVarP(&o.AllNamespaces, "all-namespaces", "A", false, "states of all namespaces, not only the system's and default")
	return command
}
