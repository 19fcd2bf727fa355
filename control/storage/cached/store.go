package cached

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"

	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/apiserver/pkg/storage"
	utilflowcontrol "k8s.io/apiserver/pkg/util/flowcontrol"

	"github.com/skiff-run/skiff/control/storage/raw"
	"github.com/skiff-run/skiff/raftstore"
)

// Store implements storage.Interface for one resource in one version. Until it
// is used it costs a few hundred bytes. It is safe for concurrent use.
type Store struct {
	*raw.Store
	feed *feed
	// inUse says that the feed hears of every event.
	inUse atomic.Bool

	mu        sync.Mutex // guards changes of inUse, and what follows
	destroyed bool
}

var _ storage.Interface = (*Store)(nil)

// ErrDestroyed: the storage is used after Destroy.
var ErrDestroyed = errors.New("the storage was destroyed")

// New returns the storage of a resource. Attributes gives an object's labels and
// selectable fields.
func New(hub *Hub, config raw.Config, attributes storage.AttrFunc) (*Store, error) {
	if hub == nil {
		return nil, errors.New("a cached storage needs the hub of its store")
	}
	plain, err := raw.New(config)
	if err != nil {
		return nil, err
	}
	s := &Store{}
	config.Objects = s
	if s.Store, err = raw.New(config); err != nil {
		return nil, err
	}
	prefix, err := s.Key(config.ResourcePrefix, true)
	if err != nil {
		return nil, err
	}
	s.feed = &feed{
		prefix: prefix, store: config.Store, hub: hub, memo: newMemo(hub, plain.Decode),
		versioner: s.Config.Versioner, newFunc: config.NewFunc, attributes: attributes, indexers: config.Indexers,
	}
	return s, nil
}

// use begins to follow the resource's events when it is first used.
func (s *Store) use() error {
	if s.inUse.Load() {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.destroyed:
		return ErrDestroyed
	case s.inUse.Load():
		return nil
	}
	if err := s.feed.hub.join(s.feed); err != nil {
		return err
	}
	s.inUse.Store(true)
	return nil
}

// Destroy stops all watches and forgets all objects. It may be called more than
// once.
func (s *Store) Destroy() {
	s.mu.Lock()
	s.destroyed = true
	used := s.inUse.Swap(false)
	s.mu.Unlock()
	if used {
		s.feed.hub.leave(s.feed)
		s.feed.end()
	}
}

// Object implements raw.Objects.
func (s *Store) Object(ctx context.Context, kv *raftstore.KeyValue) (runtime.Object, error) {
	if err := s.use(); err != nil {
		// Without its events nothing may be kept, but it can be read.
		return s.feed.memo.decode(ctx, kv)
	}
	return s.feed.memo.Object(ctx, kv)
}

// Watch implements storage.Interface. Objects of its events are encoded once
// for all watchers.
func (s *Store) Watch(ctx context.Context, key string, options storage.ListOptions) (watch.Interface, error) {
	if options.ProgressNotify {
		return s.Store.Watch(ctx, key, options)
	}
	return s.watch(ctx, key, options, false)
}

func (s *Store) watch(ctx context.Context, key string, options storage.ListOptions, plain bool) (watch.Interface, error) {
	prefix, err := s.Key(key, options.Recursive)
	if err != nil {
		return nil, err
	}
	asked, err := s.Config.Versioner.ParseResourceVersion(options.ResourceVersion)
	if err != nil {
		return nil, err
	}
	if err := s.use(); err != nil {
		return nil, err
	}
	w := &watcher{
		feed: s.feed, prefix: prefix, recursive: options.Recursive, predicate: options.Predicate, plain: plain,
		interest: interestOf(prefix, options.Recursive, s.feed, &options.Predicate),
		result:   make(chan watch.Event, resultBuffer), done: make(chan struct{}),
		revision: int64(asked), draining: true,
	}
	initial, err := s.initial(ctx, w, options)
	s.hook(ctx, w)
	switch {
	case err != nil:
		// Errors after the arguments are read arrive as events of the watch.
		utilflowcontrol.WatchInitialized(ctx)
		go w.finish(err)
	case initial == nil && s.live(w):
		utilflowcontrol.WatchInitialized(ctx)
	default:
		go w.begin(ctx, initial)
	}
	return w, nil
}

// initial finds where a watch starts: at the revision asked for, or at what
// there is now, which may have to be sent first.
func (s *Store) initial(ctx context.Context, w *watcher, options storage.ListOptions) (*initialEvents, error) {
	wanted := options.SendInitialEvents != nil && *options.SendInitialEvents
	if !wanted && w.revision > 0 {
		return nil, nil
	}
	now, err := s.AtLeast(ctx, options.ResourceVersion)
	if err != nil {
		return nil, err
	}
	w.revision = now
	// Without resourceVersion a watch of old clients starts with what there is.
	if !wanted && options.SendInitialEvents != nil {
		return nil, nil
	}
	found, err := s.All(w.prefix, w.recursive, now)
	if err != nil {
		return nil, s.ListError(err, now, false, "", w.prefix)
	}
	return &initialEvents{found: found, bookmark: wanted && options.Predicate.AllowWatchBookmarks}, nil
}

// hook ends the watcher with the request and starts its bookmarks.
func (s *Store) hook(ctx context.Context, w *watcher) {
	s.feed.mu.Lock()
	defer s.feed.mu.Unlock()
	w.unhook = context.AfterFunc(ctx, w.Stop)
	// An informer of this process has no connection that could break.
	if w.predicate.AllowWatchBookmarks && !w.plain && s.feed.newFunc != nil {
		deadline, _ := ctx.Deadline()
		w.bookmark = newBookmarkTimer(deadline, w)
	}
}

// live begins a watch without initial events without a goroutine, if nothing
// has happened since its revision.
func (s *Store) live(w *watcher) bool {
	return w.revision >= s.Config.Store.CompactRevision() && w.join()
}

// Kept is how many objects are kept decoded.
func (s *Store) Kept() int { return s.feed.memo.size() }

// String names the storage in logs.
func (s *Store) String() string { return fmt.Sprintf("storage of %s", s.GroupResource) }
