package apps

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	"k8s.io/utils/ptr"
)

func replicaSet(t *testing.T, spec string) *appsv1.ReplicaSet {
	t.Helper()
	d := deployment(t, spec)
	r := &appsv1.ReplicaSet{ObjectMeta: d.ObjectMeta, Spec: appsv1.ReplicaSetSpec{Selector: d.Spec.Selector, Template: d.Spec.Template, MinReadySeconds: d.Spec.MinReadySeconds}}
	replicaSetKind().Default(r)
	return r
}

func TestReplicaSets(t *testing.T) {
	t.Parallel()
	r := replicaSet(t, good)
	if *r.Spec.Replicas != 1 {
		t.Errorf("replicas are %d, want 1", *r.Spec.Replicas)
	}
	if errs := validateReplicaSet(r); len(errs) > 0 {
		t.Errorf("a good one is refused: %v", errs.ToAggregate())
	}
	other := replicaSet(t, "selector: {matchLabels: {app: api}}, template: {metadata: {labels: {app: api}}, spec: {containers: [{name: c, image: i}]}}")
	want := []string{`spec.selector: Invalid value: {"matchLabels":{"app":"api"}}: field is immutable`}
	if diff := cmp.Diff(want, messages(validateReplicaSetUpdate(other, r))); diff != "" {
		t.Errorf("messages of another selector (-want +got):\n%s", diff)
	}
	r.Spec.Replicas, r.Spec.MinReadySeconds = ptr.To[int32](-1), -1
	want = []string{
		"spec.replicas: Invalid value: -1: must be greater than or equal to 0",
		"spec.minReadySeconds: Invalid value: -1: must be greater than or equal to 0",
	}
	if diff := cmp.Diff(want, messages(validateReplicaSet(r))); diff != "" {
		t.Errorf("messages of negative numbers (-want +got):\n%s", diff)
	}
}

func TestStatusOfAReplicaSet(t *testing.T) {
	t.Parallel()
	old := replicaSet(t, good)
	r := old.DeepCopy()
	r.Status = appsv1.ReplicaSetStatus{Replicas: 1, FullyLabeledReplicas: 2, ReadyReplicas: 1, AvailableReplicas: 2}
	want := []string{
		"status.fullyLabeledReplicas: Invalid value: 2: cannot be greater than status.replicas",
		"status.availableReplicas: Invalid value: 2: cannot be greater than status.replicas",
		"status.availableReplicas: Invalid value: 2: cannot be greater than readyReplicas",
	}
	if diff := cmp.Diff(want, messages(validateReplicaSetStatusUpdate(r, old))); diff != "" {
		t.Errorf("messages (-want +got):\n%s", diff)
	}
}
