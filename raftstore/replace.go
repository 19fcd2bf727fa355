package raftstore

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/hashicorp/raft"

	"github.com/skiff-run/skiff/raftstore/disk"
)

// DamageError is what Open returns when something in the directory is not what
// was written there; Replace is the way back while a majority lives.
type DamageError = disk.DamageError

const (
	// acquaintedName is the file with the members this one knew last: whoever
	// lost its log can still find the others.
	acquaintedName = "members.json"
	// remindAgain is how often a member without a majority says so.
	remindAgain = 10 * time.Second
	// replacementName notes the id of the member that takes this one's place.
	replacementName = "replacement.json"
)

// acquainted is the content of members.json.
type acquainted struct {
	Members []FormerMember `json:"members"`
}

// rememberMembers writes down the members of the newest configuration, for
// Replace. That it fails costs nothing but that way back.
func (s *Store) rememberMembers(servers []raft.Server) {
	var known acquainted
	for _, server := range servers {
		known.Members = append(known.Members, FormerMember{ID: string(server.ID), Address: string(server.Address), Voter: server.Suffrage == raft.Voter})
	}
	raw, err := json.Marshal(known)
	if err == nil {
		err = disk.WriteFile(s.options.fs(), filepath.Join(s.options.Dir, acquaintedName), append(raw, '\n'))
	}
	if err != nil {
		s.log.Warn("could not note the members of the cluster", "file", acquaintedName, "error", err)
	}
}

// Replacement says what Replace did.
type Replacement struct {
	FormerID string `json:"formerID"`
	// MemberID is the new member, which waits in Dir to catch up; it needs a
	// certificate of its own.
	MemberID string `json:"memberID"`
	// Aside is where the former member's files are now.
	Aside string `json:"aside"`
}

// Replace is the way back for a member whose directory is damaged, see
// DamageError, while the others live. In the damaged member's name (o.Network
// must have its certificate) it asks the leader to put a new member in its
// place, which the leader refuses if a majority would be lost. Then it moves the
// files aside and leaves a directory in which the new member catches up. It
// needs member.json and members.json in the directory; without them remove the
// member at another one, empty the directory and join anew. If it is
// interrupted, at whatever step, here or at the leader, the directory does not open
// until it was run again. ErrRemoved: somebody removed the member. The Network is closed when it returns.
func Replace(ctx context.Context, o Options) (Replacement, error) {
	o, err := o.withDefaults()
	if err != nil {
		return Replacement{}, fmt.Errorf("replace damaged member: %w", err)
	}
	if o.Network == nil {
		return Replacement{}, errors.New("replace damaged member: a member without a Network has nobody to get its state from")
	}
	defer func() { _ = o.Network.Close() }() // nothing depends on how
	var done Replacement
	err = exclusive(o.fs(), o.Dir, func() error {
		done, err = replace(ctx, o)
		return err
	})
	if err != nil {
		return Replacement{}, fmt.Errorf("replace the damaged member in %s: %w", o.Dir, err)
	}
	return done, nil
}

func replace(ctx context.Context, o Options) (Replacement, error) {
	id, err := readIdentity(o.fs(), o.Dir)
	if err != nil {
		return Replacement{}, err
	}
	var known acquainted
	if err := readJSON(o.fs(), filepath.Join(o.Dir, acquaintedName), &known); err != nil {
		return Replacement{}, fmt.Errorf("find the other members: %w", err)
	}
	next, err := successorOf(o, id)
	if err != nil {
		return Replacement{}, err
	}
	if err := askForReplacement(ctx, o, id, next, known.Members); err != nil {
		return Replacement{}, err
	}
	aside, err := setAside(o, time.Now())
	if err != nil {
		return Replacement{}, err
	}
	if err := next.keep(o.fs(), o.Dir); err != nil {
		return Replacement{}, err
	}
	o.Logger.Warn("a damaged member is replaced by a new one", "former", id.ID, "member", next.ID, "aside", aside)
	return Replacement{FormerID: id.ID, MemberID: next.ID, Aside: aside}, nil
}

func readJSON(fs disk.FS, path string, into any) error {
	raw, err := disk.ReadFile(fs, path)
	if err == nil {
		err = json.Unmarshal(raw, into)
	}
	if err != nil {
		return fmt.Errorf("read %s: %w", path, err)
	}
	return nil
}

// successorOf chooses the new member's id, once.
func successorOf(o Options, id identity) (identity, error) {
	next := identity{ID: newID(), ClusterID: id.ClusterID, Joins: true, Replaces: id.ID}
	if id.Replaces != "" {
		next.Replaces = id.Replaces
	}
	path := filepath.Join(o.Dir, replacementName)
	var chosen identity
	if err := readJSON(o.fs(), path, &chosen); err == nil && chosen.ID != "" && chosen.ID != id.ID {
		next.ID = chosen.ID
		return next, nil
	}
	raw, err := json.Marshal(next)
	if err == nil {
		err = disk.WriteFile(o.fs(), path, raw)
	}
	if err != nil {
		return identity{}, fmt.Errorf("note the new member: %w", err)
	}
	return next, nil
}

// replacementPending is a DamageError when the member in dir is being replaced
// and that did not come to its end. Its files may have been moved aside in part:
// what is left could be taken for a member that has seen nothing yet.
func replacementPending(fs disk.FS, dir string, id identity) error {
	path := filepath.Join(dir, replacementName)
	var chosen identity
	if err := readJSON(fs, path, &chosen); errors.Is(err, os.ErrNotExist) || err == nil && chosen.ID == id.ID {
		return nil
	} else if err != nil {
		return &DamageError{Path: path, Detail: "it does not say which member takes this one's place", Err: err}
	}
	return &DamageError{Path: dir, Detail: fmt.Sprintf("member %s, which was damaged, is being replaced by %s, and that has not ended", id.ID, chosen.ID)}
}

