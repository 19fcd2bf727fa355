package config

import (
	"maps"
	"slices"
	"time"

	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// Amount is a quantity, or a share of a capacity.
type Amount struct {
	// Value counts when Share is 0.
	Value  int64
	Format resource.Format
	// Share of the capacity, 0 to 1.
	Share float32
}

// Of returns the amount for a capacity.
func (a Amount) Of(capacity int64) *resource.Quantity {
	if a.Share > 0 {
		return resource.NewQuantity(int64(float64(capacity)*float64(a.Share)), resource.BinarySI)
	}
	return resource.NewQuantity(a.Value, a.Format)
}

// Threshold says when pods are evicted: when less than Value is left.
type Threshold struct {
	Signal string
	Value  Amount
	// GracePeriod is how long less must be left; 0 for a hard threshold.
	GracePeriod time.Duration
	// MinReclaim is how much more than Value must be left before it counts as resolved.
	MinReclaim Amount
}

// Signals are what thresholds can be set for.
func Signals() []string {
	return []string{"memory.available", "nodefs.available", "nodefs.inodesFree", "imagefs.available", "imagefs.inodesFree", "pid.available"}
}

func defaultEvictionHard() map[string]string {
	return map[string]string{
		"memory.available": "100Mi", "nodefs.available": "10%", "nodefs.inodesFree": "5%", "imagefs.available": "15%", "imagefs.inodesFree": "5%",
	}
}

// Thresholds returns what EvictionHard, EvictionSoft and their companions say, ordered by signal.
func (r *Resources) Thresholds() ([]Threshold, field.ErrorList) {
	var errs field.ErrorList
	hard := r.EvictionHard
	switch {
	case len(hard) == 0:
		hard = defaultEvictionHard()
	case r.MergeDefaultEvictionSettings:
		hard = defaultEvictionHard()
		maps.Copy(hard, r.EvictionHard)
	}
	var list []Threshold
	list = append(list, parseThresholds("evictionHard", hard, &errs)...)
	soft := parseThresholds("evictionSoft", r.EvictionSoft, &errs)
	for i := range soft {
		at, text := path("evictionSoftGracePeriod").Key(soft[i].Signal), r.EvictionSoftGracePeriod[soft[i].Signal]
		if text == "" {
			errs = append(errs, field.Required(at, "grace period must be specified for the soft eviction threshold "+soft[i].Signal))
			continue
		}
		period, err := time.ParseDuration(text)
		if err != nil || period <= 0 {
			errs = append(errs, field.Invalid(at, text, "must be a positive duration such as 90s"))
		}
		soft[i].GracePeriod = period
	}
	list = append(list, soft...)
	reclaim := map[string]Amount{}
	for _, t := range parseThresholds("evictionMinimumReclaim", r.EvictionMinimumReclaim, &errs) {
		reclaim[t.Signal] = t.Value
	}
	for signal := range r.EvictionSoftGracePeriod {
		if _, has := r.EvictionSoft[signal]; !has {
			errs = append(errs, field.Invalid(path("evictionSoftGracePeriod").Key(signal), signal, "has no threshold in evictionSoft"))
		}
	}
	for i := range list {
		list[i].MinReclaim = reclaim[list[i].Signal]
	}
	return list, errs
}

func parseThresholds(name string, statements map[string]string, errs *field.ErrorList) []Threshold {
	var list []Threshold
	for _, signal := range slices.Sorted(maps.Keys(statements)) {
		at, text := path(name).Key(signal), statements[signal]
		if !slices.Contains(Signals(), signal) {
			*errs = append(*errs, field.NotSupported(at, signal, Signals()))
			continue
		}
		share, is, err := percentage(text)
		switch {
		case err != nil:
			*errs = append(*errs, field.Invalid(at, text, err.Error()))
			continue
		case is && (share == 0 || share == 1):
			continue // switched off
		case is:
			list = append(list, Threshold{Signal: signal, Value: Amount{Share: share}})
			continue
		}
		quantity, err := resource.ParseQuantity(text)
		if err != nil || quantity.Sign() <= 0 {
			*errs = append(*errs, field.Invalid(at, text, "must be a positive amount such as 1Gi, or a share such as 10%"))
			continue
		}
		list = append(list, Threshold{Signal: signal, Value: Amount{Value: quantity.Value(), Format: quantity.Format}})
	}
	return list
}
