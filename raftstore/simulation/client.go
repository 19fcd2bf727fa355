package simulation

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"time"

	"github.com/skiff-run/skiff/raftstore"
	"github.com/skiff-run/skiff/raftstore/check"
)

// The keys. Those below temporary expire.
const (
	keep      = "/registry/keep/"
	temporary = "/registry/temporary/"
)

func expires(key string) bool { return strings.HasPrefix(key, temporary) }

// lie is what a client or watcher does wrong on purpose, to see that it is
// noticed.
type lie uint8

const (
	honest lie = iota
	localReads
	leaderReads
	verifiedReads
	droppedEvent
	reorderedEvents
)

// client asks one member after another.
type client struct {
	cluster  *cluster
	name     string
	random   *rand.Rand
	home     int
	faithful bool // it asks nobody else
	early    bool // its request had arrived when the process was paused
	sequence int
	seen     map[string]int64 // modification revisions it believes in
}

func newClient(c *cluster, i int) *client {
	return &client{
		cluster: c, name: fmt.Sprintf("client %d", i), random: rand.New(rand.NewPCG(c.config.Seed, uint64(100+i))),
		home: i, seen: map[string]int64{},
	}
}

// work asks until the time is over.
func (c *client) work(ctx context.Context) {
	for c.cluster.sleep(ctx, time.Duration(c.random.Int64N(int64(2*c.cluster.config.Pause)))) {
		switch n := c.random.IntN(100); {
		case n < 40:
			c.put(ctx)
		case n < 48:
			c.delete(ctx)
		case n < 74:
			c.get(ctx, 0)
		case n < 86:
			c.list(ctx, 0)
		case n < 92:
			c.list(ctx, c.old())
		case n < 97:
			c.get(ctx, c.old())
		default:
			c.compact(ctx)
		}
	}
}

// member picks who to ask: mostly the same one, as a connection would.
func (c *client) member() *process {
	if !c.faithful && c.random.IntN(20) == 0 {
		c.home = c.random.IntN(1 << 20)
	}
	p := c.cluster.members[c.home%len(c.cluster.members)].serving()
	if p == nil && !c.faithful {
		c.home++
	}
	return p
}

func (c *client) key() string {
	n := c.random.IntN(c.cluster.config.Keys)
	if n%8 == 7 {
		return fmt.Sprintf("%sk%d", temporary, n)
	}
	return fmt.Sprintf("%sk%d", keep, n)
}

func (c *client) old() int64 {
	return max(1, c.cluster.log.Last()-c.random.Int64N(200))
}

// ask sends one request to a member: it waits while the process is frozen and
// reports whether the answer arrived.
func (c *client) ask(ctx context.Context, p *process, patience time.Duration, request func(context.Context) error) (err error, arrived bool) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	if !c.early && p.endpoint.thawed(nil) != nil {
		return errClosed, false
	}
	err = request(ctx)
	if p.endpoint.thawed(nil) != nil || !p.alive() {
		return err, false
	}
	return err, true
}

// notMade says that a write was certainly not made.
func notMade(err error) bool {
	return !errors.Is(err, raftstore.ErrOutcomeUnknown) &&
		(errors.Is(err, raftstore.ErrNotLeader) || errors.Is(err, raftstore.ErrClosed))
}

// patience is how long a client waits for an answer.
func (c *client) patience() time.Duration {
	return time.Duration(200+c.random.IntN(8000)) * time.Millisecond
}

// expect chooses the compare of a write.
func (c *client) expect(key string) int64 {
	if c.random.IntN(4) == 0 {
		return raftstore.AnyRevision
	}
	return c.seen[key]
}

// write records a write and its outcome. It reports whether it was answered.
func (c *client) write(ctx context.Context, o *check.Operation, request func(ctx context.Context, s *raftstore.Store) error) bool {
	p := c.member()
	if p == nil {
		return false
	}
	o.Client, o.Member, o.Call = c.name, p.name, c.cluster.history.Now()
	err, arrived := c.ask(ctx, p, c.patience(), func(ctx context.Context) error { return request(ctx, p.store) })
	switch {
	case !arrived || err != nil && !notMade(err):
		*o = check.Operation{Client: o.Client, Member: o.Member, Kind: o.Kind, Key: o.Key, Value: o.Value, Expect: o.Expect, Call: o.Call, Return: check.Never}
		c.cluster.mu.Lock()
		c.cluster.unknown++
		c.cluster.mu.Unlock()
	case err != nil:
		c.cluster.mu.Lock()
		c.cluster.failures["write refused"]++
		c.cluster.mu.Unlock()
		return false
	}
	c.cluster.history.Add(o)
	if o.Return == check.Never {
		return false
	}
	c.cluster.acknowledged(o.Revision)
	return true
}

