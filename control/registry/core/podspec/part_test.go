package podspec

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
)

const resizablePod = `spec: {containers: [{name: c, image: "nginx:1.25", resources: {requests: {cpu: 100m, memory: 64Mi}}}], initContainers: [{name: i, image: "busybox:1"}]}`

func TestResizes(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, change string
		want         []string
	}{
		{"a container can get more cpu", `spec: {containers: [{name: c, image: "nginx:1.25", resources: {requests: {cpu: 200m, memory: 64Mi}}}]}`, nil},
		{"everything else stays as it was", `spec: {containers: [{name: c, image: "other:1", command: [x], resources: {requests: {cpu: 200m, memory: 64Mi}}}], restartPolicy: Never}`, nil},
		{"a request cannot be removed", `spec: {containers: [{name: c, image: "nginx:1.25", resources: {requests: {cpu: 200m}}}]}`, []string{
			"spec.containers[0].resources.requests: Forbidden: resource requests cannot be removed",
		}},
		{"other resources cannot be resized", `spec: {containers: [{name: c, image: "nginx:1.25", resources: {requests: {cpu: 100m, memory: 64Mi, ephemeral-storage: 1Gi}}}]}`, []string{
			"spec: Forbidden: only cpu and memory resources are mutable",
		}},
		{"the quality of service stays", `spec: {containers: [{name: c, image: "nginx:1.25", resources: {requests: {cpu: 100m, memory: 64Mi}, limits: {cpu: 100m, memory: 64Mi}}}], initContainers: [{name: i, image: "busybox:1", resources: {limits: {cpu: 100m, memory: 64Mi}}}]}`, []string{
			`spec: Invalid value: "Burstable": Pod QOS Class may not change as a result of resizing`,
		}},
		{"a container cannot be added", `spec: {containers: [{name: c, image: "nginx:1.25"}, {name: d, image: "nginx:1.25"}]}`, []string{
			`spec: Invalid value: "Burstable": Pod QOS Class may not change as a result of resizing`,
			"spec.containers: Forbidden: containers may not be added or removed on resize",
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			old := created(t, resizablePod)
			pod := updated(t, old, resizablePod, c.change)
			pod.Status = old.Status
			before := old.DeepCopy()
			PrepareForResize(pod, old)
			if diff := cmp.Diff(c.want, messages(ValidateResize(pod, old))); diff != "" {
				t.Errorf("messages (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(before, old); diff != "" {
				t.Errorf("the old pod, which others read, was changed:\n%s", diff)
			}
		})
	}
}

func TestEphemeralContainers(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, change string
		want         []string
	}{
		{"one can be added", "{name: new, image: busybox, targetContainerName: c, stdin: true}", nil},
		{"its name is its own", "{name: c, image: busybox}", []string{`spec.ephemeralContainers[1].name: Duplicate value: "c"`}},
		{"its target exists", "{name: new, image: busybox, targetContainerName: x}", []string{`spec.ephemeralContainers[1].targetContainerName: Not found: "x"`}},
		{"it has no ports, resources or probes", "{name: new, image: busybox, ports: [{containerPort: 80}], resources: {limits: {cpu: 1}}, livenessProbe: {exec: {command: [x]}}}", []string{
			"spec.ephemeralContainers[1].ports: Forbidden: cannot be set for an Ephemeral Container",
			"spec.ephemeralContainers[1].resources: Forbidden: cannot be set for an Ephemeral Container",
			"spec.ephemeralContainers[1].livenessProbe: Forbidden: cannot be set for an Ephemeral Container",
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			const first = "spec: {ephemeralContainers: [{name: old, image: busybox}"
			old := created(t)
			old.Spec.EphemeralContainers = manifest(t, first+"]}").Spec.EphemeralContainers
			pod := updated(t, old, first+", "+c.change+"]}", "spec: {nodeName: elsewhere}")
			PrepareForEphemeralContainersUpdate(pod, old)
			if pod.Spec.NodeName != "" || pod.Generation != 2 {
				t.Errorf("node %q, generation %d: want no node and generation 2", pod.Spec.NodeName, pod.Generation)
			}
			if diff := cmp.Diff(c.want, messages(ValidateEphemeralContainersUpdate(pod, old))); diff != "" {
				t.Errorf("messages (-want +got):\n%s", diff)
			}
		})
	}
}

func TestAnEphemeralContainerStays(t *testing.T) {
	t.Parallel()
	old := created(t)
	old.Spec.EphemeralContainers = []corev1.EphemeralContainer{{EphemeralContainerCommon: corev1.EphemeralContainerCommon{Name: "old"}}}
	pod := updated(t, old)
	PrepareForEphemeralContainersUpdate(pod, old)
	want := []string{"spec.ephemeralContainers: Forbidden: existing ephemeral containers \"old\" may not be removed\n"}
	if diff := cmp.Diff(want, messages(ValidateEphemeralContainersUpdate(pod, old))); diff != "" {
		t.Errorf("messages (-want +got):\n%s", diff)
	}
}

func TestWarnings(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, change string
		want         []string
	}{
		{"the smallest pod is fine", "{}", nil},
		{"a variable hides another", `spec: {containers: [{name: c, image: i, env: [{name: A, value: x}, {name: A, value: "$(A)y"}, {name: A, value: z}]}]}`, []string{
			`spec.containers[0].env[2]: hides previous definition of "A", which may be dropped when using apply`,
		}},
		{"two containers listen on one port", "spec: {containers: [{name: c, image: i, ports: [{containerPort: 80}]}, {name: d, image: i, ports: [{containerPort: 80}]}]}", []string{
			"spec.containers[1].ports[0]: duplicate port definition with spec.containers[0].ports[0]",
		}},
		{"a node label has a new name", "spec: {nodeSelector: {beta.kubernetes.io/os: linux}}", []string{
			`spec.nodeSelector[beta.kubernetes.io/os]: deprecated since v1.14; use "kubernetes.io/os" instead`,
		}},
		{"a byte is whole", "spec: {containers: [{name: c, image: i, resources: {requests: {memory: 1.5}}}]}", []string{
			`spec.containers[0].resources.requests[memory]: fractional byte value "1500m" is invalid, must be an integer`,
		}},
		{"one file lies in another", "spec: {volumes: [{name: v, configMap: {name: m, items: [{key: a, path: x}, {key: b, path: x/y}]}}]}", []string{
			`volume "v" (ConfigMap "m"): overlapping paths: "x/y" with "x"`,
		}},
		{"an old kind of volume does nothing", "spec: {volumes: [{name: v, gitRepo: {repository: r}}]}", []string{
			"spec.volumes[0].gitRepo: deprecated in v1.11, and disabled by default in v1.33+",
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			pod := created(t, c.change)
			if diff := cmp.Diff(c.want, Warnings(nil, &pod.Spec, &pod.ObjectMeta)); diff != "" {
				t.Errorf("warnings (-want +got):\n%s", diff)
			}
		})
	}
}
