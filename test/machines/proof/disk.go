package proof

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/skiff-run/skiff/internal/testenv"
	"github.com/skiff-run/skiff/test/machines/fleet"
)

// writer makes one config map after the other until it is told to stop, and notes those
// that the cluster said it has.
const writer = `cd /root && : >disk-acknowledged; i=0
while [ ! -e disk-stop ]; do
  i=$((i+1))
  if skiff kubectl --request-timeout=10s -n disk create configmap "n$i" >/dev/null 2>>disk-errors; then echo "n$i" >>disk-acknowledged; fi
done`

// agentDropIn makes a node forget pressure at once, where the default is five
// minutes.
const agentDropIn = "apiVersion: skiff.dev/v1\nkind: AgentConfiguration\nevictionPressureTransitionPeriod: 5s\n"

// testDisk fills the disk of the machine whose store leads, while another
// machine writes: writes go on through the others, nothing that was acknowledged
// is lost, the node says that its disk is full, and all is well when it is not
// any more.
func testDisk(t *testing.T, f *fleet.Fleet) {
	victim := leader(t, f)
	asked := others(f, victim)[0]
	kubectl(t, f, via(asked), "create", "namespace", "disk")
	on(t, victim, fmt.Sprintf("printf '%s' >/etc/skiff/agent.d/90-proof.yaml && systemctl restart skiff-agent", strings.ReplaceAll(agentDropIn, "\n", `\n`)))
	on(t, asked, "rm -f /root/disk-*")
	on(t, asked, "systemd-run --quiet --unit=proof-writer bash -c '"+writer+"'")
	acknowledged := func() int { return strings.Count(on(t, asked, "cat /root/disk-acknowledged; echo"), "n") }
	grows := func(when string) {
		t.Helper()
		start := acknowledged()
		testenv.Eventually(t, time.Minute, func() bool { return acknowledged() > start+3 }, "nothing is written %s", when)
	}
	grows("before the disk is full")

	// The file system keeps a part of itself for root, who fills that too.
	on(t, victim, "fallocate -l $(($(df --output=avail -B1 / | tail -1) - 1048576)) /disk-full; dd if=/dev/zero of=/disk-full-2 bs=64k 2>/dev/null || true; df --output=avail / | tail -1")
	grows("while the disk of " + victim.Name + " is full")
	says(t, f, 2*time.Minute, func(said string) bool { return strings.TrimSpace(said) == "True" },
		via(asked), "get", "node", victim.Name, "-o", `jsonpath={.status.conditions[?(@.type=="DiskPressure")].status}`)
	grows("with a node under pressure")
	said, err := asked.Run(t.Context(), "skiff status")
	t.Logf("skiff status, exit code %v:\n%s", err, said)

	on(t, victim, "rm -f /disk-full /disk-full-2")
	healthy(t, f)
	says(t, f, 2*time.Minute, func(said string) bool { return strings.TrimSpace(said) == "False" },
		via(asked), "get", "node", victim.Name, "-o", `jsonpath={.status.conditions[?(@.type=="DiskPressure")].status}`)
	grows("after the disk was full")
	on(t, asked, "touch /root/disk-stop")
	testenv.Eventually(t, time.Minute, func() bool {
		_, err := asked.Run(t.Context(), "! systemctl is-active --quiet proof-writer")
		return err == nil
	}, "the writer does not end")

	stored := map[string]bool{}
	for _, name := range strings.Fields(kubectl(t, f, via(victim), "-n", "disk", "get", "configmaps", "-o", `jsonpath={range .items[*]}{.metadata.name} {end}`)) {
		stored[name] = true
	}
	names := strings.Fields(on(t, asked, "cat /root/disk-acknowledged"))
	for _, name := range names {
		if !stored[name] {
			t.Errorf("config map %s was acknowledged and is lost", name)
		}
	}
	t.Logf("%d writes were acknowledged and are there; what was refused: %s", len(names), on(t, asked, "sort /root/disk-errors | uniq -c | sort -rn | head -5"))
	on(t, victim, "rm /etc/skiff/agent.d/90-proof.yaml && systemctl restart skiff-agent")
	on(t, asked, "rm -f /root/disk-*")
	kubectl(t, f, "delete", "namespace", "disk", "--timeout=120s")
	healthy(t, f)
}
