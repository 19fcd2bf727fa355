package raftstore

import "time"

// Status is what a person or a metrics scraper wants to know about a member.
type Status struct {
	MemberID string `json:"memberID"`
	// Address is where others reach this member, empty if it is alone.
	Address string `json:"address,omitempty"`
	// Leader: this member leads. LeaderID and LeaderAddress are empty when no
	// leader is known.
	Leader        bool   `json:"leader"`
	LeaderID      string `json:"leaderID,omitempty"`
	LeaderAddress string `json:"leaderAddress,omitempty"`
	// Voters counts the voting members of the newest known configuration.
	Voters int `json:"voters"`
	// Term, LogIndex and AppliedIndex are raft's.
	Term         uint64 `json:"term"`
	LogIndex     uint64 `json:"logIndex"`
	AppliedIndex uint64 `json:"appliedIndex"`
	// Lag is how many entries this member knows to be committed and has not
	// executed.
	Lag             uint64 `json:"lag"`
	Revision        int64  `json:"revision"`
	CompactRevision int64  `json:"compactRevision"`
	// Keys and Bytes are the live content, keys and values.
	Keys  int64 `json:"keys"`
	Bytes int64 `json:"bytes"`
	// HistoryEvents and HistoryBytes are what watches and old reads need.
	HistoryEvents int64 `json:"historyEvents"`
	HistoryBytes  int64 `json:"historyBytes"`
	// ClusterID names the cluster, empty while the member waits to be added.
	ClusterID string `json:"clusterID,omitempty"`
	// SlowDisk: writes of the log take long, see Options.SlowWrite.
	SlowDisk bool `json:"slowDisk,omitempty"`
	// Problem says why the store cannot write or does so slowly, empty if all is
	// well.
	Problem string `json:"problem,omitempty"`
}

// Status describes the member now.
func (s *Store) Status() Status {
	v := s.state.View()
	address, leader := s.raft.LeaderWithID()
	committed, applied := s.raft.CommitIndex(), s.raft.AppliedIndex()
	status := Status{
		MemberID:        s.id.ID,
		Address:         s.options.Address,
		LeaderAddress:   string(address),
		Leader:          s.IsLeader(),
		LeaderID:        string(leader),
		Voters:          s.voters(),
		Term:            s.raft.CurrentTerm(),
		LogIndex:        s.raft.LastIndex(),
		AppliedIndex:    applied,
		Lag:             committed - min(committed, applied),
		Revision:        v.Revision(),
		CompactRevision: v.CompactRevision(),
		Keys:            v.Keys(),
		Bytes:           v.Bytes(),
		HistoryEvents:   v.HistoryLen(),
		HistoryBytes:    v.HistoryBytes(),
		ClusterID:       s.ClusterID(),
	}
	slow := s.guard.Pace.Slow(time.Now())
	status.SlowDisk = slow != ""
	if err := s.guard.Failed(); err != nil {
		status.Problem = err.Error()
	} else if err := s.stalled.Load(); err != nil {
		status.Problem = (*err).Error()
	} else if s.removed.Load() {
		status.Problem = ErrRemoved.Error()
	} else {
		status.Problem = slow
	}
	return status
}
