// Package join makes machines part of a cluster: it founds one (init), makes
// join tokens, joins further control machines and workers, and takes a machine
// out again.
//
// A join is authenticated both ways: the machine knows the cluster by the hash
// of its authority's key, the cluster knows the machine by its token. Every
// step can be repeated, and a join that fails leaves nothing behind, neither
// here nor in the cluster.
package join

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"k8s.io/apimachinery/pkg/util/duration"

	"github.com/skiff-run/skiff/cmd/skiff/up"
	"github.com/skiff-run/skiff/internal/config"
	"github.com/skiff-run/skiff/internal/operator"
)

// Init founds a cluster on this machine and prints how others join. Where the
// cluster is there already it is started if need be, and the lines are printed anew.
func Init(ctx context.Context, o *up.Options, ttl time.Duration, out io.Writer) error {
	if err := o.Check(operator.Control); err != nil {
		return err
	}
	machine, err := o.Machine()
	if err != nil {
		return err
	}
	if machine != nil && (machine.Role != operator.Control || machine.Joining) {
		return fmt.Errorf("this machine has joined a cluster as %s: \"skiff reset --yes\" takes it out again", title[machine.Role])
	}
	plan, err := o.Plan(operator.Control)
	if err != nil {
		return err
	}
	if !o.Running() {
		if err := plan.CheckPorts(); err != nil {
			return err
		}
		if err := o.Save(plan); err != nil {
			return err
		}
	}
	fmt.Fprintf(out, "This machine's address is %s; another one is chosen with --node-ip.\n", plan.Agent.NodeIP)
	if err := o.Start(ctx, plan, out); err != nil {
		return fmt.Errorf("%w\nThe daemons keep trying: see their logs, then run \"skiff init\" again, or give up with \"skiff reset --yes\"", err)
	}
	ca, err := os.ReadFile(filepath.Join(o.PKI(), "ca.crt"))
	if err != nil {
		return fmt.Errorf("read the cluster's authority: %w", err)
	}
	hash, err := hashOf(ca)
	if err != nil {
		return fmt.Errorf("the cluster's authority: %w", err)
	}
	// From now on a lost disk must not found a second cluster here.
	if err := o.Change(plan, func(control *config.Control, _ *config.Agent, _ *config.Proxy) { control.Join = control.PeerPort != 0 }); err != nil {
		return err
	}
	if err := o.Save(plan); err != nil {
		return err
	}
	if machine == nil {
		if err := o.SaveMachine(up.Machine{Role: operator.Control, CAHash: hash}); err != nil {
			return err
		}
	}
	return printLines(ctx, o, ttl, out)
}

// Joinable are the roles a machine can join in.
var Joinable = []operator.Role{operator.Control, operator.Worker}

// purpose says what a line is for.
var purpose = map[operator.Role]string{
	operator.Control: "Two more control machines make it survive the loss of any one. On each:",
	operator.Worker:  "Machines that only run pods join with:",
}

// printLines says how other machines join and what to type next.
func printLines(ctx context.Context, o *up.Options, ttl time.Duration, out io.Writer) error {
	administrator, err := NewAdministrator(o.AdminKubeconfig())
	if err != nil {
		return err
	}
	lines := map[operator.Role]string{}
	for _, role := range Joinable {
		token, err := administrator.CreateToken(ctx, role, ttl, "made by skiff init")
		if err != nil {
			return err
		}
		if lines[role], err = administrator.Line(token); err != nil {
			return err
		}
	}
	root := ""
	if o.Root != "/" {
		root = " --root " + o.Root
	}
	fmt.Fprintf(out, "\nThe cluster runs. To use it:\n  export KUBECONFIG=%s\n  kubectl get nodes\n", o.AdminKubeconfig())
	for _, role := range Joinable {
		fmt.Fprintf(out, "\n%s\n  %s\n", purpose[role], lines[role])
	}
	fmt.Fprintf(out, "\nThe tokens are good for %s; \"skiff token create%s\" makes new ones.\n", duration.HumanDuration(ttl), root)
	return nil
}

// Stay keeps the command in the foreground until ctx ends, and stops the
// daemons then.
func Stay(ctx context.Context, l up.Layout, out io.Writer) error {
	<-ctx.Done()
	fmt.Fprintln(out, "stopping")
	return up.Down(context.WithoutCancel(ctx), l, out)
}
