package cgroup

import (
	"testing"
	"time"
)

func TestRatesAreOverAWindowThatSaysSomething(t *testing.T) {
	t.Parallel()
	start := time.Unix(1000, 0)
	at := func(seconds float64) time.Time { return start.Add(time.Duration(seconds * float64(time.Second))) }
	const core = 1e9
	for name, tc := range map[string]struct {
		notes   map[float64]uint64 // second to nanoseconds, at most two, in order of their keys
		started time.Time
		now     float64
		used    uint64
		rate    uint64
		window  time.Duration
	}{
		"what started a moment ago":                 {nil, at(0), 0.5, core, 0, 0},
		"what started lately: since its start":      {nil, at(0), 4, 2 * core, core / 2, 4 * time.Second},
		"what started long ago and was never noted": {nil, at(-3600), 4, 2 * core, 0, 0},
		"a note that is old enough":                 {map[float64]uint64{0: core}, at(-3600), 20, 11 * core, core / 2, 20 * time.Second},
		"the newer of two when it is old enough":    {map[float64]uint64{0: 0, 15: 3 * core}, at(-3600), 25, 23 * core, 2 * core, 10 * time.Second},
		"the older of two while the newer is young": {map[float64]uint64{0: 0, 15: 3 * core}, at(-3600), 20, 20 * core, core, 20 * time.Second},
		"a young note is better than none":          {map[float64]uint64{0: 0}, at(-3600), 2, core, core / 2, 2 * time.Second},
		"a counter that began anew":                 {map[float64]uint64{0: 9 * core}, at(-3600), 20, core, 0, 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var r CPURate
			for _, second := range []float64{0, 15} {
				if used, ok := tc.notes[second]; ok {
					r.Note(at(second), used)
				}
			}
			if rate, window := r.Since(at(tc.now), tc.used, tc.started); rate != tc.rate || window != tc.window {
				t.Errorf("%d over %v, want %d over %v", rate, window, tc.rate, tc.window)
			}
		})
	}
}

func TestSharesComeBackFromWeights(t *testing.T) {
	t.Parallel()
	for _, shares := range []uint64{2, 1024, 262144} {
		if got := sharesOf(Weight(shares)); got != shares {
			t.Errorf("%d shares come back as %d", shares, got)
		}
	}
}
