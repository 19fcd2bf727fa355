package proof

import (
	"context"
	"flag"
	"testing"

	"github.com/skiff-run/skiff/internal/testenv"
	"github.com/skiff-run/skiff/test/machines/fleet"
)

var existing = flag.String("fleet", "", "folder of a fleet of systemd-nspawn machines to use, which has a cluster; it stays")

// step is a part of the proof. It leaves a healthy cluster behind.
type step struct {
	name string
	run  func(t *testing.T, f *fleet.Fleet)
}

// TestMachines is the life of a cluster on three systemd-nspawn machines. Each
// step needs the first alone, so that -run chooses any of them.
func TestMachines(t *testing.T) {
	fleet.Require(t)
	testenv.RequireProgram(t, "ansible-playbook", "curl", "make")
	f := machinesFor(t)
	for _, s := range append([]step{{"walk", testWalk}, {"again", testAgain}}, harder...) {
		t.Run(s.name, func(t *testing.T) { s.run(t, f) })
	}
}

// machinesFor returns machines with a cluster.
func machinesFor(t *testing.T) *fleet.Fleet {
	t.Helper()
	if *existing != "" {
		f, err := fleet.Open(*existing, fleet.Nspawn{})
		if err != nil {
			t.Fatal(err)
		}
		return f
	}
	packages := makePackages(t, 1)
	f, err := fleet.Boot(t.Context(), fleet.Claim(t, "all"), fleet.Nspawn{}, 3)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			explain(t, f)
		}
		if err := f.Down(); err != nil {
			t.Error(err)
		}
	})
	fromZero(t, f, packages)
	return f
}

// explain shows what a person would look at first.
func explain(t *testing.T, f *fleet.Fleet) {
	t.Helper()
	ctx := context.Background() // the test's is over
	for _, m := range f.Machines {
		said, err := m.Run(ctx, "systemctl --failed --no-legend --plain; skiff status; journalctl --no-pager -n 40 -p warning -o short-iso")
		t.Logf("%s: %s %v", m.Name, said, err)
	}
	said, err := tryKubectl(ctx, f, "get", "nodes,pods", "-A", "-o", "wide")
	t.Logf("%s %v", said, err)
}
