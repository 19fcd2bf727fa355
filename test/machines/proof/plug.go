package proof

import (
	"testing"
	"time"

	"github.com/skiff-run/skiff/internal/testenv"
	"github.com/skiff-run/skiff/test/machines/fleet"
)

// testPlug pulls the plug of the machine whose store leads. The others go on
// reading, and writing after an election; nothing that was acknowledged is lost,
// and the machine comes back by itself when it has power.
func testPlug(t *testing.T, f *fleet.Fleet) {
	lost := leader(t, f)
	left := others(f, lost)
	remove(t, f, "configmap", "written-through-"+left[0].Name, "written-through-"+left[1].Name)
	traffic := writeAndRead(t, f, left)
	defer traffic.stop()
	for _, m := range left {
		testenv.Eventually(t, time.Minute, func() bool { return traffic.writes[m.Name].count() > 100 && traffic.reads[m.Name].count() > 100 }, "nothing is written through %s", m.Name)
	}
	if err := lost.PowerOff(); err != nil {
		t.Fatal(err)
	}
	off := time.Now()
	for _, m := range left {
		written := traffic.writes[m.Name].count()
		testenv.Eventually(t, time.Minute, func() bool { return traffic.writes[m.Name].count() > written+100 }, "nothing is written through %s any more", m.Name)
	}
	// The node is found missing by the others.
	says(t, f, time.Minute, func(said string) bool { return said == "Unknown" }, via(left[0]), "get", "node", lost.Name, "-o", `jsonpath={.status.conditions[?(@.type=="Ready")].status}`)
	t.Logf("%s is known to be gone %s after its plug was pulled", lost.Name, time.Since(off).Round(100*time.Millisecond))
	traffic.stop()
	for _, m := range left {
		t.Logf("through %s, writes: %s", m.Name, traffic.writes[m.Name])
		t.Logf("through %s, reads: %s", m.Name, traffic.reads[m.Name])
		if traffic.reads[m.Name].failed != 0 {
			t.Errorf("reads through %s failed", m.Name)
		}
		for _, other := range left {
			// One that was under way when we stopped may have come through.
			if got, want := kept(t, f, other, m.Name), traffic.acknowledged[m.Name]; got < want {
				t.Errorf("through %s %d was acknowledged, %s has %d", m.Name, want, other.Name, got)
			}
		}
	}
	began := time.Now()
	if err := lost.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	booted := time.Since(began)
	healthy(t, f)
	t.Logf("%s is part of the cluster again %s after power came back, of which it booted for %s", lost.Name, time.Since(began).Round(time.Second), booted.Round(time.Second))
	for _, m := range left {
		if got, want := kept(t, f, lost, m.Name), traffic.acknowledged[m.Name]; got < want {
			t.Errorf("through %s %d was acknowledged, %s has %d", m.Name, want, lost.Name, got)
		}
	}
}
