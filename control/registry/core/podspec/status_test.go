package podspec

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func TestStatusUpdates(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, pod, before, after string
		want                     []string
	}{
		{"a pod gets addresses of both families", "{}", "{}", "status: {podIP: 10.0.0.1, podIPs: [{ip: 10.0.0.1}, {ip: 'fd00::1'}], hostIP: 1.2.3.4, hostIPs: [{ip: 1.2.3.4}]}", nil},
		{"a pod has one address of each family", "{}", "{}", "status: {podIP: 10.0.0.1, podIPs: [{ip: 10.0.0.1}, {ip: 10.0.0.2}]}", []string{
			`status.podIPs: Invalid value: [{"ip":"10.0.0.1"},{"ip":"10.0.0.2"}]: may specify no more than one IP for each IP family`,
		}},
		{"an address is an address", "{}", "{}", "status: {podIP: nowhere}", []string{
			`status.podIPs[0]: Invalid value: "nowhere": must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)`,
		}},
		{"the quality of service stays", "{}", "{}", "status: {qosClass: Guaranteed}", []string{
			`status.qosClass: Invalid value: "Guaranteed": field is immutable`,
		}},
		{"a container that restarts leaves its end", "{}",
			"status: {containerStatuses: [{name: c, state: {terminated: {exitCode: 1}}}]}", "status: {containerStatuses: [{name: c, state: {running: {}}}]}", nil},
		{"a container that never restarts stays ended", "spec: {restartPolicy: Never}",
			"status: {containerStatuses: [{name: c, state: {terminated: {exitCode: 1}}}]}", "status: {containerStatuses: [{name: c, state: {running: {}}}]}", []string{
				"status.containerStatuses[0].state: Forbidden: may not be transitioned to non-terminated state",
			}},
		{"a container that restarts on failure stays ended after success", "spec: {restartPolicy: OnFailure}",
			"status: {containerStatuses: [{name: c, state: {terminated: {exitCode: 0}}}]}", "status: {containerStatuses: [{name: c, state: {waiting: {}}}]}", []string{
				"status.containerStatuses[0].state: Forbidden: may not be transitioned to non-terminated state",
			}},
		{"a rule restarts a container which otherwise stays ended", `spec: {restartPolicy: Never, containers: [{name: c, image: i, restartPolicy: Never, restartPolicyRules: [{action: Restart, exitCodes: {operator: In, values: [42]}}]}]}`,
			"status: {containerStatuses: [{name: c, state: {terminated: {exitCode: 42}}}]}", "status: {containerStatuses: [{name: c, state: {running: {}}}]}", nil},
		{"no node is nominated for a pod that has one", "spec: {nodeName: n1}", "{}", "status: {nominatedNodeName: n2}", []string{
			"status.nominatedNodeName: Forbidden: may not be set on pods that are already bound to a node",
		}},
		{"a condition has a qualified name", "{}", "{}", "status: {conditions: [{type: 'not valid', observedGeneration: -1}]}", []string{
			"status.conditions[0].observedGeneration: Invalid value: -1: must be a non-negative integer",
			`status.conditions[0].Type: Invalid value: "not valid": name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')`,
		}},
		{"a container's user may be one a pod cannot ask for", "{}", "{}", "status: {containerStatuses: [{name: c, user: {linux: {uid: 4294967295, gid: 0}}}]}", nil},
		{"a container's group is a group", "{}", "{}", "status: {containerStatuses: [{name: c, user: {linux: {uid: 0, gid: -1}}}]}", []string{
			"status.containerStatuses[0].user.linux.gid: Invalid value: -1: must be between 0 and 2147483647, inclusive",
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			old := created(t, c.pod)
			reported := manifest(t, c.before)
			old.Status.ContainerStatuses = reported.Status.ContainerStatuses
			pod := old.DeepCopy()
			pod.Status = manifest(t, c.after).Status
			PrepareForStatusUpdate(pod, old)
			if diff := cmp.Diff(c.want, messages(ValidatePodStatusUpdate(pod, old))); diff != "" {
				t.Errorf("messages (-want +got):\n%s", diff)
			}
		})
	}
}

func TestAStatusUpdateKeepsTheSpecAndWhatReportersLeaveOut(t *testing.T) {
	t.Parallel()
	old := created(t)
	old.OwnerReferences = []metav1.OwnerReference{{Name: "owner"}}
	old.Status.ObservedGeneration = 3
	old.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodReady, ObservedGeneration: 2}}
	pod := manifest(t, "spec: {nodeName: elsewhere}\nstatus: {phase: Running, conditions: [{type: Ready}]}")
	PrepareForStatusUpdate(pod, old)
	if pod.Spec.NodeName != "" || len(pod.OwnerReferences) != 1 {
		t.Errorf("the status subresource changed the node to %q and the owners to %v", pod.Spec.NodeName, pod.OwnerReferences)
	}
	want := old.Status.DeepCopy()
	want.Phase = corev1.PodRunning
	if diff := cmp.Diff(*want, pod.Status); diff != "" {
		t.Errorf("status (-want +got):\n%s", diff)
	}
}

func TestAConditionsTimeMovesWithItsStatus(t *testing.T) {
	t.Parallel()
	var status corev1.PodStatus
	first, later := metav1.Unix(1, 0), metav1.Unix(2, 0)
	set := func(value corev1.ConditionStatus, now metav1.Time) corev1.PodCondition {
		SetCondition(&status, corev1.PodCondition{Type: corev1.PodReady, Status: value}, now)
		return status.Conditions[0]
	}
	if got := set(corev1.ConditionTrue, first).LastTransitionTime; got != first {
		t.Errorf("time of a new condition is %v, want %v", got, first)
	}
	if got := set(corev1.ConditionTrue, later).LastTransitionTime; got != first {
		t.Errorf("time of an unchanged condition is %v, want %v", got, first)
	}
	if got := set(corev1.ConditionFalse, later).LastTransitionTime; got != later {
		t.Errorf("time of a changed condition is %v, want %v", got, later)
	}
}
