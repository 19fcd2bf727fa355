package main

import (
	"errors"
	"fmt"
	"io"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/skiff-run/skiff/cmd/skiff/join"
	"github.com/skiff-run/skiff/cmd/skiff/up"
	"github.com/skiff-run/skiff/raftstore"
)

func newSnapshotCommand() *cobra.Command {
	command := &cobra.Command{
		Use:   "snapshot",
		Short: "Save, inspect and restore the whole state of the cluster",
		Long: `Save, inspect and restore the whole state of the cluster: every object of the
API, as one file that verifies itself. The file holds the cluster's secrets; so
do /etc/skiff/pki, without which a snapshot restores the objects but not the
identity of the cluster. Keep both, apart from the machines.`,
		Args: cobra.NoArgs,
	}
	command.AddCommand(newSnapshotSaveCommand(), newSnapshotInspectCommand(), newSnapshotRestoreCommand())
	return command
}

func oneFile(_ *cobra.Command, args []string) error {
	if len(args) != 1 {
		return errors.New("name one snapshot file")
	}
	return nil
}

func newSnapshotSaveCommand() *cobra.Command {
	var a access
	var output string
	command := &cobra.Command{
		Use: "save FILE", Short: "Save the state of the cluster to a new file",
		Long: `Save the state of the cluster as it is now to a new file. Writes go on meanwhile.
The file is there when it is complete and verified, or not at all.`,
		Args: oneFile,
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := checkOutput(output); err != nil {
				return err
			}
			administrator, err := a.administrator(cmd.Context())
			if err != nil {
				return err
			}
			info, err := administrator.SaveSnapshot(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			return show(cmd.OutOrStdout(), output, info, func(w io.Writer) { printSnapshot(w, info) })
		},
	}
	a.addFlags(command)
	addOutput(command, &output)
	return command
}

func newSnapshotInspectCommand() *cobra.Command {
	var output string
	command := &cobra.Command{
		Use: "inspect FILE", Short: "Verify a snapshot file and say what is in it", Args: oneFile,
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := checkOutput(output); err != nil {
				return err
			}
			info, err := join.InspectSnapshot(args[0])
			if err != nil {
				return err
			}
			return show(cmd.OutOrStdout(), output, info, func(w io.Writer) { printSnapshot(w, info) })
		},
	}
	addOutput(command, &output)
	return command
}

func printSnapshot(w io.Writer, info raftstore.SnapshotInfo) {
	table := tabwriter.NewWriter(w, 0, 0, 3, ' ', 0)
	for _, line := range [][2]string{
		{"Taken", info.Time.Format(time.RFC3339)},
		{"Cluster", info.ClusterID},
		{"Member", info.MemberID},
		{"Revision", fmt.Sprint(info.Revision)},
		{"Keys", fmt.Sprint(info.Keys)},
		{"Size", byteSize(info.Bytes)},
		{"SHA-256", info.SHA256},
	} {
		fmt.Fprintf(table, "%s\t%s\n", line[0], line[1])
	}
	_ = table.Flush()
}

func newSnapshotRestoreCommand() *cobra.Command {
	var root string
	var replace bool
	command := &cobra.Command{
		Use: "restore FILE", Short: "Make a new store on this machine out of a snapshot file",
		Long: `Make a new store with one member, on this machine, out of a snapshot file. The
file is verified first. The new store is a cluster of its own: members of the
one the snapshot came from do not talk to it, and its revision has jumped, so
that every client lists anew.

A store that is there already is only replaced with --replace, and kept beside.
A skiff-control that runs is stopped meanwhile; pods go on.`,
		Args: oneFile,
		RunE: func(cmd *cobra.Command, args []string) error {
			return join.Restore(cmd.Context(), up.Layout{Root: root}, args[0], replace, cmd.OutOrStdout())
		},
	}
	command.Flags().StringVar(&root, "root", "/", "folder below which the cluster keeps all its files")
	command.Flags().BoolVar(&replace, "replace", false, "move a store that is there aside")
	return command
}

func newRecoverCommand() *cobra.Command {
	var root string
	var yes bool
	command := &cobra.Command{
		Use:   "recover",
		Short: "Go on with this machine alone after the majority was lost for good",
		Long: `Make the store's member on this machine the only one, after the majority of
control machines was lost for good and will not come back. Writes that only the
lost machines had are lost. Of several machines that are left take the one whose
"skiff status" shows the highest revision.

It refuses while the store has a leader. The recovered store is a new cluster:
a lost machine that comes back after all cannot disturb it; reset it and join it
again.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if !yes {
				return errors.New("recover gives up every write that only the lost machines had: add --yes if they are lost for good")
			}
			return join.Recover(cmd.Context(), up.Layout{Root: root}, cmd.OutOrStdout())
		},
	}
	command.Flags().StringVar(&root, "root", "/", "folder below which the cluster keeps all its files")
	command.Flags().BoolVar(&yes, "yes", false, "the other machines are lost for good")
	return command
}
