package raftstore

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/hashicorp/raft"

	"github.com/skiff-run/skiff/raftstore/disk"
)

// cutShort are bounds by which a member that was away needs a snapshot.
var cutShort = Options{TrailingEntries: 1, SnapshotEntries: 1 << 40, SegmentSize: 8 << 10}

// write makes n writes of different keys through a member.
func (c *cluster) write(s *Store, name string, n int) {
	c.t.Helper()
	for i := range n {
		mustPut(c.t, s, fmt.Sprintf("/r/%s/%d", name, i%50), strings.Repeat("v", 100)+fmt.Sprint(i), AnyRevision)
	}
}

// forget makes a member keep as little log as it may.
func (c *cluster) forget(s *Store) {
	c.t.Helper()
	for range 2 {
		c.write(s, "filler", 1)
		if err := s.archivist.snapshot(); err != nil {
			c.t.Fatal(err)
		}
	}
	c.write(s, "filler", 1)
}

// newestSnapshot is the message by which a leader would send its newest
// snapshot, and its content.
func newestSnapshot(t *testing.T, leader *Store) (*raft.InstallSnapshotRequest, []byte) {
	t.Helper()
	list, err := leader.snapshots.List()
	if err != nil || len(list) == 0 {
		t.Fatalf("snapshots %v, %v", list, err)
	}
	meta, source, err := leader.snapshots.Open(list[0].ID)
	if err != nil {
		t.Fatal(err)
	}
	content, err := io.ReadAll(source)
	if err := errors.Join(err, source.Close()); err != nil {
		t.Fatal(err)
	}
	address := leader.transport.LocalAddr()
	return &raft.InstallSnapshotRequest{
		RPCHeader:       raft.RPCHeader{ProtocolVersion: raft.ProtocolVersionMax, ID: []byte(leader.id.ID), Addr: leader.transport.EncodePeer("", address)},
		SnapshotVersion: meta.Version, Term: leader.raft.CurrentTerm(), Leader: leader.transport.EncodePeer("", address),
		LastLogIndex: meta.Index, LastLogTerm: meta.Term, Size: meta.Size,
		Configuration: raft.EncodeConfiguration(meta.Configuration), ConfigurationIndex: meta.ConfigurationIndex,
	}, content
}

// TestH3SnapshotNeverShortensALongerLog: a snapshot arrives at a member whose
// log and state are beyond it. The bare library empties the log.
func TestH3SnapshotNeverShortensALongerLog(t *testing.T) {
	t.Parallel()
	for _, bare := range []bool{false, true} {
		c := newCluster(t, cutShort, "a", "b", "c")
		c.write(c.leader(), "k", 40)
		if err := c.leader().archivist.snapshot(); err != nil {
			t.Fatal(err)
		}
		c.write(c.leader(), "k", 40)
		c.agree()
		leader, member := c.leader(), c.follower()
		request, content := newestSnapshot(t, leader)
		_, lastBefore, err := member.wal.Bounds()
		if err != nil {
			t.Fatal(err)
		}
		revision := member.Revision()
		if bare {
			// Nothing may repair the damage before it is seen.
			c.hub.isolate(leader.id.ID, true)
			answered := make(chan raft.RPCResponse, 1)
			member.transport.consumer <- raft.RPC{Command: request, Reader: bytes.NewReader(content), RespChan: answered}
			<-answered
			if _, last, err := member.wal.Bounds(); err != nil || last >= lastBefore {
				t.Errorf("the bare library keeps the log to %d of %d by itself, %v", last, lastBefore, err)
			}
			continue
		}
		var answer raft.InstallSnapshotResponse
		if err := leader.transport.Transport.InstallSnapshot(raft.ServerID(member.id.ID), member.transport.LocalAddr(), request, &answer, bytes.NewReader(content)); err != nil || !answer.Success {
			t.Fatalf("answer %+v, %v", answer, err)
		}
		first, last, err := member.wal.Bounds()
		if err != nil || last < lastBefore || first > request.LastLogIndex {
			t.Errorf("the log holds %d to %d, it held the snapshot's %d and up to %d, %v", first, last, request.LastLogIndex, lastBefore, err)
		}
		if member.Revision() < revision {
			t.Errorf("the state went back from revision %d to %d", revision, member.Revision())
		}
		c.write(leader, "k", 40)
		c.agree()
	}
}

