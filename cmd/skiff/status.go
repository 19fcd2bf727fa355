package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/util/duration"

	"github.com/skiff-run/skiff/cmd/skiff/join"
	"github.com/skiff-run/skiff/cmd/skiff/up"
)

func newStatusCommand() *cobra.Command {
	var a access
	var output string
	command := &cobra.Command{
		Use:   "status",
		Short: "Show the control machines, the store, and what is wrong",
		Long: `Show the cluster on one screen: each control machine with its member of the
store (who leads, how far each is, what it complains of), versions, nodes, and
the certificate that ends first.

It works on any control machine, also while the store has no majority or the
daemon of this machine is down: then it says what can still be known. The exit
code is 1 when something is wrong.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := checkOutput(output); err != nil {
				return err
			}
			survey, err := a.survey(cmd.Context())
			if err != nil {
				return errors.Join(err, a.describeLocal(cmd.OutOrStdout(), output))
			}
			if err := show(cmd.OutOrStdout(), output, survey, func(w io.Writer) { printSurvey(w, survey, time.Now()) }); err != nil {
				return err
			}
			return survey.Verdict()
		},
	}
	a.addFlags(command)
	addOutput(command, &output)
	return command
}

// survey looks around, with the machine's own authority when the roles of
// administrators cannot be read because the store does not answer.
func (a *access) survey(ctx context.Context) (*join.Survey, error) {
	administrator, err := a.administrator(ctx)
	if err != nil {
		return nil, err
	}
	survey, err := administrator.LookAround(ctx)
	if err != nil && (apierrors.IsForbidden(err) || apierrors.IsUnauthorized(err)) && a.kubeconfig == "" {
		emergency, emergencyErr := administrator.Emergency(up.Layout{Root: a.root})
		if emergencyErr != nil {
			return nil, errors.Join(err, emergencyErr)
		}
		return emergency.LookAround(ctx)
	}
	return survey, err
}

// describeLocal says what is known of this machine when no API server answers.
func (a *access) describeLocal(w io.Writer, output string) error {
	if a.kubeconfig != "" || output == "json" {
		return nil
	}
	l := up.Layout{Root: a.root}
	machine, err := l.Machine()
	if err != nil {
		return err
	}
	fmt.Fprintln(w, "No API server answers. What this machine knows:")
	if machine != nil {
		fmt.Fprintf(w, "  role      %s, cluster %s\n", machine.Role, machine.CAHash)
		if len(machine.ControlAddresses) > 0 {
			fmt.Fprintf(w, "  joined    by %v\n", machine.ControlAddresses)
		}
	}
	for _, daemon := range l.Daemons() {
		fmt.Fprintf(w, "  %-9s %s\n", daemon.Name, daemon.State)
	}
	return nil
}

// byteSize is a number of bytes as people read it.
func byteSize(n int64) string {
	if n < 1<<20 {
		return fmt.Sprintf("%.1f KiB", float64(n)/(1<<10))
	}
	return fmt.Sprintf("%.1f MiB", float64(n)/(1<<20))
}

func printSurvey(w io.Writer, s *join.Survey, now time.Time) {
	voters, leader, revision, keys, size := 0, "none", int64(0), int64(0), int64(0)
	for _, machine := range s.Machines {
		if m := machine.Member; m != nil {
			if m.Voter {
				voters++
			}
			if m.Leader {
				leader = machine.Name()
			}
		}
		if st := machine.Status; st != nil && st.Store.Revision >= revision {
			revision, keys, size = st.Store.Revision, st.Store.Keys, st.Store.Bytes
		}
	}
	verdict := "healthy"
	if !s.Healthy {
		verdict = "NOT HEALTHY"
	}
	fmt.Fprintf(w, "Cluster   %s\n", verdict)
	fmt.Fprintf(w, "Store     leader %s, revision %d, %d keys, %s; survives the loss of %d of %d voters\n",
		leader, revision, keys, byteSize(size), max(0, (voters-1)/2), voters)
	if s.Nodes >= 0 {
		fmt.Fprintf(w, "Nodes     %d of %d Ready\n", s.ReadyNodes, s.Nodes)
	}
	fmt.Fprintln(w)
	printMachines(w, s, now)
	for i, problem := range s.Problems {
		if i == 0 {
			fmt.Fprintln(w, "\nProblems")
		}
		fmt.Fprintln(w, "  "+problem)
	}
}

func printMachines(w io.Writer, s *join.Survey, now time.Time) {
	table := tabwriter.NewWriter(w, 0, 0, 3, ' ', 0)
	fmt.Fprintln(table, "MACHINE\tMEMBER\tPEER ADDRESS\tROLE\tREVISION\tLAG\tVERSION\tUP\tNEXT CERTIFICATE ENDS")
	for _, machine := range s.Machines {
		member, address, role, revision, lag := "-", "-", "-", "-", "-"
		if m := machine.Member; m != nil {
			member, address, role = m.ID, m.Address, "voter"
			switch {
			case m.Leader:
				role = "leader"
			case !m.Voter:
				role = "joining"
			}
			if m.Reachable {
				revision, lag = fmt.Sprint(m.Revision), fmt.Sprint(m.Lag)
			} else {
				role += ", unreachable"
			}
		}
		version, alive, ends := "-", "-", "-"
		if st := machine.Status; st != nil {
			version, alive = st.Version, duration.HumanDuration(now.Sub(st.Started))
			if len(st.Certificates) > 0 {
				first := st.Certificates[0]
				ends = fmt.Sprintf("%s in %s", first.Name, duration.HumanDuration(first.NotAfter.Sub(now)))
			}
		}
		fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n", machine.Name(), member, address, role, revision, lag, version, alive, ends)
	}
	_ = table.Flush()
}
