package core

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"
)

var noon = time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)

// cells are the columns Ready, Status and Restarts of a pod at noon.
func cells(t *testing.T, manifest string) string {
	t.Helper()
	pod := &corev1.Pod{}
	if err := yaml.UnmarshalStrict([]byte(manifest), pod); err != nil {
		t.Fatalf("parse %s: %v", manifest, err)
	}
	row := podRow(pod, noon)
	return fmt.Sprintf("%v %v %v", row[1], row[2], row[3])
}

func TestPodsInOneLine(t *testing.T) {
	t.Parallel()
	const one = "spec: {containers: [{name: c}]}\n"
	const withInit = "spec: {initContainers: [{name: i}, {name: j}], containers: [{name: c}]}\n"
	const withSidecar = "spec: {initContainers: [{name: s, restartPolicy: Always}], containers: [{name: c}]}\n"
	for _, c := range []struct{ name, manifest, want string }{
		{"a pod without a node is pending", one + "status: {phase: Pending}", "0/1 Pending 0"},
		{"a gated pod says so", one + "status: {phase: Pending, conditions: [{type: PodScheduled, status: 'False', reason: SchedulingGated}]}", "0/1 SchedulingGated 0"},
		{"a pod whose image is pulled is being created", one + "status: {phase: Pending, containerStatuses: [{name: c, state: {waiting: {reason: ContainerCreating}}}]}", "0/1 ContainerCreating 0"},
		{"a pod with a wrong image says so", one + "status: {phase: Pending, containerStatuses: [{name: c, state: {waiting: {reason: ImagePullBackOff}}}]}", "0/1 ImagePullBackOff 0"},
		{"a ready pod runs", one + "status: {phase: Running, containerStatuses: [{name: c, ready: true, state: {running: {}}}]}", "1/1 Running 0"},
		{"a pod that restarted says when", one + "status: {phase: Running, containerStatuses: [{name: c, ready: true, restartCount: 3, state: {running: {}}, lastState: {terminated: {finishedAt: '2026-01-01T11:55:00Z'}}}]}", "1/1 Running 3 (5m ago)"},
		{"a crashing pod backs off", one + "status: {phase: Running, containerStatuses: [{name: c, restartCount: 5, state: {waiting: {reason: CrashLoopBackOff}}, lastState: {terminated: {finishedAt: '2026-01-01T11:59:18Z'}}}]}", "0/1 CrashLoopBackOff 5 (42s ago)"},
		{"a pod that ended well is completed", one + "status: {phase: Succeeded, containerStatuses: [{name: c, state: {terminated: {exitCode: 0, reason: Completed}}}]}", "0/1 Completed 0"},
		{"a pod that failed says how", one + "status: {phase: Failed, containerStatuses: [{name: c, state: {terminated: {exitCode: 1, reason: Error}}}]}", "0/1 Error 0"},
		{"a pod killed by a signal says which", one + "status: {phase: Failed, containerStatuses: [{name: c, state: {terminated: {exitCode: 137, signal: 9}}}]}", "0/1 Signal:9 0"},
		{"a pod that ended without a reason tells its exit code", one + "status: {phase: Failed, containerStatuses: [{name: c, state: {terminated: {exitCode: 3}}}]}", "0/1 ExitCode:3 0"},
		{"an evicted pod says so", one + "status: {phase: Failed, reason: Evicted}", "0/1 Evicted 0"},
		{"a pod counts its init containers", withInit + "status: {phase: Pending, initContainerStatuses: [{name: i, state: {terminated: {exitCode: 0}}}, {name: j, state: {running: {}}}]}", "0/1 Init:1/2 0"},
		{"a pod whose init container fails says how", withInit + "status: {phase: Pending, initContainerStatuses: [{name: i, restartCount: 2, state: {waiting: {reason: CrashLoopBackOff}}}]}", "0/1 Init:CrashLoopBackOff 2"},
		{"a pod whose init container ended badly says how", withInit + "status: {phase: Pending, initContainerStatuses: [{name: i, state: {terminated: {exitCode: 1, reason: Error}}}]}", "0/1 Init:Error 0"},
		{"a pod whose init containers are done initializes", withInit + "status: {phase: Pending, initContainerStatuses: [{name: i, state: {terminated: {exitCode: 0}}}, {name: j, state: {terminated: {exitCode: 0}}}], containerStatuses: [{name: c, state: {waiting: {reason: PodInitializing}}}]}", "0/1 PodInitializing 0"},
		{"restarts of init containers are forgotten", withInit + "status: {phase: Running, initContainerStatuses: [{name: i, restartCount: 7, state: {terminated: {exitCode: 0}}}], containerStatuses: [{name: c, ready: true, state: {running: {}}}]}", "1/1 Running 0"},
		{"a sidecar counts as a container", withSidecar + "status: {phase: Running, initContainerStatuses: [{name: s, started: true, ready: true, restartCount: 1, state: {running: {}}}], containerStatuses: [{name: c, ready: true, state: {running: {}}}]}", "2/2 Running 1"},
		{"a pod of which a part ended still runs", "spec: {containers: [{name: c}, {name: d}]}\nstatus: {phase: Running, conditions: [{type: Ready, status: 'True'}], containerStatuses: [{name: c, state: {terminated: {exitCode: 0, reason: Completed}}}, {name: d, ready: true, state: {running: {}}}]}", "1/2 Running 0"},
		{"a pod of which a part ended is not ready when it says so", "spec: {containers: [{name: c}, {name: d}]}\nstatus: {phase: Running, containerStatuses: [{name: c, state: {terminated: {exitCode: 0, reason: Completed}}}, {name: d, ready: true, state: {running: {}}}]}", "1/2 NotReady 0"},
		{"a deleted pod is terminating", "metadata: {deletionTimestamp: '2026-01-01T11:00:00Z'}\n" + one + "status: {phase: Running, containerStatuses: [{name: c, ready: true, state: {running: {}}}]}", "1/1 Terminating 0"},
		{"a deleted pod that has ended is not", "metadata: {deletionTimestamp: '2026-01-01T11:00:00Z'}\n" + one + "status: {phase: Failed, containerStatuses: [{name: c, state: {terminated: {exitCode: 1, reason: Error}}}]}", "0/1 Error 0"},
		{"nothing is known of a deleted pod on a lost node", "metadata: {deletionTimestamp: '2026-01-01T11:00:00Z'}\n" + one + "status: {phase: Running, reason: NodeLost}", "0/1 Unknown 0"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			if got := cells(t, c.manifest); got != c.want {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
}

func TestTheWideColumnsOfPods(t *testing.T) {
	t.Parallel()
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: "web"},
		Spec:       corev1.PodSpec{NodeName: "n1", ReadinessGates: []corev1.PodReadinessGate{{ConditionType: "a"}, {ConditionType: "b"}}},
		Status: corev1.PodStatus{
			PodIPs: []corev1.PodIP{{IP: "10.244.0.5"}}, NominatedNodeName: "n2",
			Conditions: []corev1.PodCondition{{Type: "a", Status: corev1.ConditionTrue}},
		},
	}
	if diff := cmp.Diff([]any{"10.244.0.5", "n1", "n2", "1/2"}, podRow(pod, noon)[5:]); diff != "" {
		t.Errorf("wide columns (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]any{"<none>", "<none>", "<none>", "<none>"}, podRow(&corev1.Pod{}, noon)[5:]); diff != "" {
		t.Errorf("wide columns of an empty pod (-want +got):\n%s", diff)
	}
	var names []string
	for _, column := range podColumns() {
		names = append(names, strings.ToUpper(column.Name))
	}
	if got, want := strings.Join(names, "|"), "NAME|READY|STATUS|RESTARTS|AGE|IP|NODE|NOMINATED NODE|READINESS GATES"; got != want {
		t.Errorf("columns are %s, want %s", got, want)
	}
}

func TestTheColumnsOfNodes(t *testing.T) {
	t.Parallel()
	node := &corev1.Node{
		ObjectMeta: metav1.ObjectMeta{Name: "n1", Labels: map[string]string{"node-role.kubernetes.io/worker": "", "node-role.kubernetes.io/control-plane": ""}},
		Spec:       corev1.NodeSpec{Unschedulable: true},
		Status: corev1.NodeStatus{
			Conditions: []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionTrue}},
			Addresses:  []corev1.NodeAddress{{Type: corev1.NodeInternalIP, Address: "192.168.56.11"}},
			NodeInfo: corev1.NodeSystemInfo{
				KubeletVersion: "v1.37.2+skiff", OSImage: "Debian GNU/Linux 12", KernelVersion: "6.1.0", Architecture: "amd64",
				ContainerRuntimeVersion: "containerd://1.6.20",
			},
		},
	}
	want := []any{
		"n1", "Ready,SchedulingDisabled", "control-plane,worker", "<unknown>", "v1.37.2+skiff",
		"192.168.56.11", "<none>", "Debian GNU/Linux 12", "6.1.0 (amd64)", "containerd://1.6.20",
	}
	if diff := cmp.Diff(want, nodeRow(node)); diff != "" {
		t.Errorf("row (-want +got):\n%s", diff)
	}
	want = []any{"", "Unknown", "<none>", "<unknown>", "", "<none>", "<none>", "<unknown>", "<unknown>", "<unknown>"}
	if diff := cmp.Diff(want, nodeRow(&corev1.Node{})); diff != "" {
		t.Errorf("row of an empty node (-want +got):\n%s", diff)
	}
}
