package podspec

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"
)

func TestDefaultsOfTheSmallestPod(t *testing.T) {
	t.Parallel()
	got, err := yaml.Marshal(manifest(t).Spec)
	if err != nil {
		t.Fatal(err)
	}
	const want = `containers:
- image: nginx:1.25
  imagePullPolicy: IfNotPresent
  name: c
  resources: {}
  terminationMessagePath: /dev/termination-log
  terminationMessagePolicy: File
dnsPolicy: ClusterFirst
enableServiceLinks: true
restartPolicy: Always
schedulerName: default-scheduler
securityContext: {}
terminationGracePeriodSeconds: 30
`
	if diff := cmp.Diff(want, string(got)); diff != "" {
		t.Errorf("spec (-want +got):\n%s", diff)
	}
}

func TestTheImagesNameDecidesHowOftenItIsPulled(t *testing.T) {
	t.Parallel()
	const digest = "@sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
	for image, want := range map[string]corev1.PullPolicy{
		"nginx":                       corev1.PullAlways,
		"nginx:latest":                corev1.PullAlways,
		"registry.local:5000/nginx":   corev1.PullAlways,
		"nginx:1.25":                  corev1.PullIfNotPresent,
		"registry.local:5000/nginx:1": corev1.PullIfNotPresent,
		"nginx" + digest:              corev1.PullIfNotPresent,
		"nginx:latest" + digest:       corev1.PullAlways,
		"NOT AN IMAGE":                corev1.PullIfNotPresent,
		"":                            corev1.PullIfNotPresent,
	} {
		if got := pullPolicyFor(image); got != want {
			t.Errorf("pull policy of %q is %s, want %s", image, got, want)
		}
	}
}

func TestDefaults(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, change string
		read         func(*corev1.Pod) any
		want         any
	}{
		{"requests are the limits where none are given", `spec: {containers: [{name: c, image: i, resources: {limits: {cpu: "2", memory: 1Gi}, requests: {cpu: "1"}}}]}`,
			func(p *corev1.Pod) any {
				r := p.Spec.Containers[0].Resources.Requests
				return r.Cpu().String() + " " + r.Memory().String()
			}, "1 1Gi"},
		{"amounts are rounded up to thousandths", "spec: {containers: [{name: c, image: i, resources: {limits: {cpu: 100100u}}}]}",
			func(p *corev1.Pod) any { return p.Spec.Containers[0].Resources.Limits.Cpu().String() }, "101m"},
		{"a host-network pod opens its ports on the node", "spec: {hostNetwork: true, containers: [{name: c, image: i, ports: [{containerPort: 80}]}]}",
			func(p *corev1.Pod) any { return p.Spec.Containers[0].Ports[0] },
			corev1.ContainerPort{HostPort: 80, ContainerPort: 80, Protocol: corev1.ProtocolTCP}},
		{"the old name of the service account counts", "spec: {serviceAccount: robot}",
			func(p *corev1.Pod) any { return p.Spec.ServiceAccountName }, "robot"},
		{"the new name of the service account wins", "spec: {serviceAccount: robot, serviceAccountName: human}",
			func(p *corev1.Pod) any { return p.Spec.DeprecatedServiceAccount }, "human"},
		{"a probe asks every ten seconds", "spec: {containers: [{name: c, image: i, livenessProbe: {httpGet: {port: 80}}}]}",
			func(p *corev1.Pod) any {
				q := p.Spec.Containers[0].LivenessProbe
				return []any{q.TimeoutSeconds, q.PeriodSeconds, q.SuccessThreshold, q.FailureThreshold, q.HTTPGet.Path, q.HTTPGet.Scheme}
			}, []any{int32(1), int32(10), int32(1), int32(3), "/", corev1.URISchemeHTTP}},
		{"a field is one of v1", "spec: {containers: [{name: c, image: i, env: [{name: A, valueFrom: {fieldRef: {fieldPath: metadata.name}}}]}]}",
			func(p *corev1.Pod) any { return p.Spec.Containers[0].Env[0].ValueFrom.FieldRef.APIVersion }, "v1"},
		{"a volume without a kind is empty", "spec: {volumes: [{name: v}]}",
			func(p *corev1.Pod) any { return p.Spec.Volumes[0].EmptyDir != nil }, true},
		{"a path of the node is of no particular kind", "spec: {volumes: [{name: v, hostPath: {path: /x}}]}",
			func(p *corev1.Pod) any { return *p.Spec.Volumes[0].HostPath.Type }, corev1.HostPathUnset},
		{"files of a secret are readable by all", "spec: {volumes: [{name: v, secret: {secretName: s}}]}",
			func(p *corev1.Pod) any { return *p.Spec.Volumes[0].Secret.DefaultMode }, int32(0o644)},
		{"a projected token lives for an hour", "spec: {volumes: [{name: v, projected: {sources: [{serviceAccountToken: {path: t}}]}}]}",
			func(p *corev1.Pod) any {
				return *p.Spec.Volumes[0].Projected.Sources[0].ServiceAccountToken.ExpirationSeconds
			}, int64(3600)},
		{"a negative grace period is one second", "spec: {terminationGracePeriodSeconds: -5}",
			func(p *corev1.Pod) any { return *p.Spec.TerminationGracePeriodSeconds }, int64(1)},
		{"the one address is the first of the list", "status: {podIP: 10.0.0.1}",
			func(p *corev1.Pod) any { return p.Status.PodIPs }, []corev1.PodIP{{IP: "10.0.0.1"}}},
		{"the one address wins over the list", "status: {podIP: 10.0.0.1, podIPs: [{ip: 10.0.0.2}]}",
			func(p *corev1.Pod) any { return p.Status.PodIPs }, []corev1.PodIP{{IP: "10.0.0.1"}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			if diff := cmp.Diff(c.want, c.read(manifest(t, c.change))); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func TestTemplatesGetFewerDefaultsThanPods(t *testing.T) {
	t.Parallel()
	template := &corev1.PodTemplateSpec{Spec: corev1.PodSpec{HostNetwork: true, Containers: []corev1.Container{{
		Image: "nginx:1.25", Ports: []corev1.ContainerPort{{ContainerPort: 80}},
	}}}}
	SetTemplateDefaults(template)
	if template.Spec.EnableServiceLinks != nil || template.Spec.Containers[0].Ports[0].HostPort != 0 {
		t.Errorf("a template got the defaults of a pod: %+v", template.Spec)
	}
	if template.Spec.DNSPolicy != corev1.DNSClusterFirst {
		t.Errorf("a template lacks the defaults of a pod spec: %+v", template.Spec)
	}
}

func TestQualityOfService(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, change string
		want         corev1.PodQOSClass
	}{
		{"a pod that asks for nothing is BestEffort", "{}", corev1.PodQOSBestEffort},
		{"a pod that gets exactly what it asks for is Guaranteed", `spec: {containers: [{name: c, image: i, resources: {limits: {cpu: "1", memory: 1Gi}}}]}`, corev1.PodQOSGuaranteed},
		{"a pod that may get more than it asks for is Burstable", `spec: {containers: [{name: c, image: i, resources: {requests: {cpu: "1"}, limits: {cpu: "2"}}}]}`, corev1.PodQOSBurstable},
		{"a limit of memory alone is Burstable", "spec: {containers: [{name: c, image: i, resources: {limits: {memory: 1Gi}}}]}", corev1.PodQOSBurstable},
		{"one container that asks for nothing makes a pod Burstable", `spec: {containers: [{name: c, image: i, resources: {limits: {cpu: "1", memory: 1Gi}}}, {name: d, image: i}]}`, corev1.PodQOSBurstable},
		{"an amount of zero asks for nothing", `spec: {containers: [{name: c, image: i, resources: {requests: {cpu: "0"}}}]}`, corev1.PodQOSBestEffort},
		{"pod-level resources decide alone", `spec: {resources: {limits: {cpu: "1", memory: 1Gi}}}`, corev1.PodQOSGuaranteed},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			if got := created(t, c.change).Status.QOSClass; got != c.want {
				t.Errorf("class is %s, want %s", got, c.want)
			}
		})
	}
}

