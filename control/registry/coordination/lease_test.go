package coordination

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	coordinationv1 "k8s.io/api/coordination/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
)

func TestLeases(t *testing.T) {
	t.Parallel()
	l := &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Name: "node-a"}, Spec: coordinationv1.LeaseSpec{
		HolderIdentity: ptr.To("node-a"), LeaseDurationSeconds: ptr.To[int32](40), LeaseTransitions: ptr.To[int32](0),
		Strategy: ptr.To(coordinationv1.OldestEmulationVersion),
	}}
	kind := leaseKind()
	kind.PrepareForCreate(t.Context(), l)
	if l.Spec.Strategy != nil {
		t.Error("the strategy of coordinated election is kept")
	}
	if errs := kind.Validate(t.Context(), l); len(errs) > 0 {
		t.Errorf("a good one is refused: %v", errs.ToAggregate())
	}
	if diff := cmp.Diff([]any{"node-a", "node-a", "<unknown>"}, kind.Row(l)); diff != "" {
		t.Errorf("row (-want +got):\n%s", diff)
	}
	l.Spec.LeaseDurationSeconds, l.Spec.LeaseTransitions = ptr.To[int32](0), ptr.To[int32](-1)
	want := []string{
		"spec.leaseDurationSeconds: Invalid value: 0: must be greater than 0",
		"spec.leaseTransitions: Invalid value: -1: must be greater than or equal to 0",
	}
	var got []string
	for _, err := range kind.Validate(t.Context(), l) {
		got = append(got, err.Error())
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("messages (-want +got):\n%s", diff)
	}
}
