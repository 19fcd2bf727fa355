package resilience

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"
)

// reached is how far a watcher has come.
type reached struct{ revision atomic.Int64 }

// recovery are the limits of a cluster that is whole again.
const (
	// writeAgain is how long it may take until every API server writes.
	writeAgain = 15 * time.Second
	// catchUp is how long it may take until every watch has told everything.
	catchUp  = 20 * time.Second
	askAgain = 100 * time.Millisecond
)

// Run lets clients and watchers use the servers while mistreat runs, which must
// leave the cluster whole. Then every server must write again and every watch
// catch up.
func (w *Workload) Run(ctx context.Context, mistreat func(ctx context.Context) error) error {
	if err := w.createNamespace(ctx); err != nil {
		return err
	}
	var watchers, clients sync.WaitGroup
	watching, endWatches := context.WithCancel(ctx)
	defer watchers.Wait()
	defer endWatches()
	at := make([]reached, w.Watchers)
	for i := range at {
		watchers.Go(func() { w.watch(watching, i, &at[i]) })
	}
	working, endWork := context.WithCancel(ctx)
	defer endWork()
	limit := rate.NewLimiter(rate.Limit(w.Rate), w.Clients)
	for i := range w.Clients {
		clients.Go(func() { w.use(working, i, limit) })
	}
	err := mistreat(working)
	endWork()
	clients.Wait()
	if err != nil {
		return err
	}
	return w.settle(ctx, at)
}

func (w *Workload) createNamespace(ctx context.Context) error {
	body := &object{APIVersion: "v1", Kind: "Namespace", Metadata: metadata{Name: w.Namespace}}
	return eventually(ctx, writeAgain, "create the namespace", func(ctx context.Context) error {
		_, err := w.Servers[0].request(ctx, http.MethodPost, "/api/v1/namespaces", nil, body, &object{})
		if hasCode(err, http.StatusConflict) {
			return nil
		}
		return err
	})
}

// settle proves liveness: each server makes a write, and all watches see the last.
func (w *Workload) settle(ctx context.Context, at []reached) error {
	c := &client{Workload: w, name: "last", known: map[string]int64{}}
	var last int64
	for _, server := range w.Servers {
		name := keyPrefix + "last-" + server.Name
		err := eventually(ctx, writeAgain, "write through "+server.Name, func(ctx context.Context) error {
			c.get(ctx, server, name)
			revision, known := c.known[name]
			if !known {
				return errors.New("a read is not answered")
			}
			c.put(ctx, server, name, revision)
			if last, known = c.known[name]; !known {
				return errors.New("a write is not answered")
			}
			return nil
		})
		if err != nil {
			return err
		}
		c.list(ctx, server, "")
	}
	return eventually(ctx, catchUp, "catch up with all watches", func(context.Context) error {
		for i := range at {
			if got := at[i].revision.Load(); got < last {
				return fmt.Errorf("watcher-%d is at revision %d, the last write was %d", i, got, last)
			}
		}
		return nil
	})
}

// eventually tries until it succeeds; the error says what was not possible
// within the limit.
func eventually(ctx context.Context, limit time.Duration, what string, try func(ctx context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	for {
		one, cancelOne := context.WithTimeout(ctx, 2*time.Second)
		err := try(one)
		cancelOne()
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%s: not within %s: %w", what, limit, err)
		case <-time.After(askAgain):
		}
	}
}
