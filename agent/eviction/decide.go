package eviction

import (
	"slices"
	"time"

	v1 "k8s.io/api/core/v1"

	"github.com/skiff-run/skiff/internal/config"
)

// state is what has to be remembered from look to look. It knows no clock.
type state struct {
	thresholds []config.Threshold
	// transition is how long a condition outlasts the pressure.
	transition time.Duration

	// first is when each threshold was crossed that is crossed now.
	first map[config.Threshold]time.Time
	// met are the thresholds acted upon and not resolved yet.
	met []config.Threshold
	// seen is when each condition was observed last.
	seen map[v1.NodeConditionType]time.Time
}

// limit replaces the thresholds. What was crossed of those that are gone is forgotten.
func (s *state) limit(thresholds []config.Threshold, transition time.Duration) {
	s.thresholds, s.transition = thresholds, transition
	s.met = slices.DeleteFunc(s.met, func(t config.Threshold) bool { return !slices.Contains(thresholds, t) })
}

// withAllocatable adds what bounds the pods together to what bounds the machine.
func withAllocatable(thresholds []config.Threshold) []config.Threshold {
	all := slices.Clone(thresholds)
	for _, t := range thresholds {
		if t.Signal == memoryAvailable && t.GracePeriod == 0 {
			t.Signal = allocatableMemory
			all = append(all, t)
		}
	}
	return all
}

// crossed returns the thresholds below which the observations are; resolve asks for what has to be freed
// beyond them too.
func crossed(thresholds []config.Threshold, seen Observations, resolve bool) []config.Threshold {
	var list []config.Threshold
	for _, t := range thresholds {
		o, known := seen[t.Signal]
		if !known {
			continue
		}
		least := t.Value.Of(o.Capacity)
		if resolve {
			least.Add(*t.MinReclaim.Of(o.Capacity))
		}
		if o.Available < least.Value() {
			list = append(list, t)
		}
	}
	return list
}

// look takes up new observations. It returns the thresholds to act upon, the most urgent first, and the
// conditions of the node.
func (s *state) look(seen Observations, now time.Time) (act []config.Threshold, conditions []v1.NodeConditionType) {
	current := crossed(s.thresholds, seen, false)
	for _, t := range crossed(s.met, seen, true) {
		if !slices.Contains(current, t) {
			current = append(current, t)
		}
	}
	first := map[config.Threshold]time.Time{}
	if s.seen == nil {
		s.seen = map[v1.NodeConditionType]time.Time{}
	}
	for _, t := range current {
		at, known := s.first[t]
		if !known {
			at = now
		}
		first[t] = at
		s.seen[conditionOf(t.Signal)] = now
		if now.Sub(at) >= t.GracePeriod {
			act = append(act, t)
		}
	}
	s.first, s.met = first, slices.Clone(act)
	for _, c := range []v1.NodeConditionType{v1.NodeMemoryPressure, v1.NodeDiskPressure, v1.NodePIDPressure} {
		if at, known := s.seen[c]; known && now.Sub(at) < s.transition {
			conditions = append(conditions, c)
		}
	}
	// Memory before everything else: the kernel does not wait.
	slices.SortStableFunc(act, func(a, b config.Threshold) int { return urgency(a) - urgency(b) })
	return act, conditions
}

func urgency(t config.Threshold) int {
	if resourceOf(t.Signal) == v1.ResourceMemory {
		return 0
	}
	return 1
}
