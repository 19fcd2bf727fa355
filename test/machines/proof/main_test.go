package proof

import (
	"os"
	"testing"

	"github.com/skiff-run/skiff/test/machines/fleet"
)

func TestMain(m *testing.M) {
	fleet.Janitor()
	os.Exit(m.Run())
}
