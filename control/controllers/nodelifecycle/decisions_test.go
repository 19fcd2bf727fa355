package nodelifecycle

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func node(name string, ready corev1.ConditionStatus, taints ...string) *corev1.Node {
	n := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name, UID: "uid", Labels: map[string]string{}}}
	n.Status.Conditions = []corev1.NodeCondition{{Type: corev1.NodeReady, Status: ready}}
	for _, text := range taints {
		key, effect, _ := strings.Cut(text, ":")
		n.Spec.Taints = append(n.Spec.Taints, corev1.Taint{Key: key, Effect: corev1.TaintEffect(effect), TimeAdded: &metav1.Time{Time: time.Unix(1, 0)}})
	}
	return n
}

func texts(taints []corev1.Taint) []string {
	var all []string
	for _, taint := range taints {
		all = append(all, fmt.Sprintf("%s:%s@%d", taint.Key, taint.Effect, taint.TimeAdded.Unix()))
	}
	return all
}

func TestWantedTaints(t *testing.T) {
	t.Parallel()
	pressed := node("a", corev1.ConditionTrue)
	pressed.Status.Conditions = append(pressed.Status.Conditions, corev1.NodeCondition{Type: corev1.NodeDiskPressure, Status: corev1.ConditionTrue})
	cordoned := node("a", corev1.ConditionTrue)
	cordoned.Spec.Unschedulable = true
	const notReady, unreachable = corev1.TaintNodeNotReady, corev1.TaintNodeUnreachable
	for name, tc := range map[string]struct {
		node        *corev1.Node
		drive, keep bool
		want        []string
	}{
		"a ready node has none":                              {node("a", corev1.ConditionTrue), true, true, nil},
		"pressure keeps new pods away":                       {pressed, false, true, []string{corev1.TaintNodeDiskPressure + ":NoSchedule@2"}},
		"so does a cordon":                                   {cordoned, false, true, []string{corev1.TaintNodeUnschedulable + ":NoSchedule@2"}},
		"a lost node keeps new pods away at once":            {node("a", corev1.ConditionUnknown), false, true, []string{unreachable + ":NoSchedule@2"}},
		"and drives away the old ones when allowed":          {node("a", corev1.ConditionUnknown), true, true, []string{unreachable + ":NoSchedule@2", unreachable + ":NoExecute@2"}},
		"the pods' time goes on when not ready becomes lost": {node("a", corev1.ConditionUnknown, notReady+":NoExecute"), false, true, []string{unreachable + ":NoSchedule@2", unreachable + ":NoExecute@1"}},
		"when all are lost none is driven away any more":     {node("a", corev1.ConditionUnknown, unreachable+":NoExecute", unreachable+":NoSchedule"), false, false, []string{unreachable + ":NoSchedule@1"}},
		"a node that is back loses them":                     {node("a", corev1.ConditionTrue, unreachable+":NoExecute", unreachable+":NoSchedule"), false, true, nil},
		"the taints of others stay":                          {node("a", corev1.ConditionTrue, "mine:NoExecute", notReady+":PreferNoSchedule"), false, true, []string{"mine:NoExecute@1", notReady + ":PreferNoSchedule@1"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got := wantedTaints(tc.node, tc.drive, tc.keep, metav1.Unix(2, 0))
			if diff := cmp.Diff(tc.want, texts(got)); diff != "" {
				t.Fatal(diff)
			}
		})
	}
}

func TestZones(t *testing.T) {
	t.Parallel()
	options := DefaultOptions()
	for name, tc := range map[string]struct {
		zone tally
		want float64
	}{
		"one node of three":                        {tally{ready: 2, lost: 1}, options.EvictionRate},
		"most, but only two":                       {tally{ready: 1, lost: 2}, options.EvictionRate},
		"most of a small zone stops it":            {tally{ready: 2, lost: 3}, 0},
		"most of a large zone slows it":            {tally{ready: 20, lost: 40}, options.ReducedRate},
		"all of one zone while others are ready":   {tally{ready: 0, lost: 5}, options.EvictionRate},
		"just below the threshold of a small zone": {tally{ready: 5, lost: 6}, options.EvictionRate},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if got := options.pace(tc.zone); got != tc.want {
				t.Fatalf("pace %v, want %v", got, tc.want)
			}
		})
	}
	excluded := node("x", corev1.ConditionTrue)
	excluded.Labels[excludeLabel] = ""
	if !everythingLost(count([]*corev1.Node{node("a", corev1.ConditionUnknown), node("b", corev1.ConditionFalse), excluded})) {
		t.Error("all that counts is lost, yet not everything")
	}
	if everythingLost(count([]*corev1.Node{node("a", corev1.ConditionUnknown), node("b", corev1.ConditionTrue)})) || everythingLost(count(nil)) {
		t.Error("not everything is lost")
	}
}

func TestSignsOfLifeUseTheOwnClock(t *testing.T) {
	t.Parallel()
	s := newSignsOfLife()
	own := time.Unix(1_000_000, 0)
	lease := func(renewed time.Time) *coordinationv1.Lease {
		return &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Name: "a"}, Spec: coordinationv1.LeaseSpec{RenewTime: &metav1.MicroTime{Time: renewed}}}
	}
	n := node("a", corev1.ConditionTrue)
	s.lease(lease(time.Unix(5, 0)), own) // The node's clock is wrong by years.
	s.lease(lease(time.Unix(5, 0)), own.Add(time.Minute))
	if got := s.seen(n, own.Add(time.Hour)); !got.Equal(own) {
		t.Errorf("an unchanged lease counts as a sign of life: %s", got)
	}
	s.lease(lease(time.Unix(6, 0)), own.Add(time.Minute))
	if got := s.seen(n, own.Add(time.Hour)); !got.Equal(own.Add(time.Minute)) {
		t.Errorf("a renewed lease does not count: %s", got)
	}
	never := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "never", CreationTimestamp: metav1.NewTime(own.Add(-time.Hour))}}
	if got := s.seen(never, own); !got.Equal(own) {
		t.Errorf("a node that could not report while the control plane was away counts from %s", got)
	}
	if got := s.seen(node("b", corev1.ConditionTrue), own); !got.Equal(own) {
		t.Errorf("a node first seen now counts from %s", got)
	}
}

func TestUnknown(t *testing.T) {
	t.Parallel()
	n := node("a", corev1.ConditionTrue)
	if !needsUnknown(n) {
		t.Fatal("a node that says it is ready needs no change")
	}
	unknown(n, metav1.Unix(2, 0))
	if needsUnknown(n) || len(n.Status.Conditions) != 4 {
		t.Fatalf("conditions %+v", n.Status.Conditions)
	}
	if ready := condition(n, corev1.NodeReady); ready.Reason != "NodeStatusUnknown" || ready.Message != "Kubelet stopped posting node status." {
		t.Errorf("ready condition %+v", ready)
	}
	if pid := condition(n, corev1.NodePIDPressure); pid.Reason != "NodeStatusNeverUpdated" || pid.Message != "Kubelet never posted node status." {
		t.Errorf("pid condition %+v", pid)
	}
}
