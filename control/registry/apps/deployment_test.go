package apps

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/yaml"
)

func TestDefaultsOfADeployment(t *testing.T) {
	t.Parallel()
	d := deployment(t, good)
	d.Spec.Template.Spec.Containers = nil
	got, err := yaml.Marshal(d.Spec)
	if err != nil {
		t.Fatal(err)
	}
	const want = `progressDeadlineSeconds: 600
replicas: 1
revisionHistoryLimit: 10
selector:
  matchLabels:
    app: web
strategy:
  rollingUpdate:
    maxSurge: 25%
    maxUnavailable: 25%
  type: RollingUpdate
template:
  metadata:
    labels:
      app: web
  spec:
    containers: null
    dnsPolicy: ClusterFirst
    restartPolicy: Always
    schedulerName: default-scheduler
    securityContext: {}
    terminationGracePeriodSeconds: 30
`
	if diff := cmp.Diff(want, string(got)); diff != "" {
		t.Errorf("spec (-want +got):\n%s", diff)
	}
}

func TestWrongDeploymentsAreRefused(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, spec string
		want       []string
	}{
		{"a good one is accepted", good, nil},
		{"a selector is needed", podTemplate, []string{
			"spec.selector: Required value",
			"spec.template.metadata.labels: Invalid value: {\"app\":\"web\"}: `selector` does not match template `labels`",
		}},
		{"a selector selects something", "selector: {}, " + podTemplate, []string{"spec.selector: Invalid value: {}: empty selector is invalid for deployment"}},
		{"a selector matches the template", "selector: {matchLabels: {app: other}}, " + podTemplate, []string{
			"spec.template.metadata.labels: Invalid value: {\"app\":\"web\"}: `selector` does not match template `labels`",
		}},
		{"a selector's operator is one of four", "selector: {matchExpressions: [{key: app, operator: Is}]}, " + podTemplate, []string{
			`spec.selector.matchExpressions[0].operator: Invalid value: "Is": not a valid selector operator`,
			`spec.selector: Invalid value: {"matchExpressions":[{"key":"app","operator":"Is"}]}: invalid label selector`,
		}},
		{"a number of pods is not negative", "replicas: -1, minReadySeconds: -1, revisionHistoryLimit: -1, " + good, []string{
			"spec.replicas: Invalid value: -1: must be greater than or equal to 0",
			"spec.minReadySeconds: Invalid value: -1: must be greater than or equal to 0",
			"spec.revisionHistoryLimit: Invalid value: -1: must be greater than or equal to 0",
		}},
		{"a template is a pod's", "selector: {matchLabels: {app: web}}, template: {metadata: {labels: {app: web}}, spec: {containers: [{name: c}]}}", []string{
			"spec.template.spec.containers[0].image: Required value",
		}},
		{"its pods run until they are told to stop", "selector: {matchLabels: {app: web}}, template: {metadata: {labels: {app: web}}, spec: {restartPolicy: Never, activeDeadlineSeconds: 5, containers: [{name: c, image: i}]}}", []string{
			`spec.template.spec.restartPolicy: Unsupported value: "Never": supported values: "Always"`,
			"spec.template.spec.activeDeadlineSeconds: Forbidden: activeDeadlineSeconds in ReplicaSet is not Supported",
		}},
		{"a strategy is one of two", "strategy: {type: Canary}, " + good, []string{
			`spec.strategy: Unsupported value: {"type":"Canary"}: supported values: "Recreate", "RollingUpdate"`,
		}},
		{"recreating does not roll", "strategy: {type: Recreate, rollingUpdate: {maxSurge: 1}}, " + good, []string{
			"spec.strategy.rollingUpdate: Forbidden: may not be specified when strategy `type` is 'Recreate'",
		}},
		{"a rollout may move pods", "strategy: {rollingUpdate: {maxSurge: 0, maxUnavailable: 0}}, " + good, []string{
			"spec.strategy.rollingUpdate.maxUnavailable: Invalid value: 0: may not be 0 when `maxSurge` is 0",
		}},
		{"a share is a number or a percentage", "strategy: {rollingUpdate: {maxSurge: some, maxUnavailable: 101%}}, " + good, []string{
			`spec.strategy.rollingUpdate.maxSurge: Invalid value: "some": a valid percent string must be a numeric string followed by an ending '%' (e.g. '1%',  or '93%', regex used for validation is '[0-9]+%')`,
			`spec.strategy.rollingUpdate.maxUnavailable: Invalid value: "101%": must not be greater than 100%`,
		}},
		{"a rollout has more time than a pod needs to be ready", "minReadySeconds: 600, " + good, []string{
			"spec.progressDeadlineSeconds: Invalid value: 600: must be greater than minReadySeconds",
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			if diff := cmp.Diff(c.want, messages(validateDeployment(deployment(t, c.spec)))); diff != "" {
				t.Errorf("messages (-want +got):\n%s", diff)
			}
		})
	}
}

