package raftstore

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"

	"github.com/skiff-run/skiff/raftstore/disk"
	"github.com/skiff-run/skiff/raftstore/mvcc"
)

// Store is one member of the replicated store.
type Store struct {
	options    Options
	log        *slog.Logger
	id         identity
	fsm        *fsm
	state      *mvcc.State
	raft       *raft.Raft
	transport  *transport
	guard      *disk.Guard
	wal        *disk.Log
	snapshots  *disk.Snapshots
	lock       io.Closer
	proposer   *proposer
	leadership *leadership
	keeper     *keeper
	steward    *steward
	archivist  *archivist
	metrics    *metrics
	handlers   map[callKind]callHandler
	reads      *reads
	quorum     *reads

	cluster  atomic.Pointer[string] // "" until adopted
	adopting sync.Mutex             // one change of member.json at a time
	changing chan struct{}          // held by who changes the configuration, on the leader
	removed  atomic.Bool            // the cluster removed this member

	stalled atomic.Pointer[error] // the disk hangs right now
	died    atomic.Pointer[death] // of the leader's process
	ready   atomic.Bool

	notify    chan bool // raft's word on leadership
	observed  chan raft.Observation
	gone      chan string   // a member whose connection ended
	started   chan struct{} // closed when raft is there
	ctx       context.Context
	cancel    context.CancelFunc
	closing   <-chan struct{} // ctx's
	closeOnce sync.Once
	closeErr  error
	running   sync.WaitGroup

	mu      sync.Mutex // guards closed and working against each other
	closed  bool
	working sync.WaitGroup // what waits for raft on behalf of others
	asking  sync.WaitGroup // questions of a round that others answered first
}

// Open opens or makes the store in o.Dir. A lone member leads when Open
// returns; one of several may still be looking for its leader, see Ready.
func Open(ctx context.Context, o Options) (*Store, error) {
	o, err := o.withDefaults()
	if err != nil {
		return nil, fmt.Errorf("open store: %w", err)
	}
	s := &Store{
		options: o, log: o.Logger, leadership: newLeadership(), metrics: newMetrics(),
		notify: make(chan bool, 8), changing: make(chan struct{}, 1), observed: make(chan raft.Observation, 1), gone: make(chan string, 1), started: make(chan struct{}),
	}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	s.closing = s.ctx.Done()
	s.handlers = s.callHandlers()
	if err := s.open(ctx); err != nil {
		s.cancel()
		return nil, fmt.Errorf("open store %s: %w", o.Dir, err)
	}
	return s, nil
}

// open builds the parts in order; what was opened is closed again on an error.
func (s *Store) open(ctx context.Context) error {
	if err := disk.MakeDir(s.options.fs(), s.options.Dir); err != nil {
		return err
	}
	var err error
	if s.lock, err = disk.LockDir(s.options.fs(), s.options.Dir); err != nil {
		return err
	}
	if err := s.openDisk(); err != nil {
		return errors.Join(err, s.closeDisk())
	}
	if err := s.start(); err != nil {
		return errors.Join(err, s.closeDisk())
	}
	if s.alone() {
		if err := s.lead(ctx); err != nil {
			return errors.Join(err, s.Close())
		}
	}
	return nil
}

// The directories below a member's.
const (
	logDir      = "log"
	snapshotDir = "snapshots"
)

// openDisk loads what the member knew: identity, log and state.
func (s *Store) openDisk() error {
	var err error
	if s.id, err = loadIdentity(s.options.fs(), s.options.Dir, s.options.MemberID, s.options.Join); err != nil {
		return err
	}
	s.cluster.Store(&s.id.ClusterID)
	s.log = s.log.With("member", s.id.ID)
	if s.id.Removed {
		return fmt.Errorf("%w: give it an empty directory and let it join as a new member, or recover a cluster of its own from what it has", ErrRemoved)
	}
	s.guard = disk.NewGuard(s.fatal, s.diskStalled, s.options.StallTimeout)
	s.guard.Offline = true // until raft starts: Open returns its errors
	s.guard.Pace = &disk.Pace{TardyAfter: s.options.TardyWrite, SlowAfter: s.options.SlowWrite}
	s.guard.Slow = func() { s.steward.wake() }
	s.guard.Wrote = func(took time.Duration) { s.metrics.diskWrites.Observe(took.Seconds()) }
	if s.wal, err = disk.OpenLog(s.options.fs(), filepath.Join(s.options.Dir, logDir), s.options.SegmentSize, s.guard, s.hclog("log")); err != nil {
		return err
	}
	if s.snapshots, err = disk.OpenSnapshots(s.options.fs(), filepath.Join(s.options.Dir, snapshotDir), snapshotsKept); err != nil {
		return err
	}
	restored, err := restoreNewest(s.snapshots, s.wal, s.log)
	if err != nil {
		return err
	}
	if err := settleLog(s.wal, restored); err != nil {
		return fmt.Errorf("settle the log with the snapshot at %d: %w", restored.index, err)
	}
	s.fsm = restored.fsm
	s.state = s.fsm.state
	if s.options.Inject != nil {
		s.fsm.parts = *s.options.Inject
	}
	s.fsm.fatal = func(err error) { _ = s.guard.Fail(err) }
	s.archivist = newArchivist(s, restored)
	return nil
}

