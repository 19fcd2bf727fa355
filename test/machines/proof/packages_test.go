//go:build machines

package proof

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/skiff-run/skiff/test/machines/fleet"
)

// TestPackages is the life of the packages on a machine: installed, upgraded,
// downgraded, removed and purged, with a pod that does not notice, and nothing
// left at the end (packages.sh).
func TestPackages(t *testing.T) {
	t.Parallel()
	fleet.Require(t)
	m := alone(t, "deb")
	for revision, folder := range map[int]string{1: "/root/one", 2: "/root/two"} {
		on(t, m, "mkdir "+folder)
		for _, file := range makePackages(t, revision) {
			copyTo(t, m, file, folder)
		}
	}
	copyTo(t, m, "../packages.sh", "/root/packages.sh")
	t.Log(on(t, m, "apt-get update -qq && bash /root/packages.sh /root/one /root/two"))
}

// TestTarball is the life of an installation by install.sh (tarball.sh).
func TestTarball(t *testing.T) {
	t.Parallel()
	fleet.Require(t)
	m := alone(t, "tar")
	build := exec.CommandContext(t.Context(), "make", "-s", "-C", "../../..", "tarball")
	build.Stderr = os.Stderr
	if said, err := build.Output(); err != nil {
		t.Fatalf("make tarball: %v\n%s", err, said)
	}
	found, err := filepath.Glob("../../../dist/skiff-*.tar.gz")
	if err != nil || len(found) != 1 {
		t.Fatalf("make tarball made %v, %v", found, err)
	}
	copyTo(t, m, found[0], "/root/skiff.tar.gz")
	copyTo(t, m, "../tarball.sh", "/root/tarball.sh")
	t.Log(on(t, m, "apt-get update -qq && mkdir /root/skiff && tar -C /root/skiff --strip-components=1 -xzf /root/skiff.tar.gz && bash /root/tarball.sh /root/skiff"))
}

// alone boots a fleet of one machine that ends with the test.
func alone(t *testing.T, name string) *fleet.Machine {
	t.Helper()
	f, err := fleet.Boot(t.Context(), fleet.Claim(t, name), fleet.Nspawn{}, 1)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := f.Down(); err != nil {
			t.Error(err)
		}
	})
	m := f.Machines[0]
	busybox, err := exec.LookPath("busybox")
	if err != nil {
		t.Fatal(err)
	}
	copyTo(t, m, busybox, "/bin/busybox")
	return m
}

// copyTo copies a file or folder into a machine.
func copyTo(t *testing.T, m *fleet.Machine, from, to string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), commandLimit)
	defer cancel()
	if err := m.Copy(ctx, from, to); err != nil {
		t.Fatal(err)
	}
}
