package proof

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/skiff-run/skiff/test/machines/fleet"
)

// fromZero has Ansible build the cluster on machines that have nothing of it,
// after writing down what they have.
func fromZero(t *testing.T, f *fleet.Fleet, packages []string) {
	t.Helper()
	for _, m := range f.Machines {
		if err := os.WriteFile(inventoryFile(f, m), []byte(inventory(t, m)), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	folder := packagesFolder(f)
	if err := os.MkdirAll(folder, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, file := range packages {
		if err := os.Symlink(file, filepath.Join(folder, filepath.Base(file))); err != nil {
			t.Fatal(err)
		}
	}
	began := time.Now()
	played, said, err := f.Playbook(t.Context(), "site.yml", "-e", "skiff_packages_dir="+folder)
	if err != nil {
		t.Fatal(err)
	}
	if len(played) != len(f.Machines) {
		t.Fatalf("the playbook is not about %d machines:\n%s", len(f.Machines), said)
	}
	t.Logf("from zero to three Ready nodes in %s", time.Since(began).Round(time.Second))
	healthy(t, f)
}

func packagesFolder(f *fleet.Fleet) string { return filepath.Join(f.Folder, "packages") }

// testAgain runs the playbook on a cluster that is as it should be: nothing
// changes, whether it only looks or means it.
func testAgain(t *testing.T, f *fleet.Fleet) {
	for _, flags := range [][]string{{"--check", "--diff"}, nil} {
		played, said, err := f.Playbook(t.Context(), "site.yml", append([]string{"-e", "skiff_packages_dir=" + packagesFolder(f)}, flags...)...)
		if err != nil {
			t.Fatal(err)
		}
		if played.Changed() != 0 {
			t.Errorf("site.yml %s changes what is as it should be:\n%s", strings.Join(flags, " "), said)
		}
	}
}
