//go:build machines

package proof

import (
	"flag"
	"testing"
	"time"

	"github.com/skiff-run/skiff/internal/testenv"
	"github.com/skiff-run/skiff/test/machines/fleet"
)

var existingVirtual = flag.String("virtual", "", "folder of a fleet of virtual machines to use, which has a cluster; it stays")

// TestVirtualMachines is what needs more than systemd-nspawn gives: a kernel with
// cgroup v2 alone, with IPVS and AppArmor, and a clock of one's own. Each step
// needs the first alone.
func TestVirtualMachines(t *testing.T) {
	fleet.RequireQEMU(t)
	testenv.RequireProgram(t, "ansible-playbook", "curl", "make")
	f := virtualMachinesFor(t)
	for _, s := range []step{
		{"essentials", testEssentials}, {"cgroups", testCgroups}, {"hardening", testHardening},
		{"clock", testClock}, {"plug", testPlug}, {"reboot", testReboot},
	} {
		t.Run(s.name, func(t *testing.T) {
			began := time.Now()
			s.run(t, f)
			t.Logf("%s took %s", s.name, time.Since(began).Round(time.Second))
		})
	}
}

func virtualMachinesFor(t *testing.T) *fleet.Fleet {
	t.Helper()
	if *existingVirtual != "" {
		f, err := fleet.Open(*existingVirtual, fleet.QEMU{})
		if err != nil {
			t.Fatal(err)
		}
		return f
	}
	packages := makePackages(t, 1)
	began := time.Now()
	f, err := fleet.Boot(t.Context(), fleet.Claim(t, "qemu"), fleet.QEMU{}, 3)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("three machines have booted after %s", time.Since(began).Round(time.Second))
	t.Cleanup(func() {
		if t.Failed() {
			explain(t, f)
		}
		if err := f.Down(); err != nil {
			t.Error(err)
		}
	})
	fromZeroVirtual(t, f, packages)
	return f
}