func (c *client) put(ctx context.Context) bool {
	key := c.key()
	c.sequence++
	o := &check.Operation{Kind: check.Put, Key: key, Value: fmt.Sprintf("%s-%d", c.name, c.sequence), Expect: c.expect(key)}
	r := raftstore.PutRequest{Key: key, Value: []byte(o.Value), ExpectModRevision: o.Expect}
	if c.random.IntN(8) == 0 {
		r.Value = append(r.Value, make([]byte, c.random.IntN(3000))...) // room for more segments
		o.Value = string(r.Value)
	}
	if expires(key) {
		r.TTLSeconds = 1 + c.random.Int64N(5)
	}
	return c.write(ctx, o, func(ctx context.Context, s *raftstore.Store) error {
		answer, err := s.Put(ctx, r)
		if err != nil {
			return err
		}
		o.Succeeded, o.Revision = answer.Succeeded, answer.Revision
		if answer.Succeeded {
			o.Previous, o.HasPrevious = version(answer.PrevKV), true
			c.seen[key] = answer.Revision
			return nil
		}
		o.Found = version(answer.KV)
		c.seen[key] = revisionOf(answer.KV)
		return nil
	})
}

func revisionOf(kv *raftstore.KeyValue) int64 {
	if kv == nil {
		return 0
	}
	return kv.ModRevision
}

func (c *client) delete(ctx context.Context) bool {
	key := c.key()
	o := &check.Operation{Kind: check.Delete, Key: key, Expect: c.expect(key)}
	return c.write(ctx, o, func(ctx context.Context, s *raftstore.Store) error {
		answer, err := s.Delete(ctx, raftstore.DeleteRequest{Key: key, ExpectModRevision: o.Expect})
		if err != nil {
			return err
		}
		o.Succeeded, o.Revision = answer.Succeeded, answer.Revision
		if answer.Succeeded {
			o.Previous, o.HasPrevious = version(answer.PrevKV), true
			c.seen[key] = 0
			return nil
		}
		o.Found = version(answer.PrevKV)
		c.seen[key] = revisionOf(answer.PrevKV)
		return nil
	})
}

// read records a read. At an old revision it needs no consistency.
func (c *client) read(ctx context.Context, o *check.Operation, request func(s *raftstore.Store) error) {
	p := c.member()
	if p == nil {
		return
	}
	o.Client, o.Member, o.Call = c.name, p.name, c.cluster.history.Now()
	err, arrived := c.ask(ctx, p, c.patience(), func(ctx context.Context) error {
		if o.At == 0 {
			if err := c.consistent(ctx, p); err != nil {
				return err
			}
		}
		return request(p.store)
	})
	if !arrived {
		return
	}
	switch {
	case err == nil:
		c.cluster.history.Add(o)
	case errors.Is(err, raftstore.ErrCompacted):
		c.cluster.count("answer: compacted")
		c.cluster.agreement.Refused(p.name, o.At, p.store.CompactRevision())
	case errors.Is(err, raftstore.ErrFutureRevision):
		c.cluster.count("answer: in the future")
	}
}

// consistent makes sure that what is read next is not old.
func (c *client) consistent(ctx context.Context, p *process) error {
	switch c.cluster.config.lie {
	case localReads:
		return nil
	case leaderReads:
		if !p.store.IsLeader() {
			return raftstore.ErrNotLeader
		}
		return nil
	case verifiedReads:
		if !p.store.IsLeader() {
			return raftstore.ErrNotLeader
		}
		return p.raft.VerifyLeader().Error()
	}
	_, err := p.store.ReadIndex(ctx)
	return err
}

func (c *client) get(ctx context.Context, at int64) {
	o := &check.Operation{Kind: check.Get, Key: c.key(), At: at}
	c.read(ctx, o, func(s *raftstore.Store) error {
		kv, revision, err := s.Get(o.Key, at)
		o.Found, o.Revision = version(kv), revision
		if at == 0 {
			c.seen[o.Key] = revisionOf(kv)
		}
		return err
	})
}

func (c *client) list(ctx context.Context, at int64) {
	o := &check.Operation{Kind: check.List, Key: keep, At: at}
	c.read(ctx, o, func(s *raftstore.Store) error {
		r, err := s.Range(o.Key, "", 0, at)
		for _, kv := range r.KVs {
			o.Listed = append(o.Listed, version(kv))
			if at == 0 {
				c.seen[kv.Key] = kv.ModRevision
			}
		}
		o.Revision = r.Revision
		return err
	})
}

func (c *client) compact(ctx context.Context) {
	p := c.member()
	if p == nil {
		return
	}
	revision := p.store.Revision() - c.random.Int64N(100)
	if revision <= 1 {
		return
	}
	c.cluster.agreement.Compacting(revision)
	_, _ = c.ask(ctx, p, c.patience(), func(ctx context.Context) error { return p.store.Compact(ctx, revision) })
}