// start brings raft and our goroutines to life.
func (s *Store) start() error {
	if err := s.connect(); err != nil {
		return err
	}
	if !s.id.Joins {
		if err := bootstrap(s.wal, s.snapshots, s.id.ID, s.transport.LocalAddr()); err != nil {
			return errors.Join(err, s.disconnect())
		}
	}
	s.keeper = newKeeper(s)
	s.proposer = newProposer(s)
	s.quorum = newReads(s, s.confirmLeading)
	s.reads = newReads(s, s.askCommitted)
	s.steward = newSteward(s)
	s.wal.Appended = s.archivist.appended
	s.fsm.applied = s.keeper.applied
	s.fsm.reconfigured = s.steward.wake
	s.fsm.committed = s.transport.notices.committed
	s.fsm.origin, s.fsm.executed, s.fsm.recovered = s.proposer.origin, s.proposer.executed, s.proposer.recovered
	if listen := s.fsm.parts.Published; listen != nil {
		s.fsm.applied = func(v *mvcc.View) {
			listen(v)
			s.keeper.applied(v)
		}
	}
	if err := s.startRaft(); err != nil {
		return errors.Join(fmt.Errorf("start raft: %w", err), s.disconnect())
	}
	s.transport.attach(s.raft)
	close(s.started)
	if told := s.fsm.parts.Raft; told != nil {
		told(s.raft)
	}
	s.raft.RegisterObserver(s.leaderObserver())
	for _, run := range []func(){s.proposer.gather, s.reads.run, s.quorum.run, s.catchUp, s.followLeader, s.followLeadership, s.watchOutage, s.keeper.run, s.archivist.run, s.steward.run} {
		s.running.Go(run)
	}
	return nil
}

// startRaft makes the library's instance. It saves its term first and cannot
// bear an error there, so it may be held by a failing disk; then it is let go,
// heard by nobody, and stopped.
func (s *Store) startRaft() error {
	s.guard.Offline = false
	made := make(chan error, 1)
	var instance *raft.Raft
	go func() {
		var err error
		instance, err = raft.NewRaft(s.raftConfig(), s.fsm, s.wal, s.wal.Stable(), s.snapshots, s.transport)
		made <- err
	}()
	select {
	case err := <-made:
		s.raft = instance
		return err
	case <-s.guard.Broken():
		_ = s.disconnect()
		s.guard.Release()
		if err := <-made; err == nil {
			_ = instance.Shutdown().Error()
		}
		return s.guard.Failed()
	}
}

// connect makes the way to other members. Calls of others wait until raft was
// started.
func (s *Store) connect() error {
	if s.options.Network == nil {
		s.transport = newTransport(loneTransport(s.id.ID), s.gate(), s.received)
		return nil
	}
	inner, err := s.options.Network.Start(Local{
		ID: s.id.ID, Address: s.options.Address, Admits: s.admits, Lost: s.lost, Log: s.hclog("transport"),
	}, s.serve)
	if err != nil {
		return fmt.Errorf("connect to other members: %w", errors.Join(err, s.options.Network.Close()))
	}
	s.transport = newTransport(inner, s.gate(), s.received)
	return nil
}

func (s *Store) gate() *clusterGate { return &clusterGate{own: s.ClusterID, adopt: s.adopt} }

func (s *Store) disconnect() error {
	err := s.transport.Close()
	if s.options.Network != nil {
		err = errors.Join(err, s.options.Network.Close())
	}
	return err
}

