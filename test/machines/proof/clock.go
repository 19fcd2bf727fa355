package proof

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/skiff-run/skiff/internal/testenv"
	"github.com/skiff-run/skiff/test/machines/fleet"
)

// testClock sets the clock of one machine wrong by an hour and right again: ahead
// on the machine that leads, behind on another. All along the cluster works, no
// node is given up and no write is lost.
func testClock(t *testing.T, f *fleet.Fleet) {
	first := leader(t, f)
	for _, c := range []struct {
		name string
		m    *fleet.Machine
		off  time.Duration
	}{
		{"the leader is an hour ahead", first, time.Hour},
		{"another one is an hour behind", others(f, first)[0], -time.Hour},
	} {
		t.Run(c.name, func(t *testing.T) {
			traffic := writeAndRead(t, f, f.Machines)
			defer traffic.stop()
			since := readySince(t, f)
			setClock(t, c.m, c.off)
			t.Cleanup(func() { keepRight(t, c.m) })
			worksOn(t, f, c.m, traffic, "wrong")
			if said := on(t, c.m, "skiff check 2>&1 || true"); !complains(said) {
				t.Errorf("skiff check on %s says nothing of a clock that is %s off:\n%s", c.m.Name, c.off, said)
			}
			setClock(t, c.m, -c.off)
			worksOn(t, f, c.m, traffic, "right")
			traffic.stop()
			if now := readySince(t, f); now != since {
				t.Errorf("nodes were given up meanwhile; Ready since\n%s before:\n%s", now, since)
			}
			for _, m := range f.Machines {
				t.Logf("through %s, writes: %s", m.Name, traffic.writes[m.Name])
				for _, other := range f.Machines {
					if got, want := kept(t, f, other, m.Name), traffic.acknowledged[m.Name]; got < want {
						t.Errorf("through %s %d was acknowledged, %s has %d", m.Name, want, other.Name, got)
					}
				}
				kubectl(t, f, "delete", "configmap", "written-through-"+m.Name)
			}
			healthy(t, f)
		})
	}
}

// complains says whether skiff check warns of another machine's clock.
func complains(said string) bool {
	for _, line := range strings.Split(said, "\n") {
		if strings.Contains(line, "clock of") && !strings.HasPrefix(strings.TrimSpace(line), "ok") {
			return true
		}
	}
	return false
}

// setClock moves a machine's clock. Nobody keeps it right there.
func setClock(t *testing.T, m *fleet.Machine, by time.Duration) {
	t.Helper()
	on(t, m, fmt.Sprintf("date -s @$(( $(date +%%s) + %d ))", int(by.Seconds())))
}

// keepRight sets a machine's clock by this computer's, whatever it was.
func keepRight(t *testing.T, m *fleet.Machine) {
	if said, err := m.Command(t.Context(), fmt.Sprintf("date -s @%d", time.Now().Unix())).CombinedOutput(); err != nil && t.Context().Err() == nil {
		t.Errorf("set the clock of %s right: %v\n%s", m.Name, err, said)
	}
}

// worksOn sees a machine work on after its clock has changed: its node's lease is
// renewed for longer than a node may be silent, everybody writes and reads through
// every machine, and a new pod there runs, with its log.
func worksOn(t *testing.T, f *fleet.Fleet, m *fleet.Machine, traffic *traffic, name string) {
	t.Helper()
	lease := func() string {
		said, err := tryKubectl(t.Context(), f, "get", "lease", "-n", "kube-node-lease", m.Name, "-o", "jsonpath={.spec.renewTime}")
		if err != nil {
			return ""
		}
		return said
	}
	written := map[string]int{}
	for _, each := range f.Machines {
		written[each.Name] = traffic.writes[each.Name].count()
	}
	// Three renewals are 20 s and more: a node that is silent for 15 s is given up.
	for range 3 {
		before := lease()
		testenv.Eventually(t, 2*time.Minute, func() bool { now := lease(); return now != "" && now != before }, "%s does not renew its lease since its clock is %s", m.Name, name)
	}
	for _, each := range f.Machines {
		testenv.Eventually(t, 2*time.Minute, func() bool { return traffic.writes[each.Name].count() > written[each.Name]+20 },
			"nothing is written through %s since the clock of %s is %s", each.Name, m.Name, name)
	}
	pod := "clock-" + name
	apply(t, f, fmt.Sprintf(`
apiVersion: v1
kind: Pod
metadata: {name: %s}
spec:
  nodeName: %s
  terminationGracePeriodSeconds: 1
  containers: [{name: box, image: "busybox:1.36", command: [sh, -c, "echo here; exec sleep 100000"]}]
`, pod, m.Name))
	defer kubectl(t, f, "delete", "--now", "--ignore-not-found", "pod/"+pod)
	kubectl(t, f, "wait", "--for=condition=Ready", "pod/"+pod, "--timeout=180s")
	for _, api := range f.Machines {
		if said := kubectl(t, f, via(api), "logs", pod); strings.TrimSpace(said) != "here" {
			t.Errorf("the log of the pod on %s says through %s %q", m.Name, api.Name, said)
		}
	}
}

// readySince is since when each node is Ready, by the API.
func readySince(t *testing.T, f *fleet.Fleet) string {
	t.Helper()
	return kubectl(t, f, "get", "nodes", "-o", `jsonpath={range .items[*]}{.metadata.name} {.status.conditions[?(@.type=="Ready")].status} {.status.conditions[?(@.type=="Ready")].lastTransitionTime}{"\n"}{end}`)
}
