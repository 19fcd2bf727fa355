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
	forget := func() error { return nil }
	if machine != nil && machine.Role == operator.Control {
		if forget, err = leaveCluster(ctx, l, out); err != nil {
			if !force {
				return fmt.Errorf("%w\nNothing was changed. With --force the data is removed all the same; then, on another control machine: \"skiff member remove\" and \"kubectl delete node\"", err)
			}
			fmt.Fprintf(out, "the cluster was not told: %v\n", err)
			forget = func() error { return nil }
		}
	}
	if err := up.Reset(ctx, l, out); err != nil {
		return err
	}
	if err := forget(); err != nil {
		return fmt.Errorf("%w\nDelete it on another control machine with kubectl", err)
	}
	if machine != nil && machine.Role == operator.Worker {
		fmt.Fprintln(out, "On a control machine: \"kubectl delete node\" forgets this one.")
	}
	return nil
}

// leaveCluster removes this machine's member from the store, unless it is the
// last. It returns what deletes the node once its agent has ended.
func leaveCluster(ctx context.Context, l up.Layout, out io.Writer) (forget func() error, err error) {
	forget = func() error { return nil }
	s, err := newSite(l)
	if err != nil {
		return forget, err
	}
	id, err := s.memberID()
	if err != nil || id == "" {
		return forget, err
	}
	own := s.plan.Control.Address()
	administrator, err := NewAdministrator(l.AdminKubeconfig(), l.Servers()...)
	if err != nil {
		return forget, err
	}
	status, err := administrator.patiently(ctx)
	if err != nil {
		return forget, fmt.Errorf("ask the cluster to let this machine go: %w", err)
	}
	members, err := administrator.membersPatiently(ctx)
	if err != nil {
		return forget, fmt.Errorf("list the store's members: %w", err)
	}
	others := slices.DeleteFunc(slices.Clone(members), func(m operator.Member) bool { return m.ID == id })
	if len(others) == len(members) || len(others) == 0 {
		return forget, nil // removed before, or the last one: the cluster ends with it
	}
	// Another machine is asked, because this one stops to answer when it is removed.
	addresses := slices.DeleteFunc(slices.Clone(status.ControlAddresses), func(each string) bool { return each == own })
	if len(addresses) == 0 {
		return forget, fmt.Errorf("no other API server is known")
	}
	if administrator, err = NewAdministratorAt(l.AdminKubeconfig(), addresses); err != nil {
		return forget, err
	}
	if err := leave(ctx, administrator, id); err != nil {
		return forget, err
	}
	fmt.Fprintf(out, "member %s is removed from the store\n", id)
	return func() error { return forgetNode(ctx, administrator, s.plan.Agent.NodeName) }, nil
}
