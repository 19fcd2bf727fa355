package main

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/skiff-run/skiff/cmd/skiff/join"
)

func newMemberCommand() *cobra.Command {
	var a access
	command := &cobra.Command{
		Use:   "member",
		Short: "List, remove and promote the members of the store",
		Long: `List, remove and promote the members of the store, one on each control machine.
A member is named by its id, the beginning of it, its node's name or its address.

A machine that lives leaves by "skiff reset --yes" typed there. One that is lost
for good is removed here: "skiff member remove", then "kubectl delete node".`,
		Args: cobra.NoArgs,
	}
	a.addFlags(command)
	command.AddCommand(newMemberListCommand(&a),
		memberChange(&a, "remove", "Take a member out of the store for good",
			`Take a member out of the store for good. Refused when the members that are left
would have no majority. The machine's daemon stops serving; it comes back by
"skiff reset --yes" and "skiff join" typed there.`,
			func(ctx context.Context, admin *join.Administrator, id string) error {
				return admin.RemoveMember(ctx, id)
			}),
		memberChange(&a, "promote", "Make a member vote now instead of when it has caught up by itself",
			`Make a member vote. It happens by itself once a new member has caught up;
refused while it has not.`,
			func(ctx context.Context, admin *join.Administrator, id string) error {
				return admin.PromoteMember(ctx, id)
			}))
	return command
}

func newMemberListCommand(a *access) *cobra.Command {
	var output string
	command := &cobra.Command{
		Use: "list", Aliases: []string{"ls"}, Short: "List the members", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := checkOutput(output); err != nil {
				return err
			}
			survey, err := a.survey(cmd.Context())
			if err != nil {
				return err
			}
			return show(cmd.OutOrStdout(), output, survey.Machines, func(w io.Writer) { printMachines(w, survey, time.Now()) })
		},
	}
	addOutput(command, &output)
	return command
}

// memberChange is a command that changes one member.
func memberChange(a *access, verb, short, long string, change func(context.Context, *join.Administrator, string) error) *cobra.Command {
	return &cobra.Command{
		Use: verb + " MEMBER", Short: short, Long: long,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) != 1 {
				return fmt.Errorf("name one member, which \"skiff member list\" shows")
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			administrator, err := a.administrator(cmd.Context())
			if err != nil {
				return err
			}
			machine, err := a.resolve(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			if err := change(cmd.Context(), administrator, machine.Member.ID); err != nil {
				return err
			}
			fmt.Fprintf(cmd.OutOrStdout(), "%sd %s (%s)\n", verb, machine.Member.ID, machine.Name())
			return nil
		},
	}
}

func (a *access) resolve(ctx context.Context, name string) (*join.Machine, error) {
	survey, err := a.survey(ctx)
	if err != nil {
		return nil, err
	}
	return survey.Resolve(name)
}

func newLeaderCommand() *cobra.Command {
	var a access
	command := &cobra.Command{Use: "leader", Short: "Hand the store's leadership over", Args: cobra.NoArgs}
	a.addFlags(command)
	command.AddCommand(&cobra.Command{
		Use:   "transfer [MEMBER]",
		Short: "Make another member the leader, the best one unless named",
		Long: `Make another member of the store the leader: the one that is named, or the one
that is most caught up and has no problem. Scheduler and controllers move with
it. Do it before work on the machine that leads; stopping its daemon does it too.`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			administrator, err := a.administrator(cmd.Context())
			if err != nil {
				return err
			}
			id := ""
			if len(args) == 1 {
				machine, err := a.resolve(cmd.Context(), args[0])
				if err != nil {
					return err
				}
				id = machine.Member.ID
			}
			if err := administrator.TransferLeadership(cmd.Context(), id); err != nil {
				return err
			}
			name, err := administrator.WaitForLeader(cmd.Context(), id)
			if err != nil {
				return err
			}
			fmt.Fprintf(cmd.OutOrStdout(), "%s leads\n", name)
			return nil
		},
	})
	return command
}
