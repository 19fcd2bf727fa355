package simulation

import (
	"bufio"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"log/slog"
	"sync"
	"time"

	"github.com/hashicorp/raft"

	"github.com/skiff-run/skiff/raftstore"
	"github.com/skiff-run/skiff/raftstore/check"
	"github.com/skiff-run/skiff/raftstore/command"
	"github.com/skiff-run/skiff/raftstore/disk"
	"github.com/skiff-run/skiff/raftstore/internal/faultfs"
	"github.com/skiff-run/skiff/raftstore/internal/inject"
	"github.com/skiff-run/skiff/raftstore/mvcc"
)

// member is a machine: its disk outlives its processes.
type member struct {
	cluster *cluster
	disk    *faultfs.Disk

	mu      sync.Mutex // guards all below
	name    string
	founds  bool
	process *process // nil while down
	runs    int
	down    bool  // the supervisor must not start it
	damaged error // it refused to start because of damage
	// excused: the disk misbehaves, so that the process may end by itself.
	excused bool
	// harmed: something was done to its files which it may notice at any time.
	harmed bool
	// clock is how far its wall clock is off.
	clock time.Duration
}

// id is who the machine is in the cluster; a replaced member is another one.
func (m *member) id() string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.name
}

// process is one run of a member.
type process struct {
	member   *member
	name     string // member and number of the run
	endpoint *endpoint
	died     chan struct{}
	once     sync.Once
	ready    chan struct{} // closed when store or err is there
	store    *raftstore.Store
	err      error
	raft     *raft.Raft
}

func (m *member) current() *process {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.process
}

// serving returns the running process if its store is open.
func (m *member) serving() *process {
	p := m.current()
	if p == nil {
		return nil
	}
	select {
	case <-p.ready:
		if p.err == nil && p.alive() {
			return p
		}
	default:
	}
	return nil
}

func (p *process) alive() bool {
	select {
	case <-p.died:
		return false
	default:
		return true
	}
}

// now is the machine's wall clock.
func (m *member) now() time.Time {
	m.mu.Lock()
	defer m.mu.Unlock()
	return time.Now().Add(m.clock)
}

// start runs a process of the member.
func (m *member) start() *process {
	m.mu.Lock()
	m.runs++
	id, joins := m.name, !m.founds
	p := &process{
		member: m, name: fmt.Sprintf("%s run %d", id, m.runs), endpoint: m.cluster.network.newEndpoint(),
		died: make(chan struct{}), ready: make(chan struct{}),
	}
	m.process = p
	fs := m.disk.Mount()
	m.mu.Unlock()
	c := m.cluster
	c.running.Go(func() {
		o := c.options
		o.Dir, o.MemberID, o.Address, o.Join = "/store", id, id+":6444", joins
		o.Network = p.endpoint
		o.Logger = c.logger.With("run", p.name)
		o.OnFatal = func(err error) { c.running.Go(func() { p.fatal(err) }) }
		o.Inject = p.parts(fs)
		p.store, p.err = raftstore.Open(c.ctx, o)
		close(p.ready)
		if p.err == nil {
			select {
			case <-p.died:
				_ = p.store.Close()
			default:
				c.running.Go(p.followLeadership)
			}
			return
		}
		if p.alive() {
			p.refused()
		}
	})
	return p
}

// refused decides what it means that a store did not open.
func (p *process) refused() {
	m := p.member
	m.mu.Lock()
	excused := m.excused || m.harmed
	if m.harmed {
		m.damaged = p.err
	}
	m.mu.Unlock()
	if excused {
		m.cluster.count("refused to start")
	}
	if !excused && !m.cluster.draining() {
		m.cluster.violation("start", "%s does not start although its disk was not harmed: %v", p.name, p.err)
	}
	p.die(false)
}

// fatal is what the store calls when it cannot go on.
func (p *process) fatal(err error) {
	if !p.alive() {
		return
	}
	m := p.member
	m.mu.Lock()
	excused := m.excused || m.harmed
	var damage *disk.DamageError
	if errors.As(err, &damage) && m.harmed {
		m.damaged = err
	}
	m.mu.Unlock()
	if !excused {
		m.cluster.violation("fatal", "%s ends although its disk was not harmed: %v", p.name, err)
	}
	m.cluster.count("ended itself")
	p.die(false)
}

// die ends the process without a warning, by the loss of power or as kill -9
// does. What its goroutines still do reaches neither disk nor network.
func (p *process) die(power bool) {
	p.once.Do(func() {
		m := p.member
		close(p.died)
		m.mu.Lock()
		if m.process == p {
			m.process = nil
		}
		m.mu.Unlock()
		if power {
			m.cluster.withRandom(m.disk.PowerLoss)
		} else {
			m.disk.Kill()
		}
		_ = p.endpoint.close()
		m.cluster.running.Go(func() {
			<-p.ready
			if p.err == nil {
				_ = p.store.Close()
			}
		})
	})
}