// raftConfig is tuned for fail-over well under two seconds with margin for slow
// disks. Without peers nobody can fail over: raft's timers then only wake an
// idle process, so they are slow.
func (s *Store) raftConfig() *raft.Config {
	c := raft.DefaultConfig()
	c.LocalID = raft.ServerID(s.id.ID)
	c.HeartbeatTimeout = s.options.HeartbeatTimeout
	c.LeaderLeaseTimeout = s.options.LeaderLeaseTimeout
	if s.options.Network == nil {
		c.HeartbeatTimeout, c.LeaderLeaseTimeout = 10*time.Second, 10*time.Second
	}
	c.ElectionTimeout = c.HeartbeatTimeout
	// Followers hear of commits at once, see promptPipeline; this is for the
	// moments in which there is no pipeline.
	c.CommitTimeout = 500 * time.Millisecond
	c.BatchApplyCh = true
	c.ShutdownOnRemove = false
	// Snapshots and cutting the log are the archivist's work.
	c.SnapshotThreshold = 1 << 62
	c.SnapshotInterval = 24 * time.Hour
	c.TrailingLogs = 1 << 62
	c.NoSnapshotRestoreOnStart = true // done already, and checked
	c.NoLegacyTelemetry = true
	c.NotifyCh = s.notify
	c.Logger = s.hclog("raft")
	return c
}

// hclog is a logger for the libraries, which speak hclog.
func (s *Store) hclog(part string) hclog.Logger { return newHCLog(s.log.With("part", part)) }

// fatal ends the store's life. Raft may be held at the failed write, so it is
// silenced first: a leader that only sends heartbeats keeps the others from
// choosing another.
func (s *Store) fatal(err error) {
	if s.transport != nil {
		go func() { _ = s.transport.Close() }() // Close waits for it too
	}
	s.options.OnFatal(err)
}

// diskStalled hears from the watchdog: a member of several gives way, a lone
// one has nobody to give way to.
func (s *Store) diskStalled(err error) {
	if err == nil {
		s.stalled.Store(nil)
		s.log.Info("the disk answers again")
		return
	}
	s.stalled.Store(&err)
	if s.raft != nil && !s.alone() {
		_ = s.guard.Fail(err)
		return
	}
	s.log.Warn("writes wait for the disk", "error", err)
}

// Close stops the store. It may be called more than once.
func (s *Store) Close() error {
	s.closeOnce.Do(func() { s.closeErr = s.close() })
	return s.closeErr
}

// settleTime bounds the wait for subscribers when leadership is given up.
const settleTime = 2 * time.Second

// resign stops to call this member the leader, before another one leads.
func (s *Store) resign() {
	ctx, cancel := context.WithTimeout(s.ctx, settleTime)
	defer cancel()
	s.leadership.resign(ctx)
}

func (s *Store) close() error {
	s.resign()
	if s.guard.Failed() == nil && s.raft.State() == raft.Leader && !s.alone() {
		// So that the others need not notice the silence first.
		if err := s.raft.LeadershipTransfer().Error(); err != nil {
			s.log.Warn("could not hand leadership over", "error", err)
		}
	}
	s.cancel()
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	ended := make(chan error, 1)
	go func() {
		// Our goroutines end before raft does: raft forgets to answer what is
		// still between its own goroutines when it stops.
		s.running.Wait()
		s.working.Wait()
		s.asking.Wait()
		stopped := s.raft.Shutdown()
		err := s.disconnect() // what raft has on its way fails now and not by a timeout
		ended <- errors.Join(err, stopped.Error(), s.closeDisk())
	}()
	select {
	case err := <-ended:
		return err
	case <-s.guard.Broken():
		// Raft may be in a write that never returns: nobody can wait for it, and
		// the process must end. What can still end does so behind, heard by nobody.
		_ = s.disconnect()
		s.guard.Release()
		return fmt.Errorf("close store: it had failed: %w", s.guard.Failed())
	}
}

// enter begins work on behalf of another that waits for raft; working.Done ends
// it. It reports false when the store is closing.
func (s *Store) enter() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return false
	}
	s.working.Add(1)
	return true
}

func (s *Store) closeDisk() error {
	var errs []error
	if s.wal != nil {
		errs = append(errs, s.wal.Close())
	}
	return errors.Join(append(errs, s.lock.Close())...)
}
