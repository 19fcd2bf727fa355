package cached

import (
	"strings"

	"k8s.io/apiserver/pkg/storage"
)

// interest is what a watcher can be found by: the field and value it demands,
// the one key, or the directory. The zero interest is everything.
type interest struct{ field, value string }

// The names under which keys and directories are found. No field is called so.
const (
	byKey       = "key"
	byDirectory = "directory"
)

// interests are the watchers of a resource, findable by what they want, so that
// an event does not ask each of a thousand kubelets' watches.
type interests struct {
	sets map[interest]map[*watcher]struct{}
	// fields counts the watchers by field.
	fields map[string]int
}

func (s *interests) empty() bool { return len(s.sets) == 0 }

func (s *interests) add(w *watcher) {
	if s.sets == nil {
		s.sets, s.fields = map[interest]map[*watcher]struct{}{}, map[string]int{}
	}
	set := s.sets[w.interest]
	if set == nil {
		set = map[*watcher]struct{}{}
		s.sets[w.interest] = set
	}
	if _, known := set[w]; !known {
		set[w] = struct{}{}
		s.fields[w.interest.field]++
	}
}

func (s *interests) remove(w *watcher) {
	set := s.sets[w.interest]
	if _, known := set[w]; !known {
		return
	}
	delete(set, w)
	s.fields[w.interest.field]--
	if len(set) == 0 {
		delete(s.sets, w.interest)
	}
}

func (s *interests) all(visit func(*watcher)) {
	for _, set := range s.sets {
		for w := range set {
			visit(w)
		}
	}
}

// concerned visits the watchers that may want to see a change.
func (s *interests) concerned(c *change, indexers storage.IndexerFuncs, visit func(*watcher)) {
	each := func(i interest) {
		for w := range s.sets[i] {
			visit(w)
		}
	}
	each(interest{})
	if s.fields[byKey] > 0 {
		each(interest{byKey, c.key})
	}
	if s.fields[byDirectory] > 0 {
		each(interest{byDirectory, c.key[:strings.LastIndexByte(c.key, '/')+1]})
	}
	for field, indexer := range indexers {
		if s.fields[field] == 0 {
			continue
		}
		// Who wanted the old object hears that it has become another.
		before, had := c.value(&c.before, indexer)
		after, has := c.value(&c.after, indexer)
		if had {
			each(interest{field, before})
		}
		if has && !(had && before == after) {
			each(interest{field, after})
		}
		if (c.before.entry != nil) != had || (c.after.entry != nil) != has {
			// Undecodable: all must learn that their watch has a hole.
			s.all(func(w *watcher) {
				if w.interest.field == field {
					visit(w)
				}
			})
		}
	}
}

// interestOf is by what a watcher is found best.
func interestOf(prefix string, recursive bool, feed *feed, predicate *storage.SelectionPredicate) interest {
	if !recursive {
		return interest{byKey, prefix}
	}
	if predicate.Field != nil {
		for field := range feed.indexers {
			if value, exact := predicate.Field.RequiresExactMatch(field); exact {
				return interest{field, value}
			}
		}
	}
	if prefix != feed.prefix {
		return interest{byDirectory, prefix}
	}
	return interest{}
}
