package check

import (
	"slices"
	"strings"
)

// Response is one answer of a watch: events, possibly none, and the progress,
// the revision up to which everything has been told. 0: the answer tells none.
type Response struct {
	Events   []*Event
	Progress int64
}

// Watch is what one watch was asked for and told.
type Watch struct {
	Client, Member string
	Prefix         string
	// After: events with a greater revision were asked for.
	After     int64
	Responses []Response
}

// Watched checks the guarantees of watches against the log:
//
//	filter        only what was asked for is told
//	ordered       in the order of revisions
//	unique        nothing twice
//	atomic        a revision is not split over two answers
//	bookmarkable  after progress P nothing at or before P comes, nor is missing
//	resumable     the first event is the first one after the start
//	reliable      nothing between the first and the last event is missing
//	prevKV        the previous version is the one the log has
//	isCreate      creations are told from updates
//
// and that each event is what the log says. The log must be complete.
func Watched(watches []*Watch, log *Log) error {
	if err := log.complete(); err != nil {
		return err
	}
	v := &violations{}
	for _, w := range watches {
		watched(v, w, log)
	}
	return v.err()
}

func (w *Watch) wants(e *Event) bool {
	return e.Revision > w.After && strings.HasPrefix(e.Version.Key, w.Prefix)
}

func watched(v *violations, w *Watch, log *Log) {
	about := func(guarantee string) {
		v.name = "watch guarantee " + guarantee + ": " + w.Client + " on " + w.Member + ", prefix " + w.Prefix
	}
	var told []*Event
	last, lastAnswer, progress := w.After, -1, w.After
	seen := map[int64]bool{}
	for i, r := range w.Responses {
		for _, e := range r.Events {
			if !w.wants(e) {
				about("filter")
				v.add("asked after %d and got %v", w.After, e)
			}
			if e.Revision < last {
				about("ordered")
				v.add("%v came after revision %d", e, last)
			}
			if seen[e.Revision] {
				about("unique")
				v.add("%v came twice", e)
				if lastAnswer != i {
					about("atomic")
					v.add("revision %d was split over two answers", e.Revision)
				}
			}
			if e.Revision <= progress {
				about("bookmarkable")
				v.add("%v came after progress %d", e, progress)
			}
			seen[e.Revision] = true
			last, lastAnswer = max(last, e.Revision), i
			told = append(told, e)
			content(v, about, e, log)
		}
		if r.Progress != 0 {
			if r.Progress < progress || r.Progress < last {
				about("bookmarkable")
				v.add("progress %d came after %d and revision %d", r.Progress, progress, last)
			}
			progress = max(progress, r.Progress)
		}
	}
	missing(v, about, w, log, told, seen, progress)
}

// content compares one event with the log.
func content(v *violations, about func(string), e *Event, log *Log) {
	want := log.event(e.Revision)
	if want == nil || want.Delete != e.Delete || !same(&want.Version, &e.Version) {
		about("reliable")
		v.add("got %v, the log says %v", e, want)
		return
	}
	before := log.at(e.Version.Key, e.Revision-1)
	if e.HasPrevious && !same(e.Previous, before) {
		about("prevKV")
		v.add("%v came with previous %v, it was %v", e, e.Previous, before)
	}
	created := !e.Delete && before == nil
	if e.HasCreated && e.Created != created {
		about("isCreate")
		v.add("%v came with created=%t, before it was %v", e, e.Created, before)
	}
}

// missing finds events that should have come.
func missing(v *violations, about func(string), w *Watch, log *Log, told []*Event, seen map[int64]bool, progress int64) {
	end := progress
	first := int64(0)
	if len(told) > 0 {
		end = max(end, slices.MaxFunc(told, byRevision).Revision)
		first = slices.MinFunc(told, byRevision).Revision
	}
	for r := max(w.After, log.first) + 1; r <= end; r++ {
		e := log.event(r)
		if e == nil || !w.wants(e) || seen[r] {
			continue
		}
		switch {
		case first != 0 && r < first:
			about("resumable")
			v.add("it began with revision %d, %v is missing", first, e)
		case len(told) > 0 && r < told[len(told)-1].Revision:
			about("reliable")
			v.add("%v is missing", e)
		default:
			about("bookmarkable")
			v.add("progress %d was told, but never %v", progress, e)
		}
	}
}

func byRevision(a, b *Event) int { return compare(a.Revision, b.Revision) }
