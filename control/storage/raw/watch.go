package raw

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/apiserver/pkg/storage"
	utilflowcontrol "k8s.io/apiserver/pkg/util/flowcontrol"

	"github.com/skiff-run/skiff/raftstore"
)

// resultBuffer is how many events a client may be behind before its watch waits.
const resultBuffer = 100

// Watch implements storage.Interface. Errors after the arguments are read
// arrive as events of the watch.
func (s *Store) Watch(ctx context.Context, key string, options storage.ListOptions) (watch.Interface, error) {
	prefix, err := s.Key(key, options.Recursive)
	if err != nil {
		return nil, err
	}
	revision, err := s.Config.Versioner.ParseResourceVersion(options.ResourceVersion)
	if err != nil {
		return nil, err
	}
	initial := options.SendInitialEvents != nil && *options.SendInitialEvents
	w := &watcher{
		store: s, prefix: prefix, options: options, from: int64(revision),
		results: make(chan watch.Event, resultBuffer),
		// Without resourceVersion a watch of old clients starts with what there is.
		initial:  initial || options.SendInitialEvents == nil && revision == 0,
		bookmark: initial && options.Predicate.AllowWatchBookmarks,
	}
	ctx, w.cancel = context.WithCancel(ctx)
	if w.from == 0 && !w.initial {
		if w.from, err = s.Current(ctx); err != nil {
			w.cancel()
			return nil, err
		}
	}
	go w.run(ctx)
	utilflowcontrol.WatchInitialized(ctx)
	return w, nil
}

// watcher implements watch.Interface. Its goroutine ends with its context or
// with the first error.
type watcher struct {
	store   *Store
	prefix  string
	options storage.ListOptions
	from    int64
	initial bool
	// bookmark says that the end of the initial events is to be marked.
	bookmark bool
	results  chan watch.Event
	cancel   context.CancelFunc
}

// Stop implements watch.Interface.
func (w *watcher) Stop() { w.cancel() }

// ResultChan implements watch.Interface.
func (w *watcher) ResultChan() <-chan watch.Event { return w.results }

func (w *watcher) run(ctx context.Context) {
	defer close(w.results)
	defer w.cancel()
	err := w.start(ctx)
	if err == nil {
		err = w.follow(ctx)
	}
	if err != nil && ctx.Err() == nil {
		w.send(ctx, watch.Event{Type: watch.Error, Object: StatusOf(err)})
	}
}

// start sends what there is now, if that is asked for.
func (w *watcher) start(ctx context.Context) error {
	if !w.initial {
		return nil
	}
	now, err := w.store.Current(ctx)
	if err != nil {
		return err
	}
	if w.from > now {
		return storage.NewTooLargeResourceVersionError(uint64(w.from), uint64(now), 1)
	}
	found, err := w.store.All(w.prefix, w.options.Recursive, now)
	if err != nil {
		return w.store.ListError(err, now, false, "", w.prefix)
	}
	for _, kv := range found {
		object, err := w.decode(ctx, kv, kv.ModRevision)
		if err != nil {
			return err
		}
		if w.wants(object) && !w.send(ctx, watch.Event{Type: watch.Added, Object: object}) {
			return ctx.Err()
		}
	}
	w.from = now
	if w.bookmark {
		return w.mark(ctx, now, true)
	}
	return nil
}

// All reads everything below a prefix, or the one key.
func (s *Store) All(prefix string, recursive bool, revision int64) ([]*raftstore.KeyValue, error) {
	if recursive {
		found, err := s.Config.Store.Range(prefix, "", 0, revision)
		return found.KVs, err
	}
	kv, _, err := s.Config.Store.Get(prefix, revision)
	if err != nil || kv == nil {
		return nil, err
	}
	return []*raftstore.KeyValue{kv}, nil
}