func TestTheSelectorOfADeploymentIsForGood(t *testing.T) {
	t.Parallel()
	old := deployment(t, good)
	d := deployment(t, "selector: {matchLabels: {app: api}}, template: {metadata: {labels: {app: api}}, spec: {containers: [{name: c, image: i}]}}")
	want := []string{`spec.selector: Invalid value: {"matchLabels":{"app":"api"}}: field is immutable`}
	if diff := cmp.Diff(want, messages(validateDeploymentUpdate(d, old))); diff != "" {
		t.Errorf("messages (-want +got):\n%s", diff)
	}
}

func TestGenerationsOfADeployment(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name   string
		change func(*appsv1.Deployment)
		want   int64
	}{
		{"nothing", func(*appsv1.Deployment) {}, 5},
		{"a label", func(d *appsv1.Deployment) { d.Labels = map[string]string{"a": "b"} }, 5},
		{"an annotation, which ReplicaSets get too", func(d *appsv1.Deployment) { d.Annotations = map[string]string{"a": "b"} }, 6},
		{"the number of pods", func(d *appsv1.Deployment) { d.Spec.Replicas = ptr.To[int32](3) }, 6},
	} {
		old := deployment(t, good)
		old.Generation = 5
		d := old.DeepCopy()
		c.change(d)
		prepareDeploymentUpdate(d, old)
		if d.Generation != c.want {
			t.Errorf("after a change of %s the generation is %d, want %d", c.name, d.Generation, c.want)
		}
	}
}

func TestStatusOfADeployment(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name   string
		status appsv1.DeploymentStatus
		want   []string
	}{
		{"what was counted fits", appsv1.DeploymentStatus{Replicas: 3, UpdatedReplicas: 2, ReadyReplicas: 2, AvailableReplicas: 1, CollisionCount: ptr.To[int32](2)}, nil},
		{"parts are not more than the whole", appsv1.DeploymentStatus{Replicas: 1, UpdatedReplicas: 2, ReadyReplicas: 2, AvailableReplicas: 2, CollisionCount: ptr.To[int32](2)}, []string{
			"status.updatedReplicas: Invalid value: 2: cannot be greater than status.replicas",
			"status.readyReplicas: Invalid value: 2: cannot be greater than status.replicas",
			"status.availableReplicas: Invalid value: 2: cannot be greater than status.replicas",
		}},
		{"who is available is ready", appsv1.DeploymentStatus{Replicas: 2, AvailableReplicas: 1, CollisionCount: ptr.To[int32](2)}, []string{
			"status.availableReplicas: Invalid value: 1: cannot be greater than readyReplicas",
		}},
		{"nothing is negative", appsv1.DeploymentStatus{UnavailableReplicas: -1, TerminatingReplicas: ptr.To[int32](-2), CollisionCount: ptr.To[int32](2)}, []string{
			"status.unavailableReplicas: Invalid value: -1: must be greater than or equal to 0",
			"status.terminatingReplicas: Invalid value: -2: must be greater than or equal to 0",
		}},
		{"collisions are not forgotten", appsv1.DeploymentStatus{}, []string{"status.collisionCount: Invalid value: 0: cannot be decremented"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			old, d := deployment(t, good), deployment(t, good)
			old.Status.CollisionCount = ptr.To[int32](1)
			d.Status = c.status
			if diff := cmp.Diff(c.want, messages(validateDeploymentStatusUpdate(d, old))); diff != "" {
				t.Errorf("messages (-want +got):\n%s", diff)
			}
		})
	}
}

func TestTheColumnsOfWorkloads(t *testing.T) {
	t.Parallel()
	d := deployment(t, "replicas: 3, "+good)
	d.Status = appsv1.DeploymentStatus{Replicas: 4, ReadyReplicas: 2, UpdatedReplicas: 1, AvailableReplicas: 2}
	want := []any{"web", "2/3", int64(1), int64(2), "<unknown>", "c", "nginx:1.25", "app=web"}
	if diff := cmp.Diff(want, deploymentRow(d)); diff != "" {
		t.Errorf("row of a deployment (-want +got):\n%s", diff)
	}
	r := &appsv1.ReplicaSet{
		ObjectMeta: metav1.ObjectMeta{Name: "web-5d"},
		Spec:       appsv1.ReplicaSetSpec{Replicas: ptr.To[int32](3), Selector: d.Spec.Selector, Template: d.Spec.Template},
		Status:     appsv1.ReplicaSetStatus{Replicas: 2, ReadyReplicas: 1},
	}
	want = []any{"web-5d", int64(3), int64(2), int64(1), "<unknown>", "c", "nginx:1.25", "app=web"}
	if diff := cmp.Diff(want, replicaSetKind().Row(r)); diff != "" {
		t.Errorf("row of a replicaset (-want +got):\n%s", diff)
	}
}