// TestH3DivergedLogIsReplaced: a member comes back with entries of a leader
// which could not commit them, more than the others have made since.
func TestH3DivergedLogIsReplaced(t *testing.T) {
	t.Parallel()
	c := newCluster(t, cutShort, "a", "b", "c")
	c.write(c.leader(), "k", 20)
	c.agree()
	c.stop("c")
	log, err := openLogOffline(disk.OS, c.dirs["c"], Options{Logger: quiet(), SegmentSize: 8 << 10})
	if err != nil {
		t.Fatal(err)
	}
	_, last, err := log.Bounds()
	if err != nil {
		t.Fatal(err)
	}
	var newest raft.Log
	if err := log.GetLog(last, &newest); err != nil {
		t.Fatal(err)
	}
	for i := last + 1; i < last+200; i++ {
		if err := log.StoreLog(&raft.Log{Index: i, Term: newest.Term, Type: raft.LogNoop}); err != nil {
			t.Fatal(err)
		}
	}
	if err := log.Close(); err != nil {
		t.Fatal(err)
	}
	c.eventually("a leader of a later term", func() bool {
		leader := c.leader()
		if leader.raft.CurrentTerm() > newest.Term {
			return true
		}
		_ = leader.TransferLeadership(t.Context(), "") // or asked for again
		return false
	})
	c.write(c.leader(), "k", 60)
	for _, s := range c.members { // whoever leads when c comes back
		c.forget(s)
	}
	// A leader repeats a message until it is answered; that one would still hold
	// the entries which replace c's. A leader that has just started has only its
	// log.
	for _, id := range []string{"a", "b"} {
		c.stop(id)
	}
	for _, id := range []string{"a", "b"} {
		c.open(id, addressOf(id), false)
	}
	c.leader()

	fatal := make(chan error, 1)
	c.open("c", addressOf("c"), false, func(o *Options) { o.OnFatal = func(err error) { fatal <- err } })
	if err := <-fatal; !strings.Contains(err.Error(), "never committed") {
		t.Errorf("ended by %v", err)
	}
	_ = c.members["c"].Close() // it says that it had failed
	c.reopened("c")
	c.write(c.leader(), "k", 20)
	c.agree()
}

// reopened starts a member again whose store had failed; its goroutines end
// behind it and free the directory.
func (c *cluster) reopened(id string) {
	c.t.Helper()
	c.eventually(id+"'s directory is free", func() bool {
		lock, err := disk.LockDir(disk.OS, c.dirs[id])
		return err == nil && lock.Close() == nil
	})
	c.open(id, addressOf(id), false)
}

// TestCrashBetweenSnapshotAndLog: the snapshot was installed, the log which it
// supersedes not yet emptied.
func TestCrashBetweenSnapshotAndLog(t *testing.T) {
	t.Parallel()
	c := newCluster(t, cutShort, "a", "b", "c")
	c.write(c.leader(), "k", 20)
	c.agree()
	c.stop("c")
	c.write(c.leader(), "k", 60)
	c.forget(c.leader())
	request, content := newestSnapshot(t, c.leader())
	snapshots, err := disk.OpenSnapshots(disk.OS, c.dirs["c"]+"/"+snapshotDir, snapshotsKept)
	if err != nil {
		t.Fatal(err)
	}
	sink, err := snapshots.Create(request.SnapshotVersion, request.LastLogIndex, request.LastLogTerm,
		raft.DecodeConfiguration(request.Configuration), request.ConfigurationIndex, nil)
	if err != nil {
		t.Fatal(err)
	}
	_, err = sink.Write(content)
	if err := errors.Join(err, sink.Close()); err != nil {
		t.Fatal(err)
	}
	c.open("c", addressOf("c"), false)
	c.write(c.leader(), "k", 20)
	c.agree()
}

