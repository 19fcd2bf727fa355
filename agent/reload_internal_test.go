package agent

import (
	"slices"
	"testing"

	"github.com/skiff-run/skiff/internal/config"
)

func TestWhatAReloadAppliesAreFields(t *testing.T) {
	t.Parallel()
	names := config.FieldNames(config.DefaultAgent())
	for _, name := range Reloadable() {
		if !slices.Contains(names, name) {
			t.Errorf("the configuration has no field %s", name)
		}
	}
}
