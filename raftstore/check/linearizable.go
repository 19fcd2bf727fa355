package check

import (
	"fmt"
	"slices"
	"time"

	"github.com/anishathalye/porcupine"
)

// register is the sequential state of one key.
type register struct {
	exists bool
	value  string
	// mod is the revision which wrote the value or deleted the key.
	mod int64
	// floor is the newest revision of the store any answer told.
	floor int64
}

// model is a register with compare-and-swap whose answers carry the revision of
// the store.
var model = porcupine.Model{
	Partition: func(history []porcupine.Operation) [][]porcupine.Operation {
		keys := map[string][]porcupine.Operation{}
		for _, o := range history {
			key := o.Input.(*Operation).Key
			keys[key] = append(keys[key], o)
		}
		var parts [][]porcupine.Operation
		for _, key := range sortedKeys(keys) {
			parts = append(parts, keys[key])
		}
		return parts
	},
	Init: func() any { return register{} },
	Step: func(state, input, _ any) (bool, any) { return step(state.(register), input.(*Operation)) },
	DescribeOperation: func(input, _ any) string {
		return input.(*Operation).String()
	},
	DescribeState: func(state any) string { return fmt.Sprintf("%+v", state) },
}

func step(s register, o *Operation) (bool, register) {
	if o.Revision != 0 && o.Revision < s.floor {
		return false, s
	}
	if !o.mutates() || !o.Succeeded {
		if !o.Blind && !s.holds(o.Found) {
			return false, s
		}
		matches := o.Expect == AnyRevision && (o.Kind == Put || s.exists) || o.Expect != AnyRevision && o.Expect == s.revision() && (o.Kind == Put || s.exists)
		if o.mutates() && matches {
			return false, s
		}
		s.floor = max(s.floor, o.Revision)
		return true, s
	}
	if o.Revision == s.floor || o.Expect != AnyRevision && o.Expect != s.revision() || o.HasPrevious && !s.holds(o.Previous) {
		return false, s
	}
	if o.Kind == Delete {
		if !s.exists {
			return false, s
		}
		return true, register{mod: o.Revision, floor: o.Revision}
	}
	return true, register{exists: true, value: o.Value, mod: o.Revision, floor: o.Revision}
}

// revision is what a compare sees.
func (s register) revision() int64 {
	if !s.exists {
		return 0
	}
	return s.mod
}

func (s register) holds(v *Version) bool {
	if v == nil {
		return !s.exists
	}
	return s.exists && s.value == v.Value && s.mod == v.ModRevision
}

// Linearizable checks every key as a register, by porcupine. Operations whose
// outcome is unknown stay open for ever if the log has them and are left out if
// it has not; expiry of keys that the store deletes on its own must be recorded
// as operations of the store (see Expiries). It gives up after timeout, which
// is an error too: nothing was proved then.
func Linearizable(operations []*Operation, log *Log, timeout time.Duration) error {
	if err := log.complete(); err != nil {
		return err
	}
	deletions, _ := attributed(operations, log, nil)
	var history []porcupine.Operation
	for _, o := range operations {
		if o.Kind == List || o.At != 0 {
			continue
		}
		if o.Return == Never {
			made := deletions[o]
			if o.Kind == Put && len(log.values[o.Value]) > 0 {
				made = log.values[o.Value][0]
			}
			if made == nil {
				continue
			}
			resolved := *o
			resolved.Succeeded, resolved.Revision = true, made.Revision
			o = &resolved
		}
		history = append(history, porcupine.Operation{Input: o, Call: o.Call, Return: o.Return})
	}
	switch porcupine.CheckOperationsTimeout(model, history, timeout) {
	case porcupine.Ok:
		return nil
	case porcupine.Illegal:
		return fmt.Errorf("linearizability: %w", culprit(history, timeout))
	default:
		return fmt.Errorf("linearizability: not decided within %s for %d operations", timeout, len(history))
	}
}

