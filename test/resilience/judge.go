package resilience

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/skiff-run/skiff/raftstore/check"
)

// porcupineLimit is how long one search for a linearization may take.
const porcupineLimit = 2 * time.Minute

// Judge checks the whole record. Nothing may be recorded any more.
func (r *Record) Judge() error {
	var order ranks
	for revision := range r.events {
		order = append(order, revision)
	}
	slices.Sort(order)
	log := check.NewLog(firstRank)
	for _, revision := range order {
		log.Add("watches", order.event(r.events[revision]))
	}
	operations, err := r.ranked(order)
	if err := errors.Join(append(r.disputes, err)...); err != nil {
		// The checkers would only repeat it, in the wrong words.
		return err
	}
	var watches []*check.Watch
	for _, w := range r.watches {
		ranked := *w
		ranked.After, ranked.Responses = order.of(w.After), nil
		for _, response := range w.Responses {
			told := check.Response{Progress: order.of(response.Progress)}
			for _, e := range response.Events {
				told.Events = append(told.Events, order.event(e))
			}
			ranked.Responses = append(ranked.Responses, told)
		}
		watches = append(watches, &ranked)
	}
	never := func(string) bool { return false }
	return errors.Join(
		check.Durable(operations, log, never), check.Ordered(operations, log),
		check.Linearizable(operations, log, porcupineLimit), check.Watched(watches, log))
}

// ranked are the operations with ranks for revisions. The API does not tell the
// revision of a deletion; each named the version it would delete, and so is
// found among the events.
func (r *Record) ranked(order ranks) ([]*check.Operation, error) {
	deletions := map[string]map[int64]int64{} // by key and deleted version
	last := map[string]int64{}
	for _, revision := range order {
		e := r.events[revision]
		if !e.Delete {
			last[e.Version.Key] = revision
			continue
		}
		if deletions[e.Version.Key] == nil {
			deletions[e.Version.Key] = map[int64]int64{}
		}
		deletions[e.Version.Key][last[e.Version.Key]] = revision
	}
	var errs []error
	by := map[int64]*check.Operation{} // acknowledged mutations by revision
	var all []*check.Operation
	for _, o := range r.History.Operations() {
		ranked := *o
		if o.Kind == check.Delete && (o.Succeeded || o.Return == check.Never) {
			ranked.Revision = deletions[o.Key][o.Expect]
			if o.Return == check.Never && ranked.Revision == 0 {
				continue // never made
			}
		}
		if o.Succeeded && o.Return != check.Never && o.Kind != check.Get && o.Kind != check.List {
			if !order.is(ranked.Revision) {
				errs = append(errs, fmt.Errorf("acknowledged, but no watch ever saw it: %v", o))
				continue
			}
			if other := by[ranked.Revision]; other != nil {
				errs = append(errs, fmt.Errorf("two writes were acknowledged for one revision: %v, %v", o, other))
				continue
			}
			by[ranked.Revision] = o
		}
		ranked.Revision, ranked.At = order.of(ranked.Revision), order.of(ranked.At)
		if o.Expect > 0 {
			ranked.Expect = order.of(o.Expect)
			if !order.is(o.Expect) {
				// It expected a version nobody saw, so none of the workload's.
				errs = append(errs, fmt.Errorf("expects a version that no watch ever saw: %v", o))
				continue
			}
		}
		ranked.Found, ranked.Previous = order.version(o.Found), order.version(o.Previous)
		ranked.Listed = nil
		for _, v := range o.Listed {
			ranked.Listed = append(ranked.Listed, order.version(v))
		}
		all = append(all, &ranked)
	}
	return all, errors.Join(errs...)
}
