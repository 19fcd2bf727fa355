package volume

import (
	"slices"
	"testing"
)

func TestKernelsThatKnowItKeepMemoryOutOfSwap(t *testing.T) {
	t.Parallel()
	for kernel, want := range map[string][]string{
		"6.1.0-57-cloud-amd64": {"size=7"},
		"6.3.13":               {"size=7"},
		"6.4.0":                {"size=7", "noswap"},
		"6.18.2-microvm+":      {"size=7", "noswap"},
		"10.0":                 {"size=7", "noswap"},
		"":                     {"size=7"},
	} {
		if got := tmpfsOptions(7, kernel); !slices.Equal(got, want) {
			t.Errorf("kernel %q: %q, want %q", kernel, got, want)
		}
	}
}