// attributed finds for each deletion in the log that no client knows to have
// made one of unknown outcome which may have made it, and the deletions for
// which there is none. expires says which keys the store deletes on its own.
func attributed(operations []*Operation, log *Log, expires func(key string) bool) (map[*Operation]*Event, []*Event) {
	made := map[int64]bool{}
	unknown := map[string][]*Operation{}
	// seen[i] is when the i-th mutation had been seen by somebody.
	seen := make([]int64, len(log.events)+1)
	for i := range seen {
		seen[i] = Never
	}
	for _, o := range operations {
		if o.Return == Never {
			if o.Kind == Delete {
				unknown[o.Key] = append(unknown[o.Key], o)
			}
			continue
		}
		if o.Kind == Delete && o.Succeeded {
			made[o.Revision] = true
		}
		if n := atLeast(o) - log.first; n > 0 && int(n) < len(seen) {
			seen[n] = min(seen[n], o.Return)
		}
	}
	for i := len(seen) - 2; i >= 0; i-- {
		seen[i] = min(seen[i], seen[i+1])
	}
	for _, calls := range unknown {
		slices.SortFunc(calls, func(a, b *Operation) int { return compare(a.Call, b.Call) })
	}
	found := map[*Operation]*Event{}
	var orphans []*Event
	for _, e := range log.events {
		if !e.Delete || made[e.Revision] {
			continue
		}
		// One that expected just that version can have made no other.
		var maker *Operation
		before := revisionOf(log.at(e.Version.Key, e.Revision-1))
		for _, o := range unknown[e.Version.Key] {
			if found[o] != nil || o.Call > seen[e.Revision-log.first] || o.Expect != AnyRevision && o.Expect != before {
				continue
			}
			if maker == nil || maker.Expect == AnyRevision && o.Expect != AnyRevision {
				maker = o
			}
		}
		switch {
		case maker != nil:
			found[maker] = e
		case expires == nil || !expires(e.Version.Key):
			orphans = append(orphans, e)
		}
	}
	return found, orphans
}

// culprit names a key that is not a register and the operation at which the
// longest linearization of its history stops.
func culprit(history []porcupine.Operation, timeout time.Duration) error {
	for _, part := range model.Partition(history) {
		result, info := porcupine.CheckOperationsVerbose(model, part, timeout)
		if result != porcupine.Illegal {
			continue
		}
		longest := 0
		for _, partial := range info.PartialLinearizationsOperations() {
			for _, one := range partial {
				longest = max(longest, len(one))
			}
		}
		done := map[any]bool{}
		for _, partial := range info.PartialLinearizationsOperations() {
			for _, one := range partial {
				if len(one) == longest {
					for _, o := range one {
						done[o.Input] = true
					}
				}
			}
		}
		first := (*Operation)(nil)
		for _, o := range part {
			if one := o.Input.(*Operation); !done[one] && (first == nil || one.Call < first.Call) {
				first = one
			}
		}
		return fmt.Errorf("key %s is no register: after %d of its %d operations nothing fits, first of the rest: %v",
			part[0].Input.(*Operation).Key, longest, len(part), first)
	}
	return fmt.Errorf("no single key found")
}

// Expiries are the deletions of the log which no client made, as operations of
// the store: what Linearizable needs to know of keys that expire.
func Expiries(operations []*Operation, log *Log, expires func(key string) bool) []*Operation {
	made := map[int64]bool{}
	for _, o := range operations {
		if o.Kind == Delete && o.Succeeded {
			made[o.Revision] = true
		}
	}
	unknown, _ := attributed(operations, log, expires)
	for _, e := range unknown {
		made[e.Revision] = true
	}
	var expired []*Operation
	for _, e := range log.events {
		if e.Delete && !made[e.Revision] && expires(e.Version.Key) {
			expired = append(expired, &Operation{
				Client: "the store", Kind: Delete, Key: e.Version.Key, Expect: AnyRevision,
				Return: Never - 1, Succeeded: true, Revision: e.Revision,
			})
		}
	}
	return expired
}
