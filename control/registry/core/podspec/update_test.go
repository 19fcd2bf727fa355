package podspec

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

const immutable = "spec: Forbidden: pod updates may not change fields other than " + updatable

// updated returns the old pod as a client sends it with changes.
func updated(t *testing.T, old *corev1.Pod, changes ...string) *corev1.Pod {
	t.Helper()
	pod := manifest(t, changes...)
	pod.UID, pod.ResourceVersion, pod.Generation = old.UID, old.ResourceVersion, old.Generation
	return pod
}

// firstLines are messages without the differences that follow them.
func firstLines(errs field.ErrorList) []string {
	var list []string
	for _, message := range messages(errs) {
		line, _, _ := strings.Cut(message, "\n")
		list = append(list, line)
	}
	return list
}

func TestPodUpdates(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, old, change string
		want              []string
	}{
		{"an image can change", "{}", `spec: {containers: [{name: c, image: "nginx:2"}]}`, nil},
		{"a label can change", "{}", "metadata: {labels: {a: b}}", nil},
		{"a container cannot be added", "{}", `spec: {containers: [{name: c, image: "nginx:1.25"}, {name: d, image: "nginx:1.25"}]}`, []string{
			"spec.containers: Forbidden: pod updates may not add or remove containers",
		}},
		{"a command cannot change", "{}", `spec: {containers: [{name: c, image: "nginx:1.25", command: [x]}]}`, []string{
			immutable,
		}},
		{"an image cannot vanish", "{}", `spec: {containers: [{name: c, image: ""}]}`, []string{
			"spec.containers[0].image: Required value",
			"spec.containers[0].image: Required value",
		}},
		{"a DNS policy cannot change", "{}", "spec: {dnsPolicy: Default}", []string{
			immutable,
		}},
		{"a toleration can be added", "spec: {tolerations: [{key: a, operator: Exists}]}", "spec: {tolerations: [{key: a, operator: Exists}, {key: b, operator: Exists}]}", nil},
		{"a toleration cannot be removed", "spec: {tolerations: [{key: a, operator: Exists}]}", "spec: {tolerations: []}", []string{
			"spec.tolerations: Forbidden: existing toleration can not be modified except its tolerationSeconds",
		}},
		{"a toleration's seconds can change", "spec: {tolerations: [{key: a, operator: Exists, effect: NoExecute, tolerationSeconds: 5}]}", "spec: {tolerations: [{key: a, operator: Exists, effect: NoExecute, tolerationSeconds: 6}]}", nil},
		{"a deadline can be set", "{}", "spec: {activeDeadlineSeconds: 5}", nil},
		{"a deadline can be brought forward", "spec: {activeDeadlineSeconds: 5}", "spec: {activeDeadlineSeconds: 4}", nil},
		{"a deadline cannot be put off", "spec: {activeDeadlineSeconds: 5}", "spec: {activeDeadlineSeconds: 6}", []string{
			"spec.activeDeadlineSeconds: Invalid value: 6: must be less than or equal to previous value",
		}},
		{"a deadline cannot be taken away", "spec: {activeDeadlineSeconds: 5}", "spec: {activeDeadlineSeconds: null}", []string{
			"spec.activeDeadlineSeconds: Invalid value: null: must not update from a positive integer to nil value",
		}},
		{"a scheduling gate can be removed", "spec: {schedulingGates: [{name: a.b/c}, {name: a.b/d}]}", "spec: {schedulingGates: [{name: a.b/c}]}", nil},
		{"a scheduling gate cannot be added", "spec: {schedulingGates: [{name: a.b/c}]}", "spec: {schedulingGates: [{name: a.b/c}, {name: a.b/d}]}", []string{
			"spec.schedulingGates[1].name: Forbidden: only deletion is allowed, but found new scheduling gate 'a.b/d'",
		}},
		{"a gated pod's node selector can grow", "spec: {schedulingGates: [{name: a.b/c}], nodeSelector: {a: b}}", "spec: {nodeSelector: {a: b, c: d}}", nil},
		{"a gated pod's node selector cannot change", "spec: {schedulingGates: [{name: a.b/c}], nodeSelector: {a: b}}", "spec: {nodeSelector: {a: c}}", []string{
			`spec.nodeSelector: Invalid value: {"a":"c"}: only additions to spec.nodeSelector are allowed (no mutations or deletions)`,
		}},
		{"a free pod's node selector cannot grow", "spec: {nodeSelector: {a: b}}", "spec: {nodeSelector: {a: b, c: d}}", []string{
			immutable,
		}},
		{"a gated pod's node affinity can be narrowed", "spec: {schedulingGates: [{name: a.b/c}], affinity: {nodeAffinity: {requiredDuringSchedulingIgnoredDuringExecution: {nodeSelectorTerms: [{matchExpressions: [{key: a, operator: Exists}]}]}}}}", "spec: {affinity: {nodeAffinity: {requiredDuringSchedulingIgnoredDuringExecution: {nodeSelectorTerms: [{matchExpressions: [{key: a, operator: Exists}, {key: b, operator: Exists}]}]}}}}", nil},
		{"a gated pod's node affinity cannot be widened", "spec: {schedulingGates: [{name: a.b/c}], affinity: {nodeAffinity: {requiredDuringSchedulingIgnoredDuringExecution: {nodeSelectorTerms: [{matchExpressions: [{key: a, operator: Exists}]}]}}}}", "spec: {affinity: {nodeAffinity: {requiredDuringSchedulingIgnoredDuringExecution: {nodeSelectorTerms: [{matchExpressions: [{key: a, operator: Exists}]}, {matchExpressions: [{key: b, operator: Exists}]}]}}}}", []string{
			`spec.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms: Invalid value: [{"matchExpressions":[{"key":"a","operator":"Exists"}]},{"matchExpressions":[{"key":"b","operator":"Exists"}]}]: no additions/deletions to non-empty NodeSelectorTerms list are allowed`,
		}},
		{"an AppArmor annotation cannot be added", "{}", "metadata: {annotations: {container.apparmor.security.beta.kubernetes.io/c: unconfined}}", []string{
			"metadata.annotations[container.apparmor.security.beta.kubernetes.io/c]: Forbidden: may not add AppArmor annotations",
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			old := created(t, c.old)
			pod := updated(t, old, c.old, c.change)
			PrepareForUpdate(pod, old)
			if diff := cmp.Diff(c.want, firstLines(ValidatePodUpdate(pod, old))); diff != "" {
				t.Errorf("messages (-want +got):\n%s", diff)
			}
		})
	}
}

