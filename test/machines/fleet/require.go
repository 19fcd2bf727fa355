package fleet

import (
	"path/filepath"
	"testing"

	"github.com/skiff-run/skiff/internal/testenv"
)

// Require skips the test where a fleet of nspawn machines cannot be booted.
func Require(t testing.TB) {
	t.Helper()
	testenv.RequireRoot(t)
	testenv.RequireProgram(t, "systemd-nspawn", "debootstrap", "dpkg-scanpackages", "ssh", "docker-registry", "busybox")
}

// RequireQEMU skips the test where a fleet of virtual machines cannot be booted.
func RequireQEMU(t testing.TB) {
	t.Helper()
	testenv.RequireRoot(t)
	testenv.RequireProgram(t, "qemu-system-x86_64", "debootstrap", "dpkg-scanpackages", "ssh", "docker-registry", "busybox")
}

// Claim returns a folder for a fleet that ends with the test. What killed runs
// left there is gone.
func Claim(t testing.TB, name string) string {
	t.Helper()
	cache, err := Cache()
	if err != nil {
		t.Fatal(err)
	}
	traces := func(name string) testenv.Traces { return Traces(filepath.Join(cache, name)) }
	claimed := testenv.Claim(t, Prefix+name, traces)
	callJanitor(t, name)
	return filepath.Join(cache, claimed)
}