// stop ends the process as an operator does.
func (p *process) stop() {
	<-p.ready
	if p.err != nil {
		return
	}
	err := p.store.Close()
	p.once.Do(func() {
		close(p.died)
		m := p.member
		m.mu.Lock()
		if m.process == p {
			m.process = nil
		}
		m.mu.Unlock()
		m.disk.Kill()
		if err != nil {
			m.cluster.violation("close", "%s: %v", p.name, err)
		}
	})
}

// supervise starts the member again and again, as a service manager does.
func (m *member) supervise(restart func() time.Duration) {
	for {
		m.mu.Lock()
		idle := m.process == nil && !m.down && m.damaged == nil
		m.mu.Unlock()
		var died chan struct{}
		if idle {
			died = m.start().died
		} else if p := m.current(); p != nil {
			died = p.died
		}
		if died == nil {
			select {
			case <-time.After(100 * time.Millisecond):
			case <-m.cluster.ctx.Done():
				return
			}
			continue
		}
		select {
		case <-died:
		case <-m.cluster.ctx.Done():
			return
		}
		select {
		case <-time.After(restart()):
		case <-m.cluster.ctx.Done():
			return
		}
	}
}

// parts attaches the probes of package check, and the disk.
func (p *process) parts(fs disk.FS) *inject.Parts {
	c, witness := p.member.cluster, p.name
	published := int64(0)
	parts := c.sabotage
	parts.FS = fs
	if c.config.forgetVotes {
		parts.FS = forgetful{fs}
	}
	parts.Now = p.member.now
	parts.Raft = func(r *raft.Raft) { p.raft = r }
	parts.Executed = func(entry *raft.Log, results []command.Result) {
		h := fnv.New64a()
		_, _ = h.Write(entry.Data)
		fmt.Fprint(h, entry.Term)
		for _, r := range results {
			fmt.Fprint(h, r.Outcome, r.Revision, r.Count, version(r.KV), version(r.Prev))
		}
		c.agreement.Applied(p.name, entry.Index, fmt.Sprintf("%x", h.Sum64()))
		if batch, err := command.Decode(entry.Data); err == nil {
			for i := range batch.Commands {
				if batch.Commands[i].Kind == command.Compact {
					c.agreement.Compacting(batch.Commands[i].Revision)
				}
			}
		}
	}
	parts.Published = func(v *mvcc.View) {
		if p.alive() {
			c.agreement.Revision(p.name, v.Revision())
		}
		if published < v.CompactRevision() {
			published = v.CompactRevision() // the others saw those, or nobody did
		}
		events, _, err := v.Events(nil, "", published, 1<<30)
		if err != nil {
			c.violation("history", "%s cannot read its own history after %d: %v", p.name, published, err)
			return
		}
		for i := range events {
			c.log.Add(witness, event(&events[i]))
		}
		published = v.Revision()
		if v.Revision()%64 == 0 {
			h := fnv.New64a()
			w := bufio.NewWriter(h)
			if errors.Join(v.Encode(w), w.Flush()) == nil {
				c.agreement.State(p.name, uint64(v.Revision())<<32|uint64(v.CompactRevision()), fmt.Sprintf("%x", h.Sum64()))
			}
		}
	}
	return &parts
}

// followLeadership checks each beginning of leadership.
func (p *process) followLeadership() {
	subscription := p.store.Subscribe()
	defer subscription.Close()
	for {
		answered := p.member.cluster.agreement.AnsweredSoFar()
		select {
		case leads := <-subscription.C:
			if leads && p.alive() {
				p.member.cluster.agreement.Leads(p.name, p.store.Revision(), answered)
				p.member.cluster.count("led")
			}
		case <-p.died:
			return
		}
	}
}

// version is a version as the checkers know it.
func version(kv *raftstore.KeyValue) *check.Version {
	if kv == nil {
		return nil
	}
	return &check.Version{Key: kv.Key, Value: string(kv.Value), ModRevision: kv.ModRevision, CreateRevision: kv.CreateRevision}
}

func event(e *raftstore.Event) *check.Event {
	one := &check.Event{Revision: e.Revision, Delete: e.Type == raftstore.EventDelete, HasPrevious: true, Previous: version(e.PrevKV), HasCreated: true}
	one.Version = *version(e.KV)
	if one.Delete {
		one.Version.CreateRevision = 0
	} else {
		one.Created = e.KV.CreateRevision == e.Revision
	}
	return one
}

// stateHash is the whole state of a serving member.
func (p *process) stateHash() string {
	h := fnv.New64a()
	r, err := p.store.Range("", "", 0, 0)
	if err != nil {
		return err.Error()
	}
	for _, kv := range r.KVs {
		fmt.Fprintf(h, "%+v", *kv)
	}
	return fmt.Sprintf("%x at %d", h.Sum64(), r.Revision)
}

// quiet drops what stores log, unless the test asks.
func quiet(w io.Writer) *slog.Logger {
	if w == nil {
		return slog.New(slog.DiscardHandler)
	}
	return slog.New(slog.NewTextHandler(w, &slog.HandlerOptions{Level: slog.LevelDebug}))
}
