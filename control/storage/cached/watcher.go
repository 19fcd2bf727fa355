package cached

import (
	"context"
	"errors"
	"fmt"
	"time"

	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/apiserver/pkg/storage"
	utilflowcontrol "k8s.io/apiserver/pkg/util/flowcontrol"

	"github.com/skiff-run/skiff/control/storage/raw"
	"github.com/skiff-run/skiff/raftstore"
)

const (
	// resultBuffer is how many events a client may be behind before its watch gets
	// a goroutine of its own.
	resultBuffer = 16
	// maxLag is how many changes a slow watcher may keep from being garbage. One
	// that is further behind reads the store's history.
	maxLag = 1000
	// bookmarkInterval is how often a client that wants bookmarks gets one.
	bookmarkInterval = time.Minute
	// bookmarkMargin is how long before the end of a watch the last bookmark comes,
	// so that the next watch can begin there.
	bookmarkMargin = 2 * time.Second
)

// errStopped ends a watcher that nobody listens to any more.
var errStopped = errors.New("the watch was stopped")

// watcher implements watch.Interface.
//
// As long as its client keeps up, the hub puts events straight into its
// channel and it has no goroutine. When the channel is full it is "draining": a
// goroutine follows the changes from where the watcher stands, and hands back
// to the hub when it has caught up.
type watcher struct {
	feed      *feed
	prefix    string
	recursive bool
	interest  interest
	predicate storage.SelectionPredicate
	// plain watchers are in this process: they get the shared objects themselves.
	plain  bool
	result chan watch.Event
	done   chan struct{} // closed by Stop

	// Guarded by feed.mu; while draining, revision belongs to the goroutine.
	revision int64 // everything up to it has been sent or was not wanted
	draining bool
	lost     bool // the changes after this watcher's are not linked to it
	stopped  bool // done is closed
	closed   bool // result is closed
	bookmark *time.Timer
	unhook   func() bool // no longer stop with the context
}

// Stop implements watch.Interface.
func (w *watcher) Stop() {
	w.feed.mu.Lock()
	defer w.feed.mu.Unlock()
	if w.stopped {
		return
	}
	w.stopped = true
	close(w.done)
	w.retire()
	if !w.draining {
		w.close()
	}
}

// ResultChan implements watch.Interface.
func (w *watcher) ResultChan() <-chan watch.Event { return w.result }

// retire gives back what others hold of the watcher. Callers hold feed.mu.
func (w *watcher) retire() {
	w.feed.watchers.remove(w)
	if w.feed.watchers.empty() {
		w.feed.last = &change{} // the last change need not be kept
	}
	if w.bookmark != nil {
		w.bookmark.Stop()
	}
	if w.unhook != nil {
		w.unhook()
	}
}

func (w *watcher) close() {
	if !w.closed {
		w.closed = true
		close(w.result)
	}
}

// begin sends the initial events, if any, and what happened since the
// watcher's revision. It is the watcher's first goroutine.
func (w *watcher) begin(ctx context.Context, initial *initialEvents) {
	err := error(nil)
	if initial != nil {
		err = w.sendInitial(ctx, initial)
	}
	utilflowcontrol.WatchInitialized(ctx)
	if err == nil {
		err = w.readHistory()
	}
	w.finish(err)
}

// offer gives the watcher the next change. The hub calls it, with feed.mu.
func (w *watcher) offer(c *change) {
	if w.draining || w.closed || c.revision <= w.revision {
		return
	}
	event, err := w.see(c)
	w.revision = c.revision
	if err != nil {
		w.draining = true
		go w.finish(err)
		return
	}
	if event.Type == "" {
		return
	}
	select {
	case w.result <- event:
	default:
		w.draining = true
		go w.drain(c, &event)
	}
}

// see is what the watcher sees of a change.
func (w *watcher) see(c *change) (watch.Event, error) {
	if !w.covers(c.key) {
		return watch.Event{}, nil
	}
	return c.event(&w.predicate, w.plain)
}

func (w *watcher) covers(key string) bool {
	if !w.recursive {
		return key == w.prefix
	}
	return len(key) >= len(w.prefix) && key[:len(w.prefix)] == w.prefix
}

// drain sends an event and the changes that follow until none is left.
func (w *watcher) drain(c *change, first *watch.Event) {
	var err error
	if first != nil {
		err = w.send(*first)
	}
	if err == nil && c != nil {
		err = w.followChanges(c)
	}
	if err == nil {
		err = w.readHistory()
	}
	w.finish(err)
}

// followChanges sends the changes after one. It returns nil when the rest must
// be read from the store's history, or when nothing is left.
func (w *watcher) followChanges(c *change) error {
	for {
		next := c.next.Load()
		if next == nil {
			if w.caughtUp(c) {
				return errCaughtUp
			}
			if c.next.Load() == nil {
				w.revision = c.revision
				return nil
			}
			continue
		}
		if w.feed.sequence.Load()-next.sequence > maxLag {
			w.revision = c.revision
			return nil
		}
		if err := w.deliver(next); err != nil {
			return err
		}
		c = next
	}
}

// errCaughtUp says that the hub serves the watcher again.
var errCaughtUp = errors.New("caught up")

// caughtUp hands the watcher back to the hub if no change follows c.
func (w *watcher) caughtUp(c *change) bool {
	w.feed.mu.Lock()
	defer w.feed.mu.Unlock()
	if w.lost || c.next.Load() != nil {
		return false
	}
	w.revision = c.revision
	return w.handBack()
}

