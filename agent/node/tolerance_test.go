package node

import (
	"testing"
	"time"

	v1 "k8s.io/api/core/v1"
)

func TestShortTroubleIsBorne(t *testing.T) {
	t.Parallel()
	node := func(ready v1.ConditionStatus) *v1.Node {
		n := &v1.Node{Status: v1.NodeStatus{Conditions: []v1.NodeCondition{{Type: v1.NodeReady, Status: ready}}}}
		n.Status.NodeInfo.BootID = "boot"
		return n
	}
	ready, lost := node(v1.ConditionTrue), node(v1.ConditionFalse)
	start := time.Now()
	at := func(seconds int) time.Time { return start.Add(time.Duration(seconds) * time.Second) }
	type look struct {
		trouble string
		node    *v1.Node
		boot    string
		at      time.Time
		want    bool
	}
	for name, looks := range map[string][]look{
		"a restart of the agent": {{"starting", ready, "boot", at(0), true}, {"", ready, "boot", at(1), false}},
		"containerd down for long": {
			{"", ready, "boot", at(0), false}, {"down", ready, "boot", at(5), true}, {"down", ready, "boot", at(9), true}, {"down", ready, "boot", at(10), false},
			{"", lost, "boot", at(20), false}, {"down", ready, "boot", at(21), true},
		},
		"containerd down from the start": {{"down", ready, "boot", at(0), true}, {"down", ready, "boot", at(10), false}},
		"a new node":                     {{"starting", lost, "boot", at(0), false}},
		"after a reboot":                 {{"starting", ready, "another boot", at(0), false}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var own tolerance
			for i, l := range looks {
				if got := own.bears(l.trouble, l.node, l.boot, l.at); got != l.want {
					t.Errorf("look %d (%q): borne %t, want %t", i, l.trouble, got, l.want)
				}
			}
		})
	}
}
