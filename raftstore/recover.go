package raftstore

import (
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"github.com/hashicorp/raft"

	"github.com/skiff-run/skiff/raftstore/command"
	"github.com/skiff-run/skiff/raftstore/disk"
)

// RecoverInfo says what Recover found and made.
type RecoverInfo struct {
	MemberID string `json:"memberID"`
	// LastIndex is the last record of the log that was found, Revision the
	// store's after it.
	LastIndex uint64 `json:"lastIndex"`
	Revision  int64  `json:"revision"`
	// LastWrite is when a leader appended the last record, on its clock.
	LastWrite time.Time `json:"lastWrite"`
	// FormerMembers are the other members of the cluster as this member knew it.
	FormerMembers []FormerMember `json:"formerMembers,omitempty"`
	// FormerClusterID and ClusterID name the cluster before and after.
	FormerClusterID string `json:"formerClusterID"`
	ClusterID       string `json:"clusterID"`
	// NewRevision is where the recovered store begins.
	NewRevision int64 `json:"newRevision"`
}

// FormerMember is a member a recovered cluster no longer has.
type FormerMember struct {
	ID      string `json:"id"`
	Address string `json:"address"`
	Voter   bool   `json:"voter"`
}

// Recover makes the member in dir, which must not run, the only voter of a new
// cluster that goes on with what this member has. It is the way back after the
// majority of a cluster was lost for good, and it may lose writes: those the
// lost members acknowledged without this one. Of several survivors take the one
// with the highest LastIndex. address replaces the one the others reached it
// by, "" keeps it.
//
// The cluster gets a new id, so a lost member that comes back after all cannot
// talk to it, and its revision jumps as after RestoreSnapshot. If Recover is
// interrupted it can be run again; so can it afterwards, for nothing but another
// jump.
func Recover(dir, address string) (RecoverInfo, error) {
	info, err := recoverMember(disk.OS, dir, address)
	if err != nil {
		return RecoverInfo{}, fmt.Errorf("recover the store in %s: %w", dir, err)
	}
	return info, nil
}

func recoverMember(fs disk.FS, dir, address string) (info RecoverInfo, err error) {
	id, err := readIdentity(fs, dir) // before the lock makes a file in a wrong directory
	if err != nil {
		return info, err
	}
	err = exclusive(fs, dir, func() error {
		info, err = recoverLocked(fs, dir, id, address)
		return err
	})
	return info, err
}

func recoverLocked(fs disk.FS, dir string, id identity, address string) (info RecoverInfo, err error) {
	options, err := Options{Dir: dir}.withDefaults()
	if err != nil {
		return info, err
	}
	log, err := openLogOffline(fs, dir, options)
	if err != nil {
		return info, err
	}
	defer func() { err = errors.Join(err, log.Close()) }()
	snapshots, err := disk.OpenSnapshots(fs, filepath.Join(dir, snapshotDir), snapshotsKept)
	if err != nil {
		return info, err
	}
	past, err := replay(log, snapshots, options)
	if err != nil {
		return info, err
	}
	info = RecoverInfo{MemberID: id.ID, FormerClusterID: id.ClusterID, LastIndex: past.index, Revision: past.fsm.state.Revision(), LastWrite: past.at}
	own := ""
	for _, server := range past.members.Servers {
		if string(server.ID) == id.ID {
			own = string(server.Address)
			continue
		}
		info.FormerMembers = append(info.FormerMembers, FormerMember{
			ID: string(server.ID), Address: string(server.Address), Voter: server.Suffrage == raft.Voter,
		})
	}
	if len(past.members.Servers) == 0 {
		return info, errors.New("this member was never part of a cluster: there is nothing to recover")
	}
	if address == "" {
		address = own
	}
	// The new id first: from now on the lost members are strangers.
	id.ClusterID, id.Removed = newID(), false
	if err := id.keep(fs, dir); err != nil {
		return info, err
	}
	info.ClusterID = id.ClusterID
	jump := revisionJump(past.at, time.Now())
	info.NewRevision = info.Revision + jump
	return info, begin(log, past, soleVoter(id.ID, address), jump)
}

// past is all a member's directory says about the store.
type past struct {
	fsm         *fsm
	index, term uint64
	at          time.Time // of the last record
	members     raft.Configuration
}

// replay loads snapshot and log without raft, also what was not committed:
// nobody is left to say what was.
func replay(log *disk.Log, snapshots *disk.Snapshots, options Options) (*past, error) {
	newest, err := restoreNewest(snapshots, log, options.Logger)
	if err != nil {
		return nil, err
	}
	p := &past{fsm: newest.fsm, index: newest.index}
	list, err := snapshots.List()
	if err != nil {
		return nil, err
	}
	if len(list) > 0 {
		p.term, p.members = list[0].Term, list[0].Configuration
	}
	var damage error
	p.fsm.fatal = func(err error) { damage = errors.Join(damage, err) }
	_, last, err := log.Bounds()
	if err != nil {
		return nil, err
	}
	for i := p.index + 1; i <= last; i++ {
		entry := new(raft.Log)
		if err := log.GetLog(i, entry); err != nil {
			return nil, fmt.Errorf("read record %d: %w", i, err)
		}
		p.index, p.term = entry.Index, entry.Term
		if !entry.AppendedAt.IsZero() {
			p.at = entry.AppendedAt
		}
		if entry.Type == raft.LogConfiguration {
			p.members = raft.DecodeConfiguration(entry.Data)
		}
		p.fsm.Apply(entry)
	}
	return p, damage
}

// begin appends, in one write, the new configuration and the jump.
func begin(log *disk.Log, p *past, members raft.Configuration, jump int64) error {
	stable := log.Stable()
	term, err := stable.GetUint64([]byte(keyCurrentTerm))
	if err != nil {
		return err
	}
	term = max(term, p.term) + 1
	if err := stable.SetUint64([]byte(keyCurrentTerm), term); err != nil {
		return err
	}
	batch := command.Batch{Origin: newOrigin(), Commands: []command.Command{{Kind: command.Jump, Sequence: 1, Revision: jump}}}
	now := time.Now()
	return log.StoreLogs([]*raft.Log{
		{Index: p.index + 1, Term: term, Type: raft.LogConfiguration, Data: raft.EncodeConfiguration(members), AppendedAt: now},
		{Index: p.index + 2, Term: term, Type: raft.LogCommand, Data: batch.Encode(nil), AppendedAt: now},
	})
}
