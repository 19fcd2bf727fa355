package raftstore

import (
	"sync"

	"github.com/hashicorp/raft"
)

// position is a place in a member's log and what the member knows of commits.
type position struct {
	header      raft.RPCHeader
	leader      []byte
	term        uint64 // the leader's
	index, last uint64 // of the last entry: index and term
	told        uint64 // commit index
}

// positionAfter is where a member's log stands when it has taken the message.
func positionAfter(args *raft.AppendEntriesRequest) position {
	p := position{
		header: args.RPCHeader, leader: args.Leader, term: args.Term,
		index: args.PrevLogEntry, last: args.PrevLogTerm, told: args.LeaderCommitIndex,
	}
	if n := len(args.Entries); n > 0 {
		p.index, p.last = args.Entries[n-1].Index, args.Entries[n-1].Term
	}
	return p
}

// notices wakes the pipelines when something was committed.
type notices struct {
	mu        sync.Mutex // guards pipelines
	pipelines map[*promptPipeline]struct{}
}

func (n *notices) add(p *promptPipeline) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.pipelines == nil {
		n.pipelines = map[*promptPipeline]struct{}{}
	}
	n.pipelines[p] = struct{}{}
}

func (n *notices) remove(p *promptPipeline) {
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(n.pipelines, p)
}

// committed is called when the commit index has moved. It does not block.
func (n *notices) committed() {
	n.mu.Lock()
	defer n.mu.Unlock()
	for p := range n.pipelines {
		p.notice()
	}
}

// promptPipeline is a pipeline of raft's messages to one member which tells the
// member of a commit when it happens. Raft does so with its next entries, or by
// a timer; a short timer would keep an idle cluster busy and a long one makes
// followers late.
//
// After an unsuccessful answer raft takes no more answers; the library's
// pipeline then holds the sender for ever if it is just sending. So that answer
// closes the pipeline here.
type promptPipeline struct {
	raft.AppendPipeline
	transport *transport
	wake      chan struct{} // holds one
	answers   chan raft.AppendFuture
	closed    chan struct{}
	close     func() error // once

	turn chan struct{} // holds one: orders the messages and guards sent
	sent position
}

// pipelineLag is how many entries a member may be behind when a pipeline to it
// begins: raft's pipeline sends one message for each new entry and each tick of
// its timer, so in an idle cluster a member far behind would take minutes. The
// figure is raft's own MaxAppendEntries, what one message holds.
const pipelineLag = 64

// AppendEntriesPipeline implements raft.Transport. A member that is far behind
// gets no pipeline: without one, raft sends message after message until the
// member has caught up.
func (t *transport) AppendEntriesPipeline(id raft.ServerID, target raft.ServerAddress) (raft.AppendPipeline, error) {
	if t.behind(id) {
		return nil, raft.ErrPipelineReplicationNotSupported
	}
	inner, err := t.Transport.AppendEntriesPipeline(id, target)
	if err != nil {
		return nil, err
	}
	p := &promptPipeline{
		AppendPipeline: inner, transport: t,
		wake: make(chan struct{}, 1), turn: make(chan struct{}, 1), answers: make(chan raft.AppendFuture), closed: make(chan struct{}),
	}
	p.close = sync.OnceValue(func() error {
		t.notices.remove(p)
		close(p.closed)
		return inner.Close()
	})
	if acknowledged, ok := t.progress.Load(id); ok {
		p.sent = acknowledged.(position)
		p.notice() // a commit may have come between
	}
	t.notices.add(p)
	t.running.Go(p.tellCommits)
	t.running.Go(p.passAnswers)
	return p, nil
}

// behind reports whether a member lacks more entries than a pipeline may begin
// with.
func (t *transport) behind(id raft.ServerID) bool {
	r := t.raft.Load()
	acknowledged, known := t.progress.Load(id)
	return r != nil && known && acknowledged.(position).index+pipelineLag < r.LastIndex()
}

// AppendEntries implements raft.AppendPipeline.
func (p *promptPipeline) AppendEntries(args *raft.AppendEntriesRequest, resp *raft.AppendEntriesResponse) (raft.AppendFuture, error) {
	if !p.take() {
		return nil, raft.ErrPipelineShutdown
	}
	defer p.give()
	p.sent = positionAfter(args)
	future, err := p.AppendPipeline.AppendEntries(args, resp)
	if r := p.transport.raft.Load(); r != nil && r.CommitIndex() > p.sent.told {
		p.notice() // it came while raft made the message
	}
	return future, err
}

// take waits for the turn to send, give ends it. It is not a mutex because who
// has the turn may wait for the other member. take reports false when the
// pipeline is closed.
func (p *promptPipeline) take() bool {
	select {
	case p.turn <- struct{}{}:
		return true
	case <-p.closed:
		return false
	case <-p.transport.closed:
		return false
	}
}

func (p *promptPipeline) give() { <-p.turn }

// notice asks for tell, without waiting.
func (p *promptPipeline) notice() {
	select {
	case p.wake <- struct{}{}:
	default:
	}
}

// Consumer implements raft.AppendPipeline.
func (p *promptPipeline) Consumer() <-chan raft.AppendFuture { return p.answers }

// Close implements raft.AppendPipeline.
func (p *promptPipeline) Close() error { return p.close() }

func (p *promptPipeline) passAnswers() {
	for {
		select {
		case answer := <-p.AppendPipeline.Consumer():
			select {
			case p.answers <- answer:
			case <-p.closed:
				return
			case <-p.transport.closed:
				return
			}
			if answer.Error() != nil || !answer.Response().Success {
				_ = p.close()
				return
			}
		case <-p.closed:
			return
		case <-p.transport.closed:
			return
		}
	}
}

func (p *promptPipeline) tellCommits() {
	for {
		select {
		case <-p.wake:
			p.tell()
		case <-p.closed:
			return
		case <-p.transport.closed:
			return
		}
	}
}

// tell sends the commit index if the member does not know it. The answer goes
// to raft like any other.
func (p *promptPipeline) tell() {
	r := p.transport.raft.Load()
	if !p.take() {
		return
	}
	defer p.give()
	if r == nil || p.sent.term == 0 {
		return
	}
	// The message must hold in the pipeline's term. Terms only grow, so if the
	// term is the same after the commit index was read, that index is from this
	// term or earlier. It must not pass what was sent: beyond that the member
	// may have entries which are not the leader's.
	commit := min(r.CommitIndex(), p.sent.index)
	if r.CurrentTerm() != p.sent.term || commit <= p.sent.told {
		return
	}
	p.sent.told = commit
	request := &raft.AppendEntriesRequest{
		RPCHeader: p.sent.header, Term: p.sent.term, Leader: p.sent.leader,
		PrevLogEntry: p.sent.index, PrevLogTerm: p.sent.last, LeaderCommitIndex: commit,
	}
	// An error closes the connection, and raft's next message finds out.
	_, _ = p.AppendPipeline.AppendEntries(request, &raft.AppendEntriesResponse{})
}
