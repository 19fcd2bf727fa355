package proof

import (
	"testing"
	"time"

	"github.com/skiff-run/skiff/internal/testenv"
	"github.com/skiff-run/skiff/test/machines/fleet"
)

// testDaemons restarts every daemon on every machine, and kills each, while all
// machines call a service and look its name up: nothing fails, no connection
// ends, no container is started again.
func testDaemons(t *testing.T, f *fleet.Fleet) {
	l := startLoad(t, f)
	before := l.containers(t)
	for _, m := range f.Machines {
		for _, daemon := range []string{"skiff-proxy", "skiff-agent", "skiff-control", "containerd"} {
			// It returns when the daemon says that it is ready.
			on(t, m, "systemctl restart "+daemon)
			killed := on(t, m, "systemctl show --value --property MainPID "+daemon)
			on(t, m, "systemctl kill --kill-whom=main --signal=KILL "+daemon)
			testenv.Eventually(t, time.Minute, func() bool {
				said, err := m.Run(t.Context(), "systemctl is-active --quiet "+daemon+" && systemctl show --value --property MainPID "+daemon)
				return err == nil && said != killed+"\n"
			}, "%s of %s does not come back", daemon, m.Name)
		}
		healthy(t, f)
	}
	for machine, report := range l.stop(t) {
		if report.New.Failed+report.Kept.Failed+report.Names.Failed > 0 {
			t.Errorf("%s noticed that daemons were restarted", machine)
		}
	}
	if after := l.containers(t); after != before {
		t.Errorf("containers before:\n%s\nafter:\n%s", before, after)
	}
}
