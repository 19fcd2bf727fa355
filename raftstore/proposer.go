package raftstore

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"

	"github.com/skiff-run/skiff/raftstore/command"
)

const (
	// maxBatchCommands and maxBatchBytes bound one log entry.
	maxBatchCommands = 512
	maxBatchBytes    = 512 << 10
	// maxInFlight is how many entries of this member may be on their way. While
	// they are, the commands that arrive gather for the next one: that is the
	// group commit. A second one would halve the batches: with 64 writers one in
	// flight is measured to be twice as fast as two.
	maxInFlight = 1
	queueLength = 1024
	// patience is how long a member looks for a leader, or for the fate of a
	// batch, before it tells the callers.
	patience = 7 * time.Second
	// attemptTimeout is how long one leader may take, unless another one is
	// known earlier.
	attemptTimeout = 3 * time.Second
)

// proposal is one caller's command on its way through the log.
type proposal struct {
	command command.Command
	arrived time.Time
	done    chan reply // holds one
	// taken decides between a caller that leaves and the batch: who swaps it
	// first. A caller that leaves first knows that nothing was written.
	taken atomic.Bool
}

type reply struct {
	result command.Result
	err    error
}

// flight is one log entry of this member on its way.
type flight struct {
	data        []byte
	first, last uint64 // sequences of its commands
	proposals   []*proposal
	done        chan struct{} // closed when it was executed here
	ctx         context.Context
	cancel      context.CancelFunc // when it was executed, or abandoned

	// Guarded by proposer.mu: the leader asked now, and what ends that.
	leader raft.ServerID
	leave  context.CancelFunc
}

// proposer turns the commands of many callers into few log entries, on every
// member. An entry goes to the leader, wherever it is, and is answered when the
// state machine of this member has executed it: so the writer reads its write
// here. If the fate of an entry is lost, the same bytes go to the next leader;
// the commands carry their identities, so what was executed is only answered
// again.
type proposer struct {
	store    *Store
	origin   uint64
	sequence uint64 // of the last command; gather only
	queue    chan *proposal
	slots    chan struct{}
	flying   sync.WaitGroup

	mu      sync.Mutex         // guards flights
	flights map[uint64]*flight // by first sequence: not answered yet
}

func newProposer(s *Store) *proposer {
	return &proposer{
		store: s, origin: newOrigin(),
		queue:   make(chan *proposal, queueLength),
		slots:   make(chan struct{}, maxInFlight),
		flights: map[uint64]*flight{},
	}
}

// propose sends a command through the log and waits for its result.
func (p *proposer) propose(ctx context.Context, c command.Command) (command.Result, error) {
	one := &proposal{command: c, arrived: time.Now(), done: make(chan reply, 1)}
	select {
	case p.queue <- one:
	case <-p.store.closing:
		return command.Result{}, ErrClosed
	case <-ctx.Done():
		return command.Result{}, ctx.Err()
	}
	var left error
	select {
	case r := <-one.done:
		return r.result, r.err
	case <-ctx.Done():
		left = ctx.Err()
	case <-p.store.closing:
		left = ErrClosed
	}
	if !one.taken.Swap(true) {
		return command.Result{}, left // no batch has it
	}
	// The answer may have come together with the end.
	select {
	case r := <-one.done:
		return r.result, r.err
	default:
		return command.Result{}, fmt.Errorf("%w: %w", ErrOutcomeUnknown, left)
	}
}

// gather makes log entries of what waits in the queue, until closing.
func (p *proposer) gather() {
	defer p.flying.Wait()
	for {
		select {
		case p.slots <- struct{}{}:
		case <-p.store.closing:
			return
		}
		var batch []*proposal
		for len(batch) == 0 {
			select {
			case first := <-p.queue:
				batch = p.collect(first)
			case <-p.store.closing:
				return
			}
		}
		f := p.pack(batch)
		p.flying.Go(func() {
			p.fly(f)
			<-p.slots
		})
	}
}

// collect takes what waits behind the first proposal, without waiting, and
// leaves out whose caller has gone.
func (p *proposer) collect(first *proposal) []*proposal {
	var batch []*proposal
	size := 0
	for next := first; ; {
		if !next.taken.Swap(true) {
			batch = append(batch, next)
			size += next.command.Size()
		}
		if len(batch) == maxBatchCommands || size >= maxBatchBytes {
			return batch
		}
		select {
		case next = <-p.queue:
		default:
			return batch
		}
	}
}

// pack makes the log entry of a batch.
func (p *proposer) pack(proposals []*proposal) *flight {
	f := &flight{proposals: proposals, first: p.sequence + 1, done: make(chan struct{}), leave: func() {}}
	f.ctx, f.cancel = context.WithCancel(p.store.ctx)
	batch := command.Batch{Origin: p.origin, Commands: make([]command.Command, len(proposals))}
	size := 32
	for i, one := range proposals {
		p.sequence++
		one.command.Sequence = p.sequence
		batch.Commands[i] = one.command
		size += one.command.Size()
	}
	f.last = p.sequence
	p.mu.Lock()
	batch.Acknowledged = f.first - 1
	for first := range p.flights {
		batch.Acknowledged = min(batch.Acknowledged, first-1)
	}
	p.flights[f.first] = f
	p.mu.Unlock()
	f.data = batch.Encode(make([]byte, 0, size))
	p.store.metrics.batches.Observe(float64(len(proposals)))
	return f
}

