package join

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/skiff-run/skiff/cmd/skiff/up"
	"github.com/skiff-run/skiff/internal/operator"
	"github.com/skiff-run/skiff/raftstore"
)

// site is a control machine's store, as its configuration has it.
type site struct {
	options *up.Options
	plan    *up.Plan
	// store is the folder, peer the address of the member that lives in it.
	store, peer string
}

func newSite(l up.Layout) (*site, error) {
	o := up.DefaultOptions()
	o.Layout = l
	machine, err := l.Machine()
	if err != nil {
		return nil, err
	}
	if machine != nil && machine.Role != operator.Control {
		return nil, errors.New("this machine is a worker, it has no store: run this on a control machine")
	}
	plan, err := o.Plan(operator.Control)
	if err != nil {
		return nil, err
	}
	s := &site{options: o, plan: plan, store: filepath.Join(plan.Control.DataDir, "store"), peer: plan.Control.Peer()}
	return s, nil
}

// memberID is the id of the member in the store; empty when there is none.
func (s *site) memberID() (string, error) {
	id, err := raftstore.MemberID(s.store)
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	return id, err
}

// Recover makes the member on this machine the only one of its store, after
// the majority was lost for good, and starts its daemon again if it ran.
func Recover(ctx context.Context, l up.Layout, out io.Writer) error {
	s, err := newSite(l)
	if err != nil {
		return err
	}
	if _, err := os.Stat(s.store); errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("there is no store in %s: run this on a machine that had one, or restore a snapshot with \"skiff snapshot restore\"", s.store)
	}
	if err := refuseWithLeader(ctx, l); err != nil {
		return err
	}
	var info raftstore.RecoverInfo
	if err := s.options.WithControlStopped(ctx, func() error {
		info, err = raftstore.Recover(s.store, s.peer)
		return err
	}); err != nil {
		return err
	}
	fmt.Fprintf(out, "Member %s is now the only one of its store, a new cluster at revision %d.\n", info.MemberID, info.NewRevision)
	fmt.Fprintf(out, "It goes on from revision %d, last written %s: what other members acknowledged after that is lost.\n", info.Revision, info.LastWrite.Format(time.RFC3339))
	for _, former := range info.FormerMembers {
		fmt.Fprintf(out, "No longer a member: %s at %s. If that machine comes back: \"skiff reset --yes --force\" there, then join it again.\n", former.ID, former.Address)
	}
	fmt.Fprintln(out, "Agents and controllers list everything anew. Next: \"skiff status\", then \"skiff token create --role control\" and join two machines.")
	return nil
}

// refuseWithLeader refuses to cut a store apart that works.
func refuseWithLeader(ctx context.Context, l up.Layout) error {
	administrator, err := NewAdministrator(l.AdminKubeconfig())
	if err != nil {
		return nil // nobody to ask
	}
	if emergency, err := administrator.Emergency(l); err == nil {
		administrator = emergency
	}
	members, err := administrator.membersPatiently(ctx)
	if err != nil {
		return nil // no leader, or no server
	}
	for _, member := range members {
		if member.Leader {
			return fmt.Errorf("the store has a leader, %s at %s, so its majority is not lost: remove lost members with \"skiff member remove\" instead", member.ID, member.Address)
		}
	}
	return nil
}

// Restore makes a new store with one member out of a snapshot file. A store
// that is there already is moved aside when replace says so.
func Restore(ctx context.Context, l up.Layout, path string, replace bool, out io.Writer) error {
	s, err := newSite(l)
	if err != nil {
		return err
	}
	// Verified before anything is touched.
	if _, err := InspectSnapshot(path); err != nil {
		return err
	}
	aside := ""
	entries, err := os.ReadDir(s.store)
	switch {
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("look into the store: %w", err)
	case len(entries) > 0 && !replace:
		return fmt.Errorf("there is a store in %s: with --replace it is moved aside and the snapshot takes its place", s.store)
	case len(entries) > 0:
		aside = s.store + ".before-" + time.Now().UTC().Format("20060102T150405Z")
	}
	var info raftstore.SnapshotInfo
	if err := s.options.WithControlStopped(ctx, func() error {
		if aside != "" {
			if err := os.Rename(s.store, aside); err != nil {
				return fmt.Errorf("move the store aside: %w", err)
			}
		}
		info, err = s.restore(path)
		if err != nil && aside != "" {
			return errors.Join(err, os.RemoveAll(s.store), os.Rename(aside, s.store))
		}
		return err
	}); err != nil {
		return err
	}
	fmt.Fprintf(out, "Restored %d keys as of %s; member %s is the only one of a new store at revision %d.\n",
		info.Keys, info.Time.Format(time.RFC3339), info.Restored.MemberID, info.Restored.Revision)
	if aside != "" {
		fmt.Fprintf(out, "The store that was there before is in %s.\n", aside)
	}
	fmt.Fprintln(out, "Other control machines of the old store: \"skiff reset --yes --force\" on each, then join them again.")
	if !s.options.Running() {
		fmt.Fprintln(out, "Start the cluster with \"skiff init\".")
	}
	return nil
}

func (s *site) restore(path string) (raftstore.SnapshotInfo, error) {
	file, err := os.Open(path)
	if err != nil {
		return raftstore.SnapshotInfo{}, fmt.Errorf("open snapshot: %w", err)
	}
	defer file.Close()
	return raftstore.RestoreSnapshot(s.store, "", s.peer, file)
}
