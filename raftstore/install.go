package raftstore

import (
	"fmt"

	"github.com/hashicorp/raft"

	"github.com/skiff-run/skiff/raftstore/disk"
)

// A leader that has cut its log sends a member its newest snapshot instead of
// entries. The library then empties the member's log, but goes on to believe in
// the last entry it had: it claims entries it has no more, loses some that it
// had acknowledged, and panics when they shall be executed (hashicorp/raft issue
// 697). That happens to a member whose log reaches at least as far as the
// snapshot; so for such a member the snapshot never reaches the library.

// installing decides what to do with a snapshot that ends with the entry
// (index, term), before raft sees it: true means that this member has all of it
// already and only says so.
func (s *Store) installing(request *raft.InstallSnapshotRequest) (have bool, err error) {
	index, term := request.LastLogIndex, request.LastLogTerm
	if s.raft.AppliedIndex() >= index {
		return true, nil // installing would take the state back
	}
	first, last, err := s.wal.Bounds()
	if err != nil || last < index {
		return false, err // nothing the library could get wrong
	}
	var entry raft.Log
	if first > index {
		return false, fmt.Errorf("the log begins at entry %d, but entry %d was not executed yet", first, index)
	}
	if err := s.wal.GetLog(index, &entry); err != nil {
		return false, err
	}
	if entry.Term == term {
		// Logs with the same entry are the same up to it.
		return true, nil
	}
	// These entries are of a leader that could not commit them: another entry was
	// committed in place of this one, so none of them ever will be. The library
	// cannot be made to forget them, only a new instance of it does.
	if err := s.wal.DeleteRange(index, last); err != nil {
		return false, err
	}
	return false, s.guard.Fail(fmt.Errorf("entries %d to %d of the log were never committed and have been replaced by the leader's; "+
		"they were cut off, and this member has to start again to take the leader's snapshot", index, last))
}

// received is called for each message of raft before raft gets it. It reports
// true when the message needs nothing more.
func (s *Store) received(rpc raft.RPC) (answered bool) {
	select {
	case <-s.started:
	default:
		return false // raft is not there yet: the message waits for it
	}
	if entries, ok := rpc.Command.(*raft.AppendEntriesRequest); ok {
		if first, err := s.wal.FirstIndex(); err == nil {
			narrow(entries, first, s.raft.AppliedIndex())
		}
		return false
	}
	request, ok := rpc.Command.(*raft.InstallSnapshotRequest)
	if !ok {
		return false
	}
	have, err := s.installing(request)
	if err != nil {
		s.running.Go(func() { turnAway(rpc, err) })
		return true
	}
	if !have {
		return false
	}
	s.log.Info("the leader's snapshot holds nothing new", "index", request.LastLogIndex)
	answer := &raft.InstallSnapshotResponse{Term: s.raft.CurrentTerm(), Success: true}
	answer.RPCHeader = raft.RPCHeader{ProtocolVersion: raft.ProtocolVersionMax, ID: []byte(s.id.ID), Addr: s.transport.EncodePeer(raft.ServerID(s.id.ID), s.transport.LocalAddr())}
	s.running.Go(func() { answerUnread(rpc, answer) })
	return true
}

// narrow makes of a leader's message what raft can deal with on a member whose
// log begins at first (0: it is empty) and which has executed all up to applied.
//
//   - The library commits up to the end of the member's log, though the message
//     vouches only for the log up to its last entry: behind that may be entries of
//     a leader that could not commit them. So what it says of commits is cut there.
//   - It asks for the entry before the first one. A member that took a snapshot
//     has cut that off, and a leader that does not know so would begin before
//     that again and again, and after its own older snapshot too. What was executed
//     was committed, so it is the same everywhere: those entries are left out,
//     and nothing needs to be compared before them.
func narrow(m *raft.AppendEntriesRequest, first, applied uint64) {
	last := m.PrevLogEntry
	if n := len(m.Entries); n > 0 {
		last = m.Entries[n-1].Index
	}
	m.LeaderCommitIndex = min(m.LeaderCommitIndex, last)
	if m.PrevLogEntry == 0 || m.PrevLogEntry >= applied || first != 0 && m.PrevLogEntry >= first {
		return
	}
	for len(m.Entries) > 0 && m.Entries[0].Index <= applied {
		m.Entries = m.Entries[1:]
	}
	m.PrevLogEntry, m.PrevLogTerm = 0, 0
}

// settleLog completes what a crash between installing a snapshot and emptying
// the log left: a log that does not lead on from the snapshot is superseded by
// it. A log that lost entries is not meant here; the high-water mark knows those.
func settleLog(log *disk.Log, r restored) error {
	first, last, err := log.Bounds()
	if err != nil || last == 0 || r.index == 0 {
		return err
	}
	superseded := last < r.index
	if !superseded && first <= r.index {
		var entry raft.Log
		if err := log.GetLog(r.index, &entry); err != nil {
			return err
		}
		superseded = entry.Term != r.term
	}
	if !superseded {
		return nil
	}
	return log.DeleteRange(first, last)
}