func TestTheMessageAboutImmutableFieldsShowsTheDifference(t *testing.T) {
	t.Parallel()
	old := created(t)
	pod := updated(t, old, "spec: {dnsPolicy: Default}")
	errs := ValidatePodUpdate(pod, old)
	if len(errs) != 1 {
		t.Fatalf("got %v, want one error", errs)
	}
	for _, want := range []string{immutable + "\n@@ ", "\n- \"dnsPolicy\": \"ClusterFirst\",\n+ \"dnsPolicy\": \"Default\",\n"} {
		if !strings.Contains(errs[0].Error(), want) {
			t.Errorf("message\n%s\nlacks\n%s", errs[0].Error(), want)
		}
	}
}

func TestAnUpdateOfTheSpecIsANewGeneration(t *testing.T) {
	t.Parallel()
	old := created(t)
	same, other := updated(t, old, "metadata: {labels: {a: b}}"), updated(t, old, `spec: {containers: [{name: c, image: "nginx:1.26"}]}`)
	PrepareForUpdate(same, old)
	PrepareForUpdate(other, old)
	if same.Generation != 1 || other.Generation != 2 {
		t.Errorf("generations are %d after a label and %d after an image changed, want 1 and 2", same.Generation, other.Generation)
	}
}

func TestTheMainResourceKeepsTheStatus(t *testing.T) {
	t.Parallel()
	old := created(t)
	old.Status.Phase = corev1.PodRunning
	pod := updated(t, old, "status: {phase: Failed}")
	PrepareForUpdate(pod, old)
	if pod.Status.Phase != corev1.PodRunning {
		t.Errorf("phase is %s, want Running", pod.Status.Phase)
	}
}