// TestLaggingMemberGetsASnapshotUnderLoad: it was away for longer than the log
// reaches back, and writes do not wait for it.
func TestLaggingMemberGetsASnapshotUnderLoad(t *testing.T) {
	t.Parallel()
	o := cutShort
	o.SnapshotEntries = 40 // all members, all the time
	c := newCluster(t, o, "a", "b", "c")
	stop := make(chan struct{})
	var writes atomic.Int64
	done := make(chan error, 1)
	go func() {
		for i := 0; ; i++ {
			select {
			case <-stop:
				done <- nil
				return
			default:
			}
			_, err := c.members["a"].Put(t.Context(), PutRequest{Key: fmt.Sprintf("/r/load/%d", i%200), Value: make([]byte, 300), ExpectModRevision: AnyRevision})
			if err != nil {
				done <- err
				return
			}
			writes.Add(1)
		}
	}()
	for range 3 {
		c.hub.isolate("c", true)
		before := writes.Load()
		behind := c.members["c"].raft.LastIndex()
		c.eventually("the log was cut beyond what the member has", func() bool {
			first, _, err := c.leader().wal.Bounds()
			return err == nil && first > behind+1 && writes.Load() > before+100
		})
		c.hub.isolate("c", false)
		c.eventually("the member is back", func() bool {
			return c.members["c"].Revision() > int64(before) && c.members["c"].raft.LastIndex() > behind+100
		})
	}
	close(stop)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	c.agree()
	for id, s := range c.members {
		c.eventually("the log of "+id+" is bounded", func() bool {
			first, last, err := s.wal.Bounds()
			return err == nil && last-first < 400
		})
		if ids, err := s.snapshots.IDs(); err != nil || len(ids) == 0 {
			t.Errorf("%s took no snapshots: %v", id, err)
		}
		if err := historyIsDense(s); err != nil {
			t.Errorf("%s: %v", id, err)
		}
	}
	t.Logf("%d writes", writes.Load())
}

func TestMessagesAreNarrowedToWhatTheyVouchFor(t *testing.T) {
	t.Parallel()
	entries := func(from, to uint64) (e []*raft.Log) {
		for i := from; i <= to; i++ {
			e = append(e, &raft.Log{Index: i, Term: 3})
		}
		return e
	}
	cases := []struct {
		name           string
		first, applied uint64
		prev           uint64
		entries        []*raft.Log
		commit         uint64

		wantPrev   uint64
		wantFirst  uint64 // of the entries, 0 for none
		wantCommit uint64
	}{
		{"a heartbeat stays one", 10, 20, 0, nil, 0, 0, 0, 0},
		{"the next entries stay as they are", 10, 20, 25, entries(26, 28), 24, 25, 26, 24},
		{"a commit behind the last entry is cut", 10, 20, 25, entries(26, 28), 90, 25, 26, 28},
		{"a commit without entries is cut at the entry before", 10, 20, 25, nil, 90, 25, 0, 25},
		{"an entry before that is still in the log is compared", 10, 20, 10, entries(11, 28), 28, 10, 11, 28},
		{"one that was cut off is not, and what was executed is left out", 10, 20, 5, entries(6, 28), 28, 0, 21, 28},
		{"all was executed", 10, 20, 5, entries(6, 18), 28, 0, 0, 18},
		{"a question before the log is answered with yes", 10, 20, 5, nil, 28, 0, 0, 5},
		{"an empty log behind a snapshot", 0, 20, 5, entries(6, 28), 28, 0, 21, 28},
		{"an empty log, asked for the snapshot's last entry", 0, 20, 20, entries(21, 28), 28, 20, 21, 28},
	}
	for _, c := range cases {
		m := &raft.AppendEntriesRequest{PrevLogEntry: c.prev, PrevLogTerm: 3, Entries: c.entries, LeaderCommitIndex: c.commit}
		narrow(m, c.first, c.applied)
		got := uint64(0)
		if len(m.Entries) > 0 {
			got = m.Entries[0].Index
		}
		if m.PrevLogEntry != c.wantPrev || got != c.wantFirst || m.LeaderCommitIndex != c.wantCommit {
			t.Errorf("%s: previous %d, first %d, commit %d", c.name, m.PrevLogEntry, got, m.LeaderCommitIndex)
		}
	}
}
