package replicaset

import (
	"errors"
	"sync/atomic"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/skiff-run/skiff/control/controllers/reconcile"
)

var noon = time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)

// pod returns a pod that runs and has been ready for an hour.
func pod(name string, edits ...func(*corev1.Pod)) *corev1.Pod {
	p := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: name, UID: types.UID(name), CreationTimestamp: metav1.NewTime(noon.Add(-2 * time.Hour))},
		Spec:       corev1.PodSpec{NodeName: "n1"},
		Status:     corev1.PodStatus{Phase: corev1.PodRunning},
	}
	readyFor(time.Hour)(p)
	for _, edit := range edits {
		edit(p)
	}
	return p
}

func readyFor(age time.Duration) func(*corev1.Pod) {
	return func(p *corev1.Pod) {
		p.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue, LastTransitionTime: metav1.NewTime(noon.Add(-age))}}
	}
}

func unready(p *corev1.Pod)     { p.Status.Conditions = nil }
func unscheduled(p *corev1.Pod) { p.Spec.NodeName, p.Status.Phase = "", corev1.PodPending; unready(p) }
func pending(p *corev1.Pod)     { p.Status.Phase = corev1.PodPending; unready(p) }
func node(name string) func(*corev1.Pod) {
	return func(p *corev1.Pod) { p.Spec.NodeName = name }
}
func costs(value string) func(*corev1.Pod) {
	return func(p *corev1.Pod) { p.Annotations = map[string]string{corev1.PodDeletionCost: value} }
}
func restarts(count int32) func(*corev1.Pod) {
	return func(p *corev1.Pod) { p.Status.ContainerStatuses = []corev1.ContainerStatus{{RestartCount: count}} }
}
func age(since time.Duration) func(*corev1.Pod) {
	return func(p *corev1.Pod) { p.CreationTimestamp = metav1.NewTime(noon.Add(-since)) }
}

func TestVictims(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		first, second *corev1.Pod
		related       []*corev1.Pod
	}{
		"unscheduled before scheduled":               {pod("z", unscheduled), pod("a", pending), nil},
		"pending before running":                     {pod("z", pending), pod("a", unready), nil},
		"unready before ready":                       {pod("z", unready), pod("a"), nil},
		"lower deletion cost first":                  {pod("z", costs("-5")), pod("a"), nil},
		"cost counts before company":                 {pod("z", costs("1"), node("n2")), pod("a", costs("2")), []*corev1.Pod{pod("x"), pod("y")}},
		"a cost that is not a number counts nothing": {pod("a", costs("cheap")), pod("z", costs("1")), nil},
		"where more related pods are":                {pod("z"), pod("a", node("n2")), []*corev1.Pod{pod("z"), pod("x"), pod("a", node("n2"))}},
		"shorter ready first":                        {pod("z", readyFor(time.Minute)), pod("a"), nil},
		"ready about as long: by uid":                {pod("a", readyFor(61*time.Minute)), pod("z", readyFor(60*time.Minute)), nil},
		"more restarts first":                        {pod("z", restarts(3)), pod("a", restarts(1)), nil},
		"younger first":                              {pod("z", age(time.Minute), unready), pod("a", unready), nil},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for _, order := range [][]*corev1.Pod{{tc.first, tc.second}, {tc.second, tc.first}} {
				if got := victims(order, tc.related, 1, noon); got[0] != tc.first {
					t.Fatalf("pod %s goes first, want %s", got[0].Name, tc.first.Name)
				}
			}
		})
	}
}

func TestExpectationsHoldBackUntilSeen(t *testing.T) {
	t.Parallel()
	now := noon
	e := newExpectations(func() time.Time { return now })
	key := reconcile.Key{Namespace: "shop", Name: "web"}
	if e.wait(key) != 0 {
		t.Fatal("a set of which nothing is expected has to wait")
	}
	e.expect(key, 2)
	e.created(key, 1)
	if e.wait(key) == 0 {
		t.Fatal("one creation is missing and yet there is no wait")
	}
	e.created(key, 1)
	if e.wait(key) != 0 {
		t.Fatal("everything was seen and yet there is a wait")
	}
	e.expect(key, 0, "a", "b")
	e.deleted(key, "a")
	e.deleted(key, "a")
	if e.wait(key) == 0 {
		t.Fatal("one deletion seen twice counted as two")
	}
	now = now.Add(expectationsTimeout)
	if e.wait(key) != 0 {
		t.Fatal("expectations do not expire")
	}
}

func TestSlowStartStopsAfterAFailedBatch(t *testing.T) {
	t.Parallel()
	var calls atomic.Int32
	if n, err := slowStart(10, func() error { calls.Add(1); return nil }); n != 10 || err != nil || calls.Load() != 10 {
		t.Errorf("%d of 10 succeeded in %d calls: %v", n, calls.Load(), err)
	}
	calls.Store(0)
	n, err := slowStart(100, func() error {
		if calls.Add(1) > 3 {
			return errors.New("quota")
		}
		return nil
	})
	if n != 3 || err == nil || calls.Load() != 7 {
		t.Errorf("%d succeeded in %d calls, error %v; want 3 in 7 and an error", n, calls.Load(), err)
	}
}

func TestStatus(t *testing.T) {
	t.Parallel()
	replicas := int32(3)
	set := &appsv1.ReplicaSet{
		ObjectMeta: metav1.ObjectMeta{Generation: 4},
		Spec: appsv1.ReplicaSetSpec{
			Replicas: &replicas, MinReadySeconds: 30,
			Template: corev1.PodTemplateSpec{ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{"app": "web"}}},
		},
	}
	labelled := func(p *corev1.Pod) { p.Labels = map[string]string{"app": "web", "more": "x"} }
	active := []*corev1.Pod{pod("a", labelled), pod("b", readyFor(10*time.Second)), pod("c", unready)}
	status := newStatus(set, active, []*corev1.Pod{pod("d")}, nil, noon)
	if status.Replicas != 3 || status.FullyLabeledReplicas != 1 || status.ReadyReplicas != 2 || status.AvailableReplicas != 1 ||
		*status.TerminatingReplicas != 1 || status.ObservedGeneration != 4 || status.Conditions != nil {
		t.Errorf("status %+v", status)
	}
	set.Status = status
	if next := nextAvailability(active, set, noon); next != 20*time.Second {
		t.Errorf("next look after %s, want 20s", next)
	}
	failed := newStatus(set, active[:1], nil, errors.New("forbidden: quota"), noon)
	if len(failed.Conditions) != 1 || failed.Conditions[0].Reason != "FailedCreate" || failed.Conditions[0].Message != "forbidden: quota" {
		t.Errorf("conditions after a failure: %+v", failed.Conditions)
	}
	set.Status = failed
	if healed := newStatus(set, active, nil, nil, noon); healed.Conditions != nil {
		t.Errorf("conditions after a success: %+v", healed.Conditions)
	}
}
