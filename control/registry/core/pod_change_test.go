package core

import (
	"context"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"
)

func TestAPodGetsItsNodeOnce(t *testing.T) {
	t.Parallel()
	binding := &corev1.Binding{
		ObjectMeta: metav1.ObjectMeta{Name: "web", Annotations: map[string]string{"a": "b"}, Labels: map[string]string{"topology.kubernetes.io/zone": "z1"}},
		Target:     corev1.ObjectReference{Kind: "Node", Name: "n1"},
	}
	pod, err := assign(&corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "web"}, Status: corev1.PodStatus{NominatedNodeName: "n2"}}, binding)
	if err != nil {
		t.Fatal(err)
	}
	if pod.Spec.NodeName != "n1" || pod.Status.NominatedNodeName != "" || pod.Annotations["a"] != "b" || pod.Labels["topology.kubernetes.io/zone"] != "z1" {
		t.Errorf("bound pod is %+v", pod)
	}
	if !conditionIs(pod, corev1.PodScheduled) {
		t.Errorf("conditions are %v, want PodScheduled", pod.Status.Conditions)
	}
	gated := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "web"}, Spec: corev1.PodSpec{SchedulingGates: []corev1.PodSchedulingGate{{Name: "a.b/c"}}}}
	deleted := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "web", DeletionTimestamp: &metav1.Time{}}}
	for _, c := range []struct {
		name string
		pod  *corev1.Pod
		want string
	}{
		{"a pod that has a node", pod, `pod web is already assigned to node "n1"`},
		{"a pod behind a gate", gated, "pod web has non-empty .spec.schedulingGates"},
		{"a pod that is being deleted", deleted, "pod web is being deleted, cannot be assigned to a host"},
	} {
		if _, err := assign(c.pod, binding); err == nil || err.Error() != c.want {
			t.Errorf("%s: error is %v, want %s", c.name, err, c.want)
		}
	}
}

func TestWrongBindingsAreRefusedBeforeAnythingIsStored(t *testing.T) {
	t.Parallel()
	b := &podBinding{}
	for _, c := range []struct {
		binding corev1.Binding
		want    string
	}{
		{corev1.Binding{ObjectMeta: metav1.ObjectMeta{Name: "other"}}, "name in URL does not match name in Binding object"},
		{corev1.Binding{ObjectMeta: metav1.ObjectMeta{Name: "web"}}, "target.name: Required value"},
		{corev1.Binding{ObjectMeta: metav1.ObjectMeta{Name: "web"}, Target: corev1.ObjectReference{Kind: "Ship", Name: "x"}}, `target.kind: Unsupported value: "Ship": supported values: "Node", "<empty>"`},
	} {
		if _, err := b.Create(context.Background(), "web", &c.binding, nil, &metav1.CreateOptions{}); err == nil || err.Error() != c.want {
			t.Errorf("error is %v, want %s", err, c.want)
		}
	}
}

func TestHowLongADeletedPodHas(t *testing.T) {
	t.Parallel()
	scheduled := corev1.PodSpec{NodeName: "n1", TerminationGracePeriodSeconds: ptr.To[int64](30)}
	for _, c := range []struct {
		name  string
		pod   corev1.Pod
		asked *int64
		want  int64
	}{
		{"as long as it says", corev1.Pod{Spec: scheduled}, nil, 30},
		{"as long as the client says", corev1.Pod{Spec: scheduled}, ptr.To[int64](5), 5},
		{"no time when it is forced", corev1.Pod{Spec: scheduled}, ptr.To[int64](0), 0},
		{"a second when the client's time is negative", corev1.Pod{Spec: scheduled}, ptr.To[int64](-1), 1},
		{"no time without a node", corev1.Pod{}, ptr.To[int64](5), 0},
		{"no time when it has failed", corev1.Pod{Spec: scheduled, Status: corev1.PodStatus{Phase: corev1.PodFailed}}, nil, 0},
		{"no time when it has succeeded", corev1.Pod{Spec: scheduled, Status: corev1.PodStatus{Phase: corev1.PodSucceeded}}, nil, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			options := &metav1.DeleteOptions{GracePeriodSeconds: c.asked}
			if !podGracePeriod(&c.pod, options) || *options.GracePeriodSeconds != c.want {
				t.Errorf("period is %d, want %d", *options.GracePeriodSeconds, c.want)
			}
		})
	}
}

func TestEvictionsHonourDryRunAndPreconditions(t *testing.T) {
	t.Parallel()
	all := []string{metav1.DryRunAll}
	for _, c := range []struct {
		name    string
		given   *metav1.DeleteOptions
		request metav1.CreateOptions
		want    []string
	}{
		{"a dry run is the request's", nil, metav1.CreateOptions{DryRun: all}, all},
		{"a dry run is the body's", &metav1.DeleteOptions{DryRun: all}, metav1.CreateOptions{}, all},
		{"the request's goes with a body that has none", &metav1.DeleteOptions{}, metav1.CreateOptions{DryRun: all}, all},
	} {
		options, err := evictionOptions(&policyv1.Eviction{DeleteOptions: c.given}, &c.request)
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		if diff := cmp.Diff(c.want, options.DryRun); diff != "" {
			t.Errorf("%s (-want +got):\n%s", c.name, diff)
		}
	}
	if _, err := evictionOptions(&policyv1.Eviction{DeleteOptions: &metav1.DeleteOptions{DryRun: []string{"Some"}}}, &metav1.CreateOptions{DryRun: all}); err == nil {
		t.Error("two different dry runs were accepted")
	}
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "web", UID: "1", ResourceVersion: "7"}}
	for _, conditions := range []*metav1.Preconditions{nil, {}, {UID: ptr.To(types.UID("1"))}, {ResourceVersion: ptr.To("7")}} {
		if err := checkPreconditions(pod, conditions); err != nil {
			t.Errorf("preconditions %v: %v", conditions, err)
		}
	}
	for _, conditions := range []*metav1.Preconditions{{UID: ptr.To(types.UID("2"))}, {ResourceVersion: ptr.To("6")}} {
		if err := checkPreconditions(pod, conditions); !apierrors.IsConflict(err) {
			t.Errorf("preconditions %v: %v, want a conflict", conditions, err)
		}
	}
}

func TestWhatPodsAreSelectedBy(t *testing.T) {
	t.Parallel()
	pod := &corev1.Pod{
		Spec:   corev1.PodSpec{NodeName: "n1", RestartPolicy: corev1.RestartPolicyNever, SchedulerName: "s", ServiceAccountName: "sa", HostNetwork: true},
		Status: corev1.PodStatus{Phase: corev1.PodRunning, PodIPs: []corev1.PodIP{{IP: "10.0.0.1"}, {IP: "fd00::1"}}, NominatedNodeName: "n2"},
	}
	want := map[string]string{
		"spec.nodeName": "n1", "spec.restartPolicy": "Never", "spec.schedulerName": "s", "spec.serviceAccountName": "sa", "spec.hostNetwork": "true",
		"status.phase": "Running", "status.podIP": "10.0.0.1", "status.nominatedNodeName": "n2",
	}
	if diff := cmp.Diff(want, map[string]string(podFields(pod))); diff != "" {
		t.Errorf("fields (-want +got):\n%s", diff)
	}
}
