package resilience

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/skiff-run/skiff/raftstore/check"
)

// watcherPause is how long a watcher waits before it asks another server, after
// one that did not answer.
const watcherPause = 50 * time.Millisecond

// watch holds one watch after the other until ctx ends: each goes on through
// another server where the last ended.
func (w *Workload) watch(ctx context.Context, n int, at *reached) {
	random := rand.New(rand.NewPCG(w.Seed, 1_000_000+uint64(n)))
	name := fmt.Sprintf("watcher-%d", n)
	var revision int64
	resumed := false
	for i := n; ctx.Err() == nil; i++ {
		server := w.Servers[i%len(w.Servers)]
		if revision == 0 {
			if revision = w.beginning(ctx, server); revision == 0 {
				pause(ctx)
				continue
			}
			resumed = false
		}
		one := &check.Watch{Client: name, Member: server.Name, Prefix: w.prefix(), After: revision}
		revision = w.follow(ctx, server, one, resumed, random, at)
		resumed = revision != 0
	}
}

func pause(ctx context.Context) {
	select {
	case <-ctx.Done():
	case <-time.After(watcherPause):
	}
}

// beginning is the revision to watch from, 0 if the server does not answer.
func (w *Workload) beginning(ctx context.Context, server *Server) int64 {
	ctx, cancel := context.WithTimeout(ctx, w.LongestTimeout)
	defer cancel()
	var found object
	query := url.Values{"limit": {"1"}}
	if _, err := server.request(ctx, http.MethodGet, w.path(), query, nil, &found); err != nil {
		return 0
	}
	return found.revision()
}

// follow holds one watch and returns the revision at which the next goes on, 0
// if that is no longer possible.
func (w *Workload) follow(ctx context.Context, server *Server, one *check.Watch, resumed bool, random *rand.Rand, at *reached) int64 {
	// Short enough that watches move between servers all the time.
	ctx, cancel := context.WithTimeout(ctx, time.Duration(2+random.IntN(10))*time.Second)
	defer cancel()
	events, body, err := server.stream(ctx, w.path(), url.Values{
		"watch": {"1"}, "resourceVersion": {strconv.FormatInt(one.After, 10)}, "allowWatchBookmarks": {"true"},
	})
	if hasCode(err, http.StatusGone) {
		w.Record.begunAnew(one, err.Error())
		return 0
	}
	if err != nil {
		w.Record.count("watch", notMade)
		pause(ctx)
		return one.After
	}
	defer body.Close()
	w.Record.count("watch", done)
	w.Record.watching(one, resumed)
	last := one.After
	for {
		var told struct {
			Type   string
			Object object
		}
		if err := events.Decode(&told); err != nil {
			return last // also when an event was cut off in the middle
		}
		revision := told.Object.revision()
		switch told.Type {
		case "BOOKMARK":
			w.Record.progressed(one, revision)
		case "ADDED", "MODIFIED", "DELETED":
			if !strings.HasPrefix(told.Object.Metadata.Name, keyPrefix) {
				last = revision
				continue
			}
			w.Record.saw(one, w.event(told.Type, &told.Object))
		default: // ERROR
			if told.Object.Code == http.StatusGone {
				w.Record.begunAnew(one, fmt.Sprintf("last %d: %s", last, told.Object.Message))
				return 0
			}
			return last
		}
		last = revision
		at.revision.Store(revision)
	}
}

// event is a watch event as the checkers know it.
func (w *Workload) event(kind string, o *object) *check.Event {
	version := *w.version(o)
	e := &check.Event{Revision: version.ModRevision, Version: version, HasCreated: kind != "DELETED", Created: kind == "ADDED"}
	if kind == "DELETED" {
		// The API tells what was there; the checkers want only that it is gone.
		e.Delete, e.Version.Value = true, ""
	}
	return e
}

// begunAnew notes that a server could not go on where a watch ended.
func (r *Record) begunAnew(w *check.Watch, why string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.expired = append(r.expired, fmt.Sprintf("%s on %s after %d: %s", w.Client, w.Member, w.After, why))
}
