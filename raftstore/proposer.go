package raftstore

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"

	"github.com/skiff-run/skiff/raftstore/command"
)

const (
	// maxBatchCommands and maxBatchBytes bound one log entry.
	maxBatchCommands = 512
	maxBatchBytes    = 512 << 10
	// maxInFlight is how many entries may be on their way. While they are, the
	// commands that arrive gather for the next one: that is the group commit.
	// A second one would halve the batches: with 64 writers one in flight is
	// measured to be twice as fast as two.
	maxInFlight = 1
	queueLength = 1024
	// repeatFor is how long a batch of unknown fate waits to be repeated.
	repeatFor = 5 * time.Second
)

// proposal is one caller's command on its way through the log.
type proposal struct {
	command command.Command
	done    chan reply // holds one
}

type reply struct {
	result command.Result
	err    error
}

// flight is one log entry on its way.
type flight struct {
	future raft.ApplyFuture
	// changed is closed when leadership is no longer what it was before the
	// entry was proposed.
	changed   <-chan struct{}
	data      []byte
	last      uint64 // sequence of the last command
	proposals []*proposal
}

// proposer turns the commands of many callers into few log entries. gather and
// resolve are its two goroutines.
type proposer struct {
	raft         *raft.Raft
	leadership   *leadership
	origin       uint64
	sequence     uint64        // of the last command; gather only
	acknowledged atomic.Uint64 // all commands up to it are answered
	queue        chan *proposal
	slots        chan struct{}
	flights      chan *flight
	closing      <-chan struct{}
	metrics      *metrics
}

func newProposer(closing <-chan struct{}, r *raft.Raft, l *leadership, m *metrics) *proposer {
	return &proposer{
		raft: r, leadership: l, origin: newOrigin(), closing: closing, metrics: m,
		queue:   make(chan *proposal, queueLength),
		slots:   make(chan struct{}, maxInFlight),
		flights: make(chan *flight, maxInFlight),
	}
}

// propose sends a command through the log and waits for its result.
func (p *proposer) propose(ctx context.Context, c command.Command) (command.Result, error) {
	one := &proposal{command: c, done: make(chan reply, 1)}
	select {
	case p.queue <- one:
	case <-p.closing:
		return command.Result{}, ErrClosed
	case <-ctx.Done():
		return command.Result{}, ctx.Err()
	}
	select {
	case r := <-one.done:
		return r.result, r.err
	case <-ctx.Done():
		return command.Result{}, fmt.Errorf("%w: %w", ErrOutcomeUnknown, ctx.Err())
	case <-p.closing:
	}
	// The answer may have come together with the end.
	select {
	case r := <-one.done:
		return r.result, r.err
	default:
		return command.Result{}, fmt.Errorf("%w: %w", ErrOutcomeUnknown, ErrClosed)
	}
}

// gather makes log entries of what waits in the queue, until closing.
func (p *proposer) gather() {
	defer close(p.flights)
	for {
		select {
		case p.slots <- struct{}{}:
		case <-p.closing:
			return
		}
		select {
		case first := <-p.queue:
			p.flights <- p.send(p.collect(first))
		case <-p.closing:
			return
		}
	}
}

// collect takes what waits behind the first proposal, without waiting.
func (p *proposer) collect(first *proposal) []*proposal {
	batch := []*proposal{first}
	size := first.command.Size()
	for len(batch) < maxBatchCommands && size < maxBatchBytes {
		select {
		case next := <-p.queue:
			batch = append(batch, next)
			size += next.command.Size()
		default:
			return batch
		}
	}
	return batch
}

func (p *proposer) send(proposals []*proposal) *flight {
	batch := command.Batch{Origin: p.origin, Acknowledged: p.acknowledged.Load(), Commands: make([]command.Command, len(proposals))}
	size := 32
	for i, one := range proposals {
		p.sequence++
		one.command.Sequence = p.sequence
		batch.Commands[i] = one.command
		size += one.command.Size()
	}
	p.metrics.batches.Observe(float64(len(proposals)))
	f := &flight{data: batch.Encode(make([]byte, 0, size)), last: p.sequence, proposals: proposals}
	p.dispatch(f)
	return f
}

func (p *proposer) dispatch(f *flight) {
	_, f.changed = p.leadership.get()
	f.future = p.raft.Apply(f.data, 0)
}

// resolve answers the callers of each entry in turn, until gather ends.
func (p *proposer) resolve() {
	for f := range p.flights {
		results, err := p.outcome(f)
		for i, one := range f.proposals {
			if err != nil {
				one.done <- reply{err: err}
				continue
			}
			one.done <- reply{result: results[i]}
		}
		p.acknowledged.Store(f.last)
		<-p.slots
	}
}

// outcome waits for the fate of an entry. If raft does not know it, the same
// entry is proposed again once this member leads again: its commands carry
// their identities, so what was executed is only answered again.
func (p *proposer) outcome(f *flight) (answers, error) {
	var deadline <-chan time.Time // set once the fate is unknown
	for {
		err := f.future.Error()
		if err == nil {
			return responded(f)
		}
		if notApplied(err) && deadline == nil {
			return nil, ErrNotLeader
		}
		if errors.Is(err, raft.ErrRaftShutdown) {
			return nil, fmt.Errorf("%w: %w", ErrOutcomeUnknown, ErrClosed)
		}
		if deadline == nil {
			timer := time.NewTimer(repeatFor)
			defer timer.Stop()
			deadline = timer.C
		}
		if !p.regained(f.changed, deadline) {
			return nil, fmt.Errorf("%w: %w", ErrOutcomeUnknown, err)
		}
		p.dispatch(f)
	}
}

// notApplied says that raft did not take the entry at all.
func notApplied(err error) bool {
	return errors.Is(err, raft.ErrNotLeader) || errors.Is(err, raft.ErrLeadershipTransferInProgress) || errors.Is(err, raft.ErrEnqueueTimeout)
}

func responded(f *flight) (answers, error) {
	switch response := f.future.Response().(type) {
	case answers:
		if len(response) == len(f.proposals) {
			return response, nil
		}
		return nil, fmt.Errorf("%w: %d answers to %d commands", ErrOutcomeUnknown, len(response), len(f.proposals))
	case error:
		return nil, fmt.Errorf("%w: %w", ErrOutcomeUnknown, response)
	default:
		return nil, fmt.Errorf("%w: the state machine answered %T", ErrOutcomeUnknown, response)
	}
}

// regained waits until leadership has changed, as it must after an entry was
// lost, and this member leads.
func (p *proposer) regained(changed <-chan struct{}, deadline <-chan time.Time) bool {
	for {
		select {
		case <-changed:
		case <-deadline:
			return false
		case <-p.closing:
			return false
		}
		var leading bool
		if leading, changed = p.leadership.get(); leading {
			return true
		}
	}
}
