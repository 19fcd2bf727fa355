package proof

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/skiff-run/skiff/test/machines/fleet"
)

// testUpgrade upgrades all packages of all machines by the playbook, which moves
// the pods of one machine after the other, while all machines call a service. A
// connection that is kept ends with the pod at its other end; nothing else fails.
func testUpgrade(t *testing.T, f *fleet.Fleet) {
	folder := filepath.Join(f.Folder, "packages-2")
	if err := os.MkdirAll(folder, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, file := range makePackages(t, 2) {
		if err := os.Symlink(file, filepath.Join(folder, filepath.Base(file))); err != nil {
			t.Fatal(err)
		}
	}
	l := startLoad(t, f)
	began := time.Now()
	if _, said, err := f.Playbook(t.Context(), "upgrade.yml", "-e", "skiff_packages_dir="+folder); err != nil {
		t.Log(said)
		t.Fatal(err)
	}
	t.Logf("upgraded in %s", time.Since(began).Round(time.Second))
	healthy(t, f)
	for machine, report := range l.stop(t) {
		if report.New.Failed+report.Names.Failed > 0 {
			t.Errorf("%s noticed that packages were upgraded", machine)
		}
	}
	for _, m := range f.Machines {
		versions := on(t, m, "dpkg-query -W -f '${Package} ${Version}\\n' 'skiff*'")
		for _, line := range strings.Split(versions, "\n") {
			if !strings.HasSuffix(line, "-2") {
				t.Errorf("%s has %s", m.Name, line)
			}
		}
	}
	if nodes := kubectl(t, f, "get", "nodes"); strings.Contains(nodes, "SchedulingDisabled") {
		t.Errorf("a node is left cordoned:\n%s", nodes)
	}
}
