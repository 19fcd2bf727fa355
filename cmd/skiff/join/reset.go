package join

import (
	"context"
	"fmt"
	"io"
	"slices"

	"github.com/skiff-run/skiff/cmd/skiff/up"
	"github.com/skiff-run/skiff/internal/operator"
)

// Reset takes this machine out of its cluster, stops it and removes its data.
// With force it goes on when the cluster cannot be told.
func Reset(ctx context.Context, l up.Layout, force bool, out io.Writer) error {
	machine, err := l.Machine()
	if err != nil && !force {
		return fmt.Errorf("%w\nWith --force the data is removed without leaving the cluster", err)
	}
	if machine != nil && machine.Role == operator.Control {
		if err := leaveCluster(ctx, l, machine, out); err != nil {
			if !force {
				return fmt.Errorf("%w\nNothing was changed. With --force the data is removed all the same; then, on another control machine: \"skiff member remove\" and \"kubectl delete node\"", err)
			}
			fmt.Fprintf(out, "the cluster was not told: %v\n", err)
		}
	}
	if err := up.Reset(ctx, l, out); err != nil {
		return err
	}
	if machine != nil && machine.Role == operator.Worker {
		fmt.Fprintln(out, "On a control machine: \"kubectl delete node\" forgets this one.")
	}
	return nil
}

// leaveCluster removes this machine's member from the store, unless it is the
// last, and its node.
func leaveCluster(ctx context.Context, l up.Layout, machine *up.Machine, out io.Writer) error {
	s, err := newSite(l)
	if err != nil {
		return err
	}
	id, err := s.memberID()
	if err != nil || id == "" {
		return err
	}
	own := s.plan.Control.Address()
	administrator, err := NewAdministrator(l.AdminKubeconfig(), append(slices.Clone(machine.ControlAddresses), own)...)
	if err != nil {
		return err
	}
	status, err := administrator.patiently(ctx)
	if err != nil {
		return fmt.Errorf("ask the cluster to let this machine go: %w", err)
	}
	members, err := administrator.membersPatiently(ctx)
	if err != nil {
		return fmt.Errorf("list the store's members: %w", err)
	}
	others := slices.DeleteFunc(slices.Clone(members), func(m operator.Member) bool { return m.ID == id })
	if len(others) == len(members) || len(others) == 0 {
		return nil // removed before, or the last one: the cluster ends with it
	}
	// Another machine is asked, because this one stops to answer when it is removed.
	addresses := slices.DeleteFunc(slices.Clone(status.ControlAddresses), func(each string) bool { return each == own })
	if len(addresses) == 0 {
		return fmt.Errorf("no other API server is known")
	}
	if administrator, err = NewAdministrator(l.AdminKubeconfig(), addresses...); err != nil {
		return err
	}
	if err := leave(ctx, administrator, id, s.plan.Agent.NodeName); err != nil {
		return err
	}
	fmt.Fprintf(out, "member %s is removed from the store\n", id)
	return nil
}
