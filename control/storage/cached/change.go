package cached

import (
	"sync"
	"sync/atomic"

	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/apiserver/pkg/storage"

	"github.com/skiff-run/skiff/control/storage/raw"
)

// change is one event as all watchers of a resource share it. What a watcher
// needs of it is worked out when the first one needs it.
type change struct {
	feed     *feed
	key      string
	revision int64
	sequence int64
	next     atomic.Pointer[change]

	mu            sync.Mutex // guards what is worked out later
	before, after version
	// What the watchers get who see the object come or change, and cease.
	here, gone *encodable
}

// version is one side of a change.
type version struct {
	entry  *entry // nil: there is no object on this side
	known  bool   // labels and fields are computed
	labels labels.Set
	fields fields.Set
	err    error
}

// matches says whether a selector wants this side.
func (c *change) matches(v *version, predicate *storage.SelectionPredicate) (bool, error) {
	if v.entry == nil {
		return false, nil
	}
	if predicate.Empty() {
		return true, nil
	}
	object, err := c.feed.open(v.entry)
	if err != nil {
		return false, err
	}
	if predicate.ShardSelector != nil {
		return predicate.Matches(object)
	}
	if !v.known {
		v.labels, v.fields, v.err = c.feed.attributes(object)
		v.known = true
	}
	// An object whose attributes cannot be told matches nothing.
	return v.err == nil && predicate.MatchesObjectAttributes(v.labels, v.fields), nil
}

// event is what a watcher with these wishes sees of the change: an object that
// starts to match was added, one that ceases to was deleted. Nothing at all is
// the empty type.
func (c *change) event(predicate *storage.SelectionPredicate, plain bool) (watch.Event, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	matched, err := c.matches(&c.before, predicate)
	if err != nil {
		return watch.Event{}, c.unreadable(err)
	}
	matches, err := c.matches(&c.after, predicate)
	if err != nil {
		return watch.Event{}, err
	}
	var event watch.Event
	var shared *encodable
	switch {
	case matches && matched:
		event.Type = watch.Modified
		shared, err = c.present()
	case matches:
		event.Type = watch.Added
		shared, err = c.present()
	case matched:
		event.Type = watch.Deleted
		shared, err = c.past()
	default:
		return event, nil
	}
	if err != nil {
		return watch.Event{}, c.unreadable(err)
	}
	event.Object = shared
	if plain {
		event.Object = shared.object
	}
	return event, nil
}

// unreadable is why a watcher cannot be told of the change.
func (c *change) unreadable(err error) error {
	if c.after.entry == nil {
		return raw.DeletedError(err)
	}
	return err
}

func (c *change) present() (*encodable, error) {
	if c.here == nil {
		object, err := c.feed.open(c.after.entry)
		if err != nil {
			return nil, err
		}
		c.here = &encodable{object: object}
	}
	return c.here, nil
}

// past is the object that ceased, at the revision at which it did.
func (c *change) past() (*encodable, error) {
	if c.gone == nil {
		object, err := c.feed.open(c.before.entry)
		if err != nil {
			return nil, err
		}
		if object, err = c.feed.withRevision(object, c.revision); err != nil {
			return nil, err
		}
		c.gone = &encodable{object: object}
	}
	return c.gone, nil
}

// value is an indexed field of one side, if there is one.
func (c *change) value(v *version, indexer storage.IndexerFunc) (string, bool) {
	if v.entry == nil {
		return "", false
	}
	object, err := c.feed.open(v.entry)
	if err != nil {
		return "", false
	}
	return indexer(object), true
}

var _ runtime.CacheableObject = (*encodable)(nil)