func TestANewPodIsPendingInItsFirstGeneration(t *testing.T) {
	t.Parallel()
	pod := created(t, "status: {phase: Running, podIP: 10.0.0.1}")
	if pod.Status.Phase != corev1.PodPending || pod.Status.PodIP != "" || pod.Generation != 1 {
		t.Errorf("a new pod is %s with address %q in generation %d", pod.Status.Phase, pod.Status.PodIP, pod.Generation)
	}
}

func TestAGatedPodSaysWhyItIsNotScheduled(t *testing.T) {
	t.Parallel()
	pod, now := manifest(t, "spec: {schedulingGates: [{name: example.com/wait}]}"), metav1.Unix(1000, 0)
	PrepareForCreate(pod, now)
	want := []corev1.PodCondition{{
		Type: corev1.PodScheduled, Status: corev1.ConditionFalse, Reason: "SchedulingGated",
		Message: "Scheduling is blocked due to non-empty scheduling gates", LastTransitionTime: now,
	}}
	if diff := cmp.Diff(want, pod.Status.Conditions); diff != "" {
		t.Errorf("conditions (-want +got):\n%s", diff)
	}
}

func TestFieldsOfFeaturesThatAreOffAreDropped(t *testing.T) {
	t.Parallel()
	pod := created(t, `spec: {evictionResponders: [{name: a.b/c}], containers: [{name: c, image: i, volumeMounts: [{name: v, mountPath: /v, bindMountOptions: [noexec]}]}], volumes: [{name: v, emptyDir: {mode: 511}}]}`)
	c := pod.Spec.Containers[0]
	if pod.Spec.EvictionResponders != nil || c.VolumeMounts[0].BindMountOptions != nil || pod.Spec.Volumes[0].EmptyDir.Mode != nil {
		t.Errorf("something was kept: %+v", pod.Spec)
	}
}

func TestLabelKeysBecomeExpressions(t *testing.T) {
	t.Parallel()
	pod := created(t, `
metadata: {labels: {pod-template-hash: abc}}
spec:
  topologySpreadConstraints:
  - {maxSkew: 1, topologyKey: z, whenUnsatisfiable: DoNotSchedule, labelSelector: {matchLabels: {a: b}}, matchLabelKeys: [pod-template-hash, absent]}
`)
	want := []metav1.LabelSelectorRequirement{{Key: "pod-template-hash", Operator: metav1.LabelSelectorOpIn, Values: []string{"abc"}}}
	if diff := cmp.Diff(want, pod.Spec.TopologySpreadConstraints[0].LabelSelector.MatchExpressions); diff != "" {
		t.Errorf("expressions (-want +got):\n%s", diff)
	}
}