// follow sends what happens from then on.
func (w *watcher) follow(ctx context.Context) error {
	cursor, err := w.store.Config.Store.Watch(w.prefix, w.from)
	if err != nil {
		return err
	}
	defer cursor.Close()
	told := w.from
	for {
		events, progress, err := cursor.Next(ctx)
		if err != nil {
			return err
		}
		for i := range events {
			if !w.options.Recursive && events[i].KV.Key != w.prefix {
				continue
			}
			event, err := w.translate(ctx, &events[i])
			if err != nil {
				return err
			}
			if event == nil {
				continue
			}
			if !w.send(ctx, *event) {
				return ctx.Err()
			}
			told = events[i].Revision
		}
		if w.options.ProgressNotify && progress > told {
			if err := w.mark(ctx, progress, false); err != nil {
				return err
			}
			told = progress
		}
	}
}

// translate makes the event that this watch's selectors see: an object that
// starts to match was added, one that ceases to was deleted. Nil: neither.
func (w *watcher) translate(ctx context.Context, event *raftstore.Event) (*watch.Event, error) {
	var before, after runtime.Object
	var err error
	if event.PrevKV != nil && (event.Type == raftstore.EventDelete || !w.options.Predicate.Empty()) {
		// The old object carries the revision at which it ceased.
		if before, err = w.decode(ctx, event.PrevKV, event.Revision); err != nil {
			if event.Type == raftstore.EventDelete {
				err = DeletedError(err)
			}
			return nil, err
		}
	}
	if event.Type == raftstore.EventPut {
		if after, err = w.decode(ctx, event.KV, event.Revision); err != nil {
			return nil, err
		}
	}
	matched, matches := before != nil && w.wants(before), after != nil && w.wants(after)
	if w.options.Predicate.Empty() {
		matched = event.PrevKV != nil
	}
	switch {
	case matches && matched:
		return &watch.Event{Type: watch.Modified, Object: after}, nil
	case matches:
		return &watch.Event{Type: watch.Added, Object: after}, nil
	case matched:
		return &watch.Event{Type: watch.Deleted, Object: before}, nil
	}
	return nil, nil
}

func (w *watcher) decode(ctx context.Context, kv *raftstore.KeyValue, revision int64) (runtime.Object, error) {
	data, _, err := w.store.open(ctx, kv)
	if err != nil {
		return nil, err
	}
	if w.store.NewFunc != nil {
		object := w.store.NewFunc()
		return object, w.store.Decoder.Decode(data, object, revision)
	}
	object, _, err := w.store.Codec.Decode(data, nil, nil)
	if err != nil {
		return nil, err
	}
	if err := w.store.Config.Versioner.UpdateObject(object, uint64(revision)); err != nil {
		return nil, fmt.Errorf("set resourceVersion of %s: %w", kv.Key, err)
	}
	return object, nil
}

func (w *watcher) wants(object runtime.Object) bool {
	if w.options.Predicate.Empty() {
		return true
	}
	matches, err := w.options.Predicate.Matches(object)
	return err == nil && matches
}

// mark sends a bookmark: everything up to the revision has been sent.
func (w *watcher) mark(ctx context.Context, revision int64, initialEnd bool) error {
	if w.store.NewFunc == nil {
		return apierrors.NewInternalError(errors.New("a watch with bookmarks needs to know the type of its objects"))
	}
	object := w.store.NewFunc()
	if err := w.store.Config.Versioner.UpdateObject(object, uint64(revision)); err != nil {
		return err
	}
	if initialEnd {
		if err := storage.AnnotateInitialEventsEndBookmark(object); err != nil {
			return err
		}
	}
	w.send(ctx, watch.Event{Type: watch.Bookmark, Object: object})
	return ctx.Err()
}

// send is false when nobody waits any more.
func (w *watcher) send(ctx context.Context, event watch.Event) bool {
	select {
	case w.results <- event:
		return true
	case <-ctx.Done():
		return false
	}
}

// StatusOf is an error as a watch tells it.
func StatusOf(err error) *metav1.Status {
	if errors.Is(err, raftstore.ErrCompacted) {
		err = apierrors.NewResourceExpired(watchExpired)
	}
	var status apierrors.APIStatus
	if errors.As(err, &status) {
		out := status.Status()
		return &out
	}
	return &metav1.Status{Status: metav1.StatusFailure, Message: err.Error(), Code: http.StatusInternalServerError, Reason: metav1.StatusReasonInternalError}
}
