package nodelifecycle

import (
	"testing"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func TestANodeWhoseClockIsPutBackIsStillHeardOf(t *testing.T) {
	t.Parallel()
	here, there := time.Unix(5_000, 0), time.Unix(100_000, 0)
	signs := newSignsOfLife()
	lease := &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Name: "a"}}
	renew := func() {
		lease.Spec.RenewTime = &metav1.MicroTime{Time: there}
		signs.lease(lease, here)
	}
	renew()
	for _, jump := range []time.Duration{time.Hour, -time.Hour, -time.Hour, time.Hour} {
		here, there = here.Add(10*time.Second), there.Add(10*time.Second+jump)
		renew()
		if got := signs.seen(node("a", ""), here); !got.Equal(here) {
			t.Errorf("after its clock went %s: heard of at %s, want %s", jump, got, here)
		}
	}
	before := here
	here = here.Add(time.Minute)
	signs.lease(lease, here) // the same renewal once more, as after a new list
	if got := signs.seen(node("a", ""), here); !got.Equal(before) {
		t.Errorf("without a renewal: heard of at %s, want %s", got, before)
	}
}
