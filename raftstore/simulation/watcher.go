package simulation

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/skiff-run/skiff/raftstore"
	"github.com/skiff-run/skiff/raftstore/check"
)

// watch follows a prefix through one member after another, resuming where the
// last one stopped, from the past, or from now.
func (c *cluster) watch(ctx context.Context, i int) {
	random := rand.New(rand.NewPCG(c.config.Seed, uint64(200+i)))
	prefixes := []string{"", keep, temporary, keep + "k1"}
	prefix := prefixes[random.IntN(len(prefixes))]
	after := int64(1)
	for ctx.Err() == nil {
		p := c.members[random.IntN(len(c.members))].serving()
		if p == nil {
			c.sleep(ctx, 50*time.Millisecond)
			continue
		}
		progress, err := c.follow(ctx, p, random, fmt.Sprintf("watcher %d", i), prefix, after)
		switch {
		case errors.Is(err, raftstore.ErrCompacted):
			c.count("answer: watch compacted")
			if p.alive() {
				c.agreement.Refused(p.name, progress, p.store.CompactRevision())
			}
			after = p.store.Revision()
		case random.IntN(4) == 0:
			after = max(1, p.store.Revision()+random.Int64N(200)-100)
		default:
			after = progress // what a client that lost its connection does
		}
		c.sleep(ctx, time.Duration(random.IntN(50))*time.Millisecond)
	}
}

// follow holds one watch for a while and returns how far it came.
func (c *cluster) follow(ctx context.Context, p *process, random *rand.Rand, name, prefix string, after int64) (int64, error) {
	w, err := p.store.Watch(prefix, after)
	if err != nil {
		return after, err
	}
	defer w.Close()
	record := &check.Watch{Client: name, Member: p.name, Prefix: prefix, After: after}
	defer func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.watches = append(c.watches, record)
	}()
	ctx, cancel := context.WithTimeout(ctx, time.Duration(random.IntN(20_000))*time.Millisecond)
	defer cancel()
	for {
		events, progress, err := w.Next(ctx)
		if p.endpoint.thawed(nil) != nil || !p.alive() {
			return after, nil // the answer did not arrive
		}
		if err != nil {
			return after, err
		}
		answer := check.Response{Progress: progress}
		for i := range events {
			answer.Events = append(answer.Events, event(&events[i]))
		}
		c.falsify(random, &answer)
		record.Responses = append(record.Responses, answer)
		after = max(after, progress)
		if random.IntN(10) == 0 { // a slow client
			c.sleep(ctx, time.Duration(random.IntN(500))*time.Millisecond)
		}
	}
}

// falsify makes an answer wrong if that is what the test is about.
func (c *cluster) falsify(random *rand.Rand, answer *check.Response) {
	n := len(answer.Events)
	switch c.config.lie {
	case droppedEvent:
		if n > 0 && random.IntN(100) == 0 {
			answer.Events = answer.Events[1:]
		}
	case reorderedEvents:
		if n > 1 {
			answer.Events[n-1], answer.Events[n-2] = answer.Events[n-2], answer.Events[n-1]
		}
	}
}
