package cached

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/skiff-run/skiff/raftstore"
)

// Hub follows the events of the whole store with one goroutine and hands each
// to the feeds of its resource. The goroutine lives while a resource is in use.
type Hub struct {
	store *raftstore.Store
	// mutated is nil unless mutations are to be detected, and is not changed later.
	mutated func(key, difference string)
	// revision up to which all events have been handed on.
	revision atomic.Int64

	mu    sync.Mutex // guards what follows, and is held while events are handed on
	feeds map[string][]*feed
	// depths are the numbers of slashes that the feeds' prefixes have.
	depths map[int]int
	stop   context.CancelFunc
	done   chan struct{}
}

// NewHub makes the hub of a store. It does nothing until a resource is used.
func NewHub(store *raftstore.Store) *Hub {
	return &Hub{store: store, feeds: map[string][]*feed{}, depths: map[int]int{}}
}

// join lets a feed hear of every event from now on.
func (h *Hub) join(f *feed) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.stop == nil {
		if err := h.start(); err != nil {
			return err
		}
	}
	f.begin(h.revision.Load())
	h.feeds[f.prefix] = append(h.feeds[f.prefix], f)
	h.depths[strings.Count(f.prefix, "/")]++
	return nil
}

func (h *Hub) start() error {
	now := h.store.Revision()
	events, err := h.store.Watch("", now)
	if err != nil {
		return fmt.Errorf("follow the store from revision %d: %w", now, err)
	}
	var ctx context.Context
	ctx, h.stop = context.WithCancel(context.Background())
	h.done = make(chan struct{})
	h.revision.Store(now)
	go h.follow(ctx, events, h.done)
	return nil
}

// leave ends a feed. The last one to leave ends the goroutine and waits for it.
func (h *Hub) leave(f *feed) {
	h.mu.Lock()
	rest := make([]*feed, 0, len(h.feeds[f.prefix]))
	for _, other := range h.feeds[f.prefix] {
		if other != f {
			rest = append(rest, other)
		}
	}
	if len(rest) == len(h.feeds[f.prefix]) {
		h.mu.Unlock()
		return
	}
	h.feeds[f.prefix] = rest
	if len(rest) == 0 {
		delete(h.feeds, f.prefix)
	}
	depth := strings.Count(f.prefix, "/")
	if h.depths[depth]--; h.depths[depth] == 0 {
		delete(h.depths, depth)
	}
	var done chan struct{}
	if len(h.feeds) == 0 {
		h.stop()
		done, h.stop = h.done, nil
	}
	h.mu.Unlock()
	if done != nil {
		<-done
	}
}

// follow hands events on until its context ends.
func (h *Hub) follow(ctx context.Context, events *raftstore.Watcher, done chan struct{}) {
	defer close(done)
	defer func() { events.Close() }()
	for {
		batch, progress, err := events.Next(ctx)
		if err != nil && !errors.Is(err, raftstore.ErrCompacted) {
			return // the context or the store has ended
		}
		h.mu.Lock()
		if ctx.Err() != nil {
			h.mu.Unlock()
			return
		}
		if err != nil {
			events.Close()
			events, progress, err = h.restart()
		}
		for i := range batch {
			h.hand(&batch[i])
		}
		h.revision.Store(progress)
		h.mu.Unlock()
		if err != nil {
			return
		}
	}
}

// restart begins anew after the hub fell so far behind that events are gone:
// the watches then find out for themselves what they missed.
func (h *Hub) restart() (*raftstore.Watcher, int64, error) {
	now := h.store.Revision()
	for _, feeds := range h.feeds {
		for _, f := range feeds {
			f.lost(now)
		}
	}
	events, err := h.store.Watch("", now)
	return events, now, err
}

// hand gives an event to the feeds whose prefix its key has.
func (h *Hub) hand(event *raftstore.Event) {
	key, slashes := event.KV.Key, 0
	for i := range len(key) {
		if key[i] != '/' {
			continue
		}
		slashes++
		if h.depths[slashes] == 0 {
			continue
		}
		for _, f := range h.feeds[key[:i+1]] {
			f.apply(event)
		}
	}
}