// handBack lets the hub serve the watcher from its revision on. Callers hold
// feed.mu.
func (w *watcher) handBack() bool {
	if w.stopped {
		return false
	}
	w.draining, w.lost = false, false
	w.feed.watchers.add(w)
	return true
}

// readHistory sends the events since the watcher's revision that the store
// keeps, until the hub can take over.
func (w *watcher) readHistory() error {
	events, err := w.feed.store.Watch(w.prefix, w.revision)
	if err != nil {
		return err
	}
	defer events.Close()
	for !w.join() {
		batch, progress, err := events.Next(stopContext{w.done})
		if err != nil {
			return err
		}
		for i := range batch {
			if err := w.deliver(w.feed.changeOf(&batch[i], w.feed.memo.of)); err != nil {
				return err
			}
		}
		w.revision = progress
	}
	return errCaughtUp
}

// join lets the hub take over if it has handed on nothing that the watcher has
// not seen yet. What the watcher has seen and the hub has not is skipped later.
func (w *watcher) join() bool {
	w.feed.mu.Lock()
	defer w.feed.mu.Unlock()
	return w.feed.revision <= w.revision && w.handBack()
}

// deliver sends what the watcher sees of a change and waits until it is taken.
func (w *watcher) deliver(c *change) error {
	event, err := w.see(c)
	if err != nil || event.Type == "" {
		return err
	}
	return w.send(event)
}

func (w *watcher) send(event watch.Event) error {
	select {
	case w.result <- event:
		return nil
	case <-w.done:
		return errStopped
	}
}

// finish ends a draining goroutine: the hub serves the watcher again, or the
// watch is over, with an error that the client gets to know.
func (w *watcher) finish(err error) {
	if errors.Is(err, errCaughtUp) {
		return
	}
	if err != nil && !errors.Is(err, errStopped) && !errors.Is(err, context.Canceled) {
		// After an error nothing more may come, so this is the last event anyway.
		_ = w.send(watch.Event{Type: watch.Error, Object: raw.StatusOf(err)})
	}
	w.feed.mu.Lock()
	defer w.feed.mu.Unlock()
	if !w.stopped {
		w.stopped = true
		close(w.done)
	}
	w.retire()
	w.close()
}

// mark sends a bookmark if the client has room for it, and sets the time of the
// next one.
func (w *watcher) mark(deadline time.Time) {
	w.feed.mu.Lock()
	defer w.feed.mu.Unlock()
	if w.stopped {
		return
	}
	w.bookmark.Reset(untilBookmark(time.Now(), deadline))
	progress := w.feed.progress()
	if w.draining || progress < w.revision {
		return // not everything up to here has been sent
	}
	event, err := w.feed.bookmark(progress, false)
	if err != nil {
		return
	}
	select {
	case w.result <- event:
		w.revision = progress
	default:
	}
}

// untilBookmark is how long to wait for the next bookmark. Times are rounded so
// that the bookmarks of many watches are sent together.
func untilBookmark(now, deadline time.Time) time.Duration {
	const together = 10 * time.Second
	next := now.Add(bookmarkInterval).Truncate(together)
	if last := deadline.Add(-bookmarkMargin); !deadline.IsZero() && last.After(now) && last.Before(next) {
		next = last
	}
	return next.Sub(now)
}

// bookmark says that everything up to a revision was sent.
func (f *feed) bookmark(revision int64, initialEnd bool) (watch.Event, error) {
	object := f.newFunc()
	if err := f.versioner.UpdateObject(object, uint64(revision)); err != nil {
		return watch.Event{}, fmt.Errorf("set resourceVersion of a bookmark: %w", err)
	}
	if initialEnd {
		if err := storage.AnnotateInitialEventsEndBookmark(object); err != nil {
			return watch.Event{}, fmt.Errorf("mark the end of initial events: %w", err)
		}
	}
	return watch.Event{Type: watch.Bookmark, Object: object}, nil
}

// initialEvents are the objects a watch begins with.
type initialEvents struct {
	found    []*raftstore.KeyValue
	bookmark bool
}

// sendInitial sends the objects that there were at the watcher's revision.
func (w *watcher) sendInitial(ctx context.Context, initial *initialEvents) error {
	for _, kv := range initial.found {
		object, err := w.feed.memo.Object(ctx, kv)
		if err != nil {
			return err
		}
		if matches, err := w.predicate.Matches(object); err != nil || !matches {
			continue
		}
		event := watch.Event{Type: watch.Added, Object: object}
		if !w.plain {
			event.Object = shallow(object) // encoders write their version into it
		}
		if err := w.send(event); err != nil {
			return err
		}
	}
	if !initial.bookmark {
		return nil
	}
	event, err := w.feed.bookmark(w.revision, true)
	if err != nil {
		return err
	}
	return w.send(event)
}

// stopContext is done when a channel is closed.
type stopContext struct{ done <-chan struct{} }

func (stopContext) Deadline() (time.Time, bool) { return time.Time{}, false }
func (c stopContext) Done() <-chan struct{}     { return c.done }
func (stopContext) Value(any) any               { return nil }

func (c stopContext) Err() error {
	select {
	case <-c.done:
		return errStopped
	default:
		return nil
	}
}

// newBookmarkTimer calls mark when the first bookmark is due. The callback waits
// for feed.mu, which the caller holds until the timer is in its place.
func newBookmarkTimer(deadline time.Time, w *watcher) *time.Timer {
	return time.AfterFunc(untilBookmark(time.Now(), deadline), func() { w.mark(deadline) })
}