// askForReplacement has the leader put the new member in the place of the old.
func askForReplacement(ctx context.Context, o Options, old, next identity, members []FormerMember) error {
	waiting := func(context.Context, string, []byte) []byte {
		return answerError(errors.New("this member is damaged and is being replaced"))
	}
	if _, err := o.Network.Start(Local{
		ID: old.ID, Address: o.Address, Admits: func(string) bool { return false }, Log: newHCLog(o.Logger),
	}, waiting); err != nil {
		return fmt.Errorf("reach the other members: %w", err)
	}
	asking := &Store{options: o, id: old}
	asking.cluster.Store(&old.ClusterID)
	body := encodeStrings(old.ID, next.ID, o.Address)
	others := slices.DeleteFunc(slices.Clone(members), func(m FormerMember) bool { return m.ID == old.ID })
	if len(others) == 0 {
		return errors.New("this was the only member: nobody else has its state")
	}
	for reminded := (time.Time{}); ; {
		var failures []error
		for _, m := range others {
			trying, cancel := context.WithTimeout(ctx, 5*memberPatience)
			_, err := asking.call(trying, m.ID, m.Address, callReplace, body)
			cancel()
			switch {
			case err == nil:
				return nil
			case errors.Is(err, ErrRefused), errors.Is(err, ErrRemoved):
				return err
			}
			failures = append(failures, err)
		}
		if time.Since(reminded) > remindAgain {
			reminded = time.Now()
			o.Logger.Warn("no leader replaces this member yet; a majority of the others has to run", "error", errors.Join(failures...))
		}
		select {
		case <-time.After(10 * askAgain):
		case <-ctx.Done():
			return fmt.Errorf("no leader replaces this member: %w", errors.Join(append(failures, ctx.Err())...))
		}
	}
}

// setAside moves all of a member's files but the lock into a folder beside them.
func setAside(o Options, now time.Time) (string, error) {
	aside := filepath.Join(o.Dir, "damaged-"+now.UTC().Format("20060102T150405Z"))
	fs := o.fs()
	for _, folder := range []string{logDir, snapshotDir, ""} {
		from, to := filepath.Join(o.Dir, folder), filepath.Join(aside, folder)
		names, err := fs.ReadDir(from)
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err == nil {
			err = disk.MakeDir(fs, to)
		}
		if err != nil {
			return "", fmt.Errorf("set files aside: %w", err)
		}
		for _, name := range names {
			// The identity goes last of all: until then this can be run again.
			if folder == "" && (name == disk.LockName || name == identityName || name == replacementName || name == acquaintedName) {
				continue
			}
			if err := fs.Rename(filepath.Join(from, name), filepath.Join(to, name)); err != nil {
				return "", fmt.Errorf("set files aside: %w", err)
			}
		}
		if err := errors.Join(fs.SyncDir(to), fs.SyncDir(from)); err != nil {
			return "", fmt.Errorf("set files aside: %w", err)
		}
	}
	return aside, nil
}

// replaced is Replace on the leader; another member passes it on. Each step is a
// change of the configuration, and the former member stays in it until the new
// one is: whoever leads can be asked again after any of them.
func (s *Store) replaced(ctx context.Context, from string, a []string) error {
	old, next, address := a[0], a[1], a[2]
	if from != old && !s.admits(from) {
		return s.farewellTo(from)
	}
	if !s.IsLeader() {
		if from != old {
			return ErrNotLeader // it was passed on once
		}
		_, err := s.callLeaderOnce(ctx, callReplace, encodeStrings(old, next, address))
		return err
	}
	if err := checkMember(next, address); err != nil {
		return err
	}
	if old == s.id.ID || old == next {
		return fmt.Errorf("%w: %s is well", ErrRefused, old)
	}
	s.log.Warn("a damaged member asks to be replaced", "former", old, "member", next)
	if err := s.makeRoom(ctx, old, next); err != nil {
		return err
	}
	if err := s.add(ctx, next, address); err != nil {
		return err
	}
	if find(s.configuration().Servers, old) == nil {
		return nil
	}
	return s.removeOther(ctx, old)
}

// makeRoom takes a damaged member's address from it, because the library knows
// no two members with one. That one which was removed already, by somebody, has
// no successor is an error.
func (s *Store) makeRoom(ctx context.Context, old, next string) error {
	nowhere := raft.ServerAddress("replaced by " + next) // no address: nobody asks a name server about it
	return s.reconfigure(ctx, func(servers []raft.Server) (change, error) {
		member := find(servers, old)
		switch {
		case member == nil && find(servers, next) != nil:
			return nil, nil // an earlier attempt came to its end
		case member == nil:
			return nil, fmt.Errorf("%w: %q", ErrRemoved, old)
		case member.Address == nowhere:
			return nil, nil
		case member.Suffrage != raft.Voter:
			return func() raft.IndexFuture { return s.raft.AddNonvoter(member.ID, nowhere, 0, 0) }, nil
		}
		if err := mayRemove(s.hear(ctx, servers), old); err != nil {
			return nil, err
		}
		return func() raft.IndexFuture { return s.raft.AddVoter(member.ID, nowhere, 0, 0) }, nil
	})
}