// executed is called by the state machine when it has executed, or found the
// remembered results of, a batch of this origin and published the state.
func (p *proposer) executed(first uint64, results answers) {
	p.mu.Lock()
	f := p.flights[first]
	if f == nil || len(results) != len(f.proposals) {
		p.mu.Unlock()
		return
	}
	delete(p.flights, first)
	p.mu.Unlock()
	for i, one := range f.proposals {
		one.done <- reply{result: results[i]}
	}
	close(f.done)
	f.cancel()
}

// leaderChanged ends what waits for a leader that is not it any more.
func (p *proposer) leaderChanged(leader raft.ServerID) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, f := range p.flights {
		if f.leader != leader {
			f.leave()
		}
	}
}

// recovered is executed for a state that came as a snapshot: a batch may be in
// it that this member never saw in its log.
func (p *proposer) recovered(results map[uint64]command.Result) {
	p.mu.Lock()
	waiting := make([]*flight, 0, len(p.flights))
	for _, f := range p.flights {
		waiting = append(waiting, f)
	}
	p.mu.Unlock()
	for _, f := range waiting {
		found := make(answers, 0, len(f.proposals))
		for sequence := f.first; sequence <= f.last; sequence++ {
			if r, ok := results[sequence]; ok {
				found = append(found, r)
			}
		}
		p.executed(f.first, found)
	}
}

// abandon answers the callers of a flight whose fate this member will not know.
func (p *proposer) abandon(f *flight, err error) {
	p.mu.Lock()
	_, waiting := p.flights[f.first]
	delete(p.flights, f.first)
	p.mu.Unlock()
	if !waiting {
		return // executed meanwhile
	}
	for _, one := range f.proposals {
		one.done <- reply{err: err}
	}
	f.cancel()
}

// fly brings a batch through the log: it asks leader after leader until the
// batch was executed here, or patience ends.
func (p *proposer) fly(f *flight) {
	began := f.proposals[0].arrived
	uncertain := false // some leader may have taken it
	for {
		err := p.attempt(f)
		if err == nil {
			return
		}
		if errors.Is(err, ErrRemoved) {
			p.store.steward.suspect()
			p.abandon(f, err)
			return
		}
		uncertain = uncertain || !errors.Is(err, ErrNotLeader) && !errors.Is(err, ErrUnreachable) && !errors.Is(err, errNotMember) && !errors.Is(err, ErrOtherCluster)
		var end error
		select {
		case <-f.done:
			return
		case <-p.store.closing:
			end = ErrClosed
		case <-time.After(askAgain):
			if time.Since(began) < patience {
				continue
			}
		}
		switch {
		case uncertain:
			err = fmt.Errorf("%w: %w", ErrOutcomeUnknown, err)
		case end != nil:
			err = end
		case !errors.Is(err, ErrNotLeader):
			err = fmt.Errorf("%w: %w", ErrNotLeader, err)
		}
		p.abandon(f, err)
		return
	}
}

// attempt brings the batch to the present leader and waits until it was executed
// here. ErrNotLeader and ErrUnreachable say that the log has not got it.
func (p *proposer) attempt(f *flight) error {
	s := p.store
	address, leader := s.raft.LeaderWithID()
	if leader == "" {
		return ErrNotLeader
	}
	if string(leader) == s.id.ID {
		if err := s.apply(f.data); err != nil {
			return err
		}
		return p.settled(f)
	}
	ctx, leave := context.WithTimeout(f.ctx, attemptTimeout)
	defer leave()
	p.mu.Lock()
	f.leader, f.leave = leader, leave
	p.mu.Unlock()
	if _, err := s.call(ctx, string(leader), string(address), callPropose, f.data); err != nil {
		select {
		case <-f.done:
			return nil
		default:
			return err
		}
	}
	return p.settled(f)
}

// settled waits until a committed batch is executed here.
func (p *proposer) settled(f *flight) error {
	select {
	case <-f.done: // most often
		return nil
	default:
	}
	late := time.NewTimer(attemptTimeout)
	defer late.Stop()
	select {
	case <-f.done:
		return nil
	case <-late.C:
		return errors.New("it is in the log but does not arrive at this member")
	case <-p.store.closing:
		return ErrClosed
	}
}

// apply appends a batch to the log of this member, which leads, and waits until
// it is executed. ErrNotLeader says that the log has not got it.
func (s *Store) apply(data []byte) error {
	if !s.enter() {
		return fmt.Errorf("%w: %w", ErrNotLeader, ErrClosed)
	}
	defer s.working.Done()
	future := s.raft.Apply(data, 0)
	err := future.Error()
	if err == nil {
		if failed, ok := future.Response().(error); ok {
			return failed
		}
		return nil
	}
	if notApplied(err) {
		return fmt.Errorf("%w: %w", ErrNotLeader, err)
	}
	return fmt.Errorf("%w: %w", ErrOutcomeUnknown, err)
}

// notApplied says that raft did not take the entry at all.
func notApplied(err error) bool {
	return errors.Is(err, raft.ErrNotLeader) || errors.Is(err, raft.ErrLeadershipTransferInProgress) || errors.Is(err, raft.ErrEnqueueTimeout)
}

// answerPropose appends another member's batch. That member learns the results
// from its own state machine.
func (s *Store) answerPropose(_ context.Context, from string, body []byte) ([]byte, error) {
	// What is in the log must be executable by all.
	if err := command.Check(body); err != nil {
		return nil, fmt.Errorf("batch of member %s: %w", from, err)
	}
	if s.raft.State() != raft.Leader {
		return nil, ErrNotLeader
	}
	return nil, s.apply(body)
}

// firstSequence is the sequence of a batch's first command.
func firstSequence(b *command.Batch) uint64 {
	if len(b.Commands) == 0 {
		return 0
	}
	return b.Commands[0].Sequence
}
