package raftstore

import (
	"bytes"
	"io"
	"reflect"
	"testing"

	"github.com/hashicorp/raft"

	"github.com/skiff-run/skiff/raftstore/command"
)

// applyBatch gives a state machine one log entry.
func applyBatch(t *testing.T, f *fsm, index uint64, b command.Batch) answers {
	t.Helper()
	response := f.Apply(&raft.Log{Index: index, Term: 2, Type: raft.LogCommand, Data: b.Encode(nil)})
	got, ok := response.(answers)
	if !ok {
		t.Fatalf("entry %d was answered with %v", index, response)
	}
	return got
}

func put(sequence uint64, key, value string, expect int64) command.Command {
	return command.Command{Kind: command.Put, Sequence: sequence, Key: key, Value: []byte(value), Expect: expect}
}

func TestStateMachine(t *testing.T) {
	t.Parallel()
	cases := []struct {
		name     string
		commands []command.Command
		outcomes []command.Outcome
		revision int64
	}{
		{"puts have dense revisions", []command.Command{put(1, "/r/a/1", "", 0), put(2, "/r/a/2", "", 0)}, []command.Outcome{command.Done, command.Done}, 3},
		{"a lost compare consumes none", []command.Command{put(1, "/r/a/1", "", 0), put(2, "/r/a/1", "", 0), put(3, "/r/a/1", "", 2)},
			[]command.Outcome{command.Done, command.CompareFailed, command.Done}, 3},
		{"a delete counts", []command.Command{put(1, "/r/a/1", "", 0), {Kind: command.Delete, Sequence: 2, Key: "/r/a/1", Expect: 2}},
			[]command.Outcome{command.Done, command.Done}, 3},
		{"compaction consumes none and knows its bounds", []command.Command{
			put(1, "/r/a/1", "", 0), put(2, "/r/a/2", "", 0), {Kind: command.Compact, Sequence: 3, Revision: 2},
			{Kind: command.Compact, Sequence: 4, Revision: 1}, {Kind: command.Compact, Sequence: 5, Revision: 9}},
			[]command.Outcome{command.Done, command.Done, command.Done, command.Compacted, command.Future}, 3},
		{"a jump moves the revision without a mutation", []command.Command{put(1, "/r/a/1", "", 0), {Kind: command.Jump, Sequence: 2, Revision: 1000}, put(3, "/r/a/2", "", 0)},
			[]command.Outcome{command.Done, command.Done, command.Done}, 1003},
		{"an epoch consumes none", []command.Command{{Kind: command.Epoch, Sequence: 1}}, []command.Outcome{command.Done}, 1},
		{"expiry deletes one revision each", []command.Command{
			{Kind: command.Put, Sequence: 1, Key: "/r/a/1", Expect: 0, ExpiresAt: 5},
			{Kind: command.Put, Sequence: 2, Key: "/r/a/2", Expect: 0, ExpiresAt: 6},
			{Kind: command.Expire, Sequence: 3, Now: 6, Limit: 10}},
			[]command.Outcome{command.Done, command.Done, command.Done}, 5},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			f := newFSM()
			got := applyBatch(t, f, 5, command.Batch{Origin: 1, Commands: c.commands})
			for i := range got {
				if got[i].Outcome != c.outcomes[i] {
					t.Errorf("command %d: outcome %d, want %d", i+1, got[i].Outcome, c.outcomes[i])
				}
			}
			if revision := f.state.View().Revision(); revision != c.revision {
				t.Errorf("revision %d, want %d", revision, c.revision)
			}
		})
	}
}

func TestRepeatedBatchIsExecutedOnce(t *testing.T) {
	t.Parallel()
	f := newFSM()
	batch := command.Batch{Origin: 7, Commands: []command.Command{put(1, "/r/a/1", "x", 0), put(2, "/r/a/1", "y", 99)}}
	first := applyBatch(t, f, 1, batch)
	f = throughSnapshot(t, f) // the memory of it is part of the state
	applyBatch(t, f, 2, command.Batch{Origin: 8, Commands: []command.Command{put(1, "/r/a/1", "z", 2)}})
	again := applyBatch(t, f, 3, batch)
	if !reflect.DeepEqual(first, again) {
		t.Errorf("first answered %+v, then %+v", first, again)
	}
	if revision := f.state.View().Revision(); revision != 3 {
		t.Errorf("revision %d: the repetition was executed", revision)
	}
	applyBatch(t, f, 4, command.Batch{Origin: 7, Acknowledged: 2, Commands: []command.Command{put(3, "/r/a/2", "", 0)}})
	if n := len(f.sessions[7].results); n != 1 {
		t.Errorf("%d results remembered after the acknowledgement", n)
	}
	if late := applyBatch(t, f, 5, batch); late[0].Outcome != command.Forgotten || f.state.View().Revision() != 4 {
		t.Errorf("a repetition after the acknowledgement: %+v", late)
	}
}

func TestSilentSessionsAreForgotten(t *testing.T) {
	t.Parallel()
	f := newFSM()
	for i := range uint64(maxSessions + 5) {
		applyBatch(t, f, i+1, command.Batch{Origin: 100 + i, Commands: []command.Command{put(1, "/r/a/1", "", -1)}})
	}
	if len(f.sessions) != maxSessions || f.sessions[104] != nil || f.sessions[105] == nil {
		t.Errorf("%d sessions, oldest kept %v", len(f.sessions), f.sessions[104] != nil)
	}
}

func TestUnknownCommandIsFatal(t *testing.T) {
	t.Parallel()
	f := newFSM()
	var fatal error
	f.fatal = func(err error) { fatal = err }
	f.Apply(&raft.Log{Index: 9, Type: raft.LogCommand, Data: []byte{9, 9}})
	if fatal == nil {
		t.Error("a log entry this program does not understand was skipped")
	}
}

// throughSnapshot returns a state machine restored from a snapshot of f.
func throughSnapshot(t *testing.T, f *fsm) *fsm {
	t.Helper()
	var b bytes.Buffer
	captured, err := f.Snapshot()
	if err != nil {
		t.Fatal(err)
	}
	if err := captured.(*fsmSnapshot).write(&b); err != nil {
		t.Fatal(err)
	}
	fresh := newFSM()
	if err := fresh.Restore(io.NopCloser(&b)); err != nil {
		t.Fatal(err)
	}
	return fresh
}
