package raftstore

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"sync/atomic"

	"github.com/hashicorp/raft"

	"github.com/skiff-run/skiff/raftstore/command"
	"github.com/skiff-run/skiff/raftstore/internal/inject"
	"github.com/skiff-run/skiff/raftstore/mvcc"
)

// fsm is the replicated state machine: it turns log entries into mutations of
// the state. Its methods are called by raft's single state machine goroutine.
// It must not look at a clock, a random number or the order of a map.
type fsm struct {
	state    *mvcc.State
	sessions sessions
	// epoch is the term of the last leader whose Epoch command was applied.
	epoch atomic.Uint64
	// index is the last log entry executed. No-ops are not told to a state
	// machine, so it may be one behind raft's until the epoch comes.
	index mark
	// committed is called before a batch is executed: entries were committed.
	committed func()
	// reconfigured is called when the members have changed.
	reconfigured func()
	// applied is called after each publication, for housekeeping.
	applied func(*mvcc.View)
	// origin is this member's in this run. executed is told of its batches once
	// they are published, recovered of the remembered results in a snapshot.
	origin    uint64
	executed  func(first uint64, results answers)
	recovered func(results map[uint64]command.Result)
	// fatal ends the process when the log says something this program cannot
	// execute: going on would make this member differ from the others.
	fatal func(error)
	parts inject.Parts
}

func newFSM() *fsm {
	return &fsm{
		state: mvcc.New(), sessions: sessions{}, committed: func() {}, reconfigured: func() {}, applied: func(*mvcc.View) {}, fatal: func(error) {},
		executed: func(uint64, answers) {}, recovered: func(map[uint64]command.Result) {},
	}
}

// answers is the response to one log entry, one result per command.
type answers []command.Result

// Apply implements raft.FSM.
func (f *fsm) Apply(l *raft.Log) any { return f.ApplyBatch([]*raft.Log{l})[0] }

// ApplyBatch implements raft.BatchingFSM. The whole batch becomes visible to
// readers at once, before any of its writers is answered.
func (f *fsm) ApplyBatch(logs []*raft.Log) []any {
	f.committed()
	responses := make([]any, len(logs))
	type execution struct {
		first   uint64
		results answers
	}
	var own []execution
	for i, l := range logs {
		if l.Type != raft.LogCommand {
			f.reconfigured() // that is raft's own business
			continue
		}
		batch, err := command.Decode(l.Data)
		if err != nil {
			err = fmt.Errorf("log record %d: %w", l.Index, err)
			f.fatal(err)
			responses[i] = err
			continue
		}
		results := f.execute(batch, l)
		responses[i] = results
		if batch.Origin == f.origin {
			own = append(own, execution{firstSequence(batch), results})
		}
	}
	view := f.state.Publish()
	f.index.raise(logs[len(logs)-1].Index)
	for _, e := range own {
		f.executed(e.first, e.results)
	}
	f.applied(view)
	return responses
}

func (f *fsm) execute(batch *command.Batch, l *raft.Log) answers {
	s := f.sessions.of(batch.Origin, l.Index)
	s.acknowledge(batch.Acknowledged)
	results := make(answers, len(batch.Commands))
	for i := range batch.Commands {
		c := &batch.Commands[i]
		if old, ok := s.recall(c.Sequence); ok && !f.parts.ExecuteTwice {
			results[i] = old
			continue
		}
		results[i] = f.command(c, l)
		s.results[c.Sequence] = results[i]
	}
	if told := f.parts.Executed; told != nil {
		told(l, results)
	}
	return results
}

func (f *fsm) command(c *command.Command, l *raft.Log) command.Result {
	r := command.Result{Outcome: command.Done}
	switch c.Kind {
	case command.Put, command.PutFor:
		expires := c.ExpiresAt
		if c.Kind == command.PutFor {
			expires = expiresAt(l.AppendedAt, c.TTL)
		}
		var ok bool
		r.KV, r.Prev, ok = f.state.Put(c.Key, c.Value, c.Expect, expires)
		if !ok {
			r.Outcome, r.Prev = command.CompareFailed, nil
		}
	case command.Delete:
		previous, ok := f.state.Delete(c.Key, c.Expect)
		if ok {
			r.Prev = previous
		} else {
			r.Outcome, r.KV = command.CompareFailed, previous
		}
	case command.Compact:
		switch err := f.state.Compact(c.Revision); {
		case errors.Is(err, mvcc.ErrCompacted):
			r.Outcome = command.Compacted
		case errors.Is(err, mvcc.ErrFutureRevision):
			r.Outcome = command.Future
		}
	case command.Expire:
		r.Count = int64(f.state.Expire(c.Now, int(c.Limit)))
	case command.Epoch:
		f.epoch.Store(l.Term)
	case command.Jump:
		f.state.Jump(c.Revision)
	}
	r.Revision = f.state.Revision()
	return r
}

// Snapshot implements raft.FSM. It costs nothing: the published view is
// immutable, writing it out happens beside further commands.
func (f *fsm) Snapshot() (raft.FSMSnapshot, error) {
	return &fsmSnapshot{view: f.state.View(), sessions: f.sessions.clone(), epoch: f.epoch.Load(), index: f.index.get()}, nil
}

// Restore implements raft.FSM.
func (f *fsm) Restore(source io.ReadCloser) error {
	if err := f.restore(source); err != nil {
		return fmt.Errorf("restore state: %w", err)
	}
	if own := f.sessions[f.origin]; own != nil {
		f.recovered(own.results)
	}
	f.applied(f.state.View())
	return nil
}

// restore reads epoch, index and sessions, then the state, which it swaps in only as
// a whole. The stream must end where the state ends.
func (f *fsm) restore(source io.Reader) error {
	r := bufio.NewReaderSize(source, 64<<10)
	d := mvcc.NewDecoder(r)
	epoch, index := d.Uint(), d.Uint()
	if err := d.Err(); err != nil {
		return err
	}
	remembered, err := decodeSessions(r)
	if err != nil {
		return err
	}
	if err := f.restoreState(r); err != nil {
		return err
	}
	f.sessions = remembered
	f.epoch.Store(epoch)
	f.index.raise(index)
	return nil
}

// restoreState reads the state alone. The stream must end where it ends.
func (f *fsm) restoreState(source io.Reader) error {
	r := bufio.NewReaderSize(source, 64<<10)
	if err := f.state.Replace(r); err != nil {
		return err
	}
	if _, err := r.ReadByte(); !errors.Is(err, io.EOF) {
		return fmt.Errorf("%w: bytes after its end (%v)", mvcc.ErrMalformed, err)
	}
	return nil
}

// fsmSnapshot is a captured state on its way to disk.
type fsmSnapshot struct {
	view     *mvcc.View
	sessions sessions
	epoch    uint64
	index    uint64
}

// Persist implements raft.FSMSnapshot.
func (s *fsmSnapshot) Persist(sink raft.SnapshotSink) error {
	if err := s.write(sink); err != nil {
		return errors.Join(fmt.Errorf("write state: %w", err), sink.Cancel())
	}
	return sink.Close()
}

func (s *fsmSnapshot) write(to io.Writer) error {
	w := bufio.NewWriterSize(to, 64<<10)
	e := mvcc.NewEncoder(w)
	e.Uint(s.epoch)
	e.Uint(s.index)
	if err := e.Err(); err != nil {
		return err
	}
	if err := s.sessions.encode(w); err != nil {
		return err
	}
	if err := s.view.Encode(w); err != nil {
		return err
	}
	return w.Flush()
}

// Release implements raft.FSMSnapshot.
func (*fsmSnapshot) Release() {}
