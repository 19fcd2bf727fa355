package main

import (
	"io"

	"github.com/spf13/cobra"

	"github.com/skiff-run/skiff/cmd/skiff/check"
)

func newCheckCommand() *cobra.Command {
	var o check.Options
	var output string
	var quiet bool
	command := &cobra.Command{
		Use:   "check",
		Short: "Look whether this machine is fit for Skiff, and what ails it",
		Long: `Look at this machine, before and after Skiff is installed: kernel, settings,
cgroups, containerd, disks, addresses, ports, firewall, DNS, time, other
machines, certificates and daemons. Nothing on it is changed, and it takes less
than five seconds.

Each line begins with a verdict:
  ok    as it should be
  warn  works, but will surprise somebody
  fail  keeps Skiff, or a part of it, from working
and what is not ok is followed by commands that help, to be typed as root.
The exit code is 1 when something fails.

The speed of the store's disk is measured by writing for a second and a half
to a file without a name beside the store. Others than root see fewer lines;
the last ones say what only root can look at.

With -o json: version, host, role, installed, the counts ok, warnings and
failures, and findings: a list of area, check, status (ok, warn, fail), found
and remedy (a list of commands); skipped names what only root can look at.
These names stay.`,
		Example: `  skiff check                                        # as a control machine, before skiff init
  skiff check --role worker --server https://192.168.56.10:6443   # before skiff join
  skiff check --quiet                                # only what is not ok
  skiff check -o json | jq -r '.findings[] | select(.status == "fail") | .remedy[]?'`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := checkOutput(output); err != nil {
				return err
			}
			report, err := check.Run(cmd.Context(), o)
			if err != nil {
				return err
			}
			if err := show(cmd.OutOrStdout(), output, report, func(w io.Writer) { report.Print(w, quiet) }); err != nil {
				return err
			}
			return report.Verdict()
		},
	}
	flags := command.Flags()
	flags.StringVar(&o.Root, "root", "/", "folder below which the cluster keeps all its files")
	flags.StringVar(&o.Role, "role", "", "control or worker: what the machine is to become; what it is when empty")
	flags.StringVar(&o.NodeIP, "node-ip", "", "address that will be given to init or join")
	flags.StringVar(&o.Server, "server", "", "URL of the control machine that this one is to join")
	flags.BoolVarP(&quiet, "quiet", "q", false, "only what is not ok")
	addOutput(command, &output)
	return command
}
