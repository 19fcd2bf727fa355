package raftstore

import (
	"context"
	"sync/atomic"
	"time"

	"github.com/skiff-run/skiff/raftstore/command"
	"github.com/skiff-run/skiff/raftstore/mvcc"
)

// expireAtOnce bounds how many keys one command deletes.
const expireAtOnce = 256

// samplesPerAge is how finely the age of revisions is known: history is kept
// for HistoryAge and up to a fifth more.
const samplesPerAge = 5

// keeper does the leader's housekeeping through the log: it deletes keys whose
// time has come and compacts history that is too old or too large. When nothing
// is written and nothing expires it sleeps without a timer.
type keeper struct {
	store *Store
	kick  chan struct{}
	// asleep: no timer runs that would notice new revisions.
	asleep atomic.Bool
	// alarm is the expiry the timer is set for, 0 for none.
	alarm atomic.Int64

	ages []age // run only
}

// age says: these revisions existed at that time.
type age struct {
	at       time.Time
	revision int64
}

func newKeeper(s *Store) *keeper { return &keeper{store: s, kick: make(chan struct{}, 1)} }

// applied is called by the state machine after each publication and must be
// quick: it only decides whether the keeper has to look.
func (k *keeper) applied(v *mvcc.View) {
	next, alarm := v.NextExpiry(), k.alarm.Load()
	if k.asleep.Load() || k.overfull(v) || next != 0 && (alarm == 0 || next < alarm) {
		k.wake()
	}
}

func (k *keeper) wake() {
	select {
	case k.kick <- struct{}{}:
	default:
	}
}

func (k *keeper) overfull(v *mvcc.View) bool {
	return v.HistoryLen() > k.store.options.HistoryEvents || v.HistoryBytes() > k.store.options.HistoryBytes
}

func (k *keeper) run() {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-timer.C:
		case <-k.kick:
		case <-k.store.closing:
			return
		}
		k.asleep.Store(false)
		wait := k.tidy(ctx, k.store.now())
		if wait == 0 {
			timer.Stop()
			continue
		}
		timer.Reset(wait)
	}
}

// tidy does what is due and returns when to look again, 0 for not until
// something happens.
func (k *keeper) tidy(ctx context.Context, now time.Time) time.Duration {
	if !k.store.IsLeader() {
		k.ages = nil
		k.alarm.Store(0)
		return 0 // leadership wakes the keeper
	}
	wait := k.expire(ctx, now)
	v := k.store.state.View()
	if w := k.compact(ctx, v, now); w > 0 && (wait == 0 || w < wait) {
		wait = w
	}
	// What was applied while this ran was measured against the old alarm.
	if latest := k.store.state.View(); latest.NextExpiry() != k.alarm.Load() || k.asleep.Load() && latest.Revision() != v.Revision() {
		k.wake()
	}
	return wait
}

// expire deletes keys whose time has come.
func (k *keeper) expire(ctx context.Context, now time.Time) time.Duration {
	for {
		next := k.store.state.View().NextExpiry()
		k.alarm.Store(next)
		if next == 0 {
			return 0
		}
		if wait := time.Unix(next, 0).Sub(now); wait > 0 {
			return wait
		}
		_, err := k.store.proposer.propose(ctx, command.Command{Kind: command.Expire, Now: now.Unix(), Limit: expireAtOnce})
		if err != nil {
			k.store.log.Debug("could not expire keys", "error", err)
			return time.Second
		}
	}
}

// compact forgets history beyond its bounds and returns when the next part of
// it is too old.
func (k *keeper) compact(ctx context.Context, v *mvcc.View, now time.Time) time.Duration {
	o := &k.store.options
	step := o.HistoryAge / samplesPerAge
	if n := len(k.ages); v.HistoryLen() > 0 && (n == 0 || k.ages[n-1].revision < v.Revision() && now.Sub(k.ages[n-1].at) >= step) {
		k.ages = append(k.ages, age{at: now, revision: v.Revision()})
	}
	target := int64(0)
	for len(k.ages) > 0 && now.Sub(k.ages[0].at) >= o.HistoryAge {
		target = k.ages[0].revision
		k.ages = k.ages[1:]
	}
	if k.overfull(v) {
		// A quarter at a time, so that this is rare and most watchers survive.
		oldest := v.Revision() - v.HistoryLen()
		target = max(target, oldest+max(1, v.HistoryLen()/4))
	}
	if target > v.CompactRevision() {
		if _, err := k.store.proposer.propose(ctx, command.Command{Kind: command.Compact, Revision: target}); err != nil {
			k.store.log.Debug("could not compact", "error", err)
			return time.Second
		}
		k.store.log.Debug("compacted", "revision", target)
		v = k.store.state.View()
	}
	switch {
	case k.overfull(v):
		return time.Millisecond
	case v.HistoryLen() == 0:
		k.ages = nil
		k.asleep.Store(true)
		return 0
	case len(k.ages) == 0:
		return step
	}
	wait := o.HistoryAge - now.Sub(k.ages[0].at)
	if last := k.ages[len(k.ages)-1]; last.revision < v.Revision() {
		wait = min(wait, step-now.Sub(last.at)) // a later sample would keep history longer
	} else {
		k.asleep.Store(true)
	}
	return wait
}
