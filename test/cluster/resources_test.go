package cluster

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// testResources asks for amounts, changes them while the pod runs, and asks for too much.
func testResources(t *testing.T, h *Host) {
	manifest := filepath.Join(t.TempDir(), "pods.yaml")
	text := `apiVersion: v1
kind: Pod
metadata: {name: sized}
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - {name: c, image: busybox, command: [sleep, "3600"], resources: {requests: {cpu: 100m, memory: 32Mi}, limits: {cpu: 200m, memory: 64Mi}}}
---
apiVersion: v1
kind: Pod
metadata: {name: whole}
spec:
  terminationGracePeriodSeconds: 1
  resources: {requests: {cpu: 100m, memory: 48Mi}, limits: {cpu: 300m, memory: 96Mi}}
  containers:
  - {name: a, image: busybox, command: [sleep, "3600"]}
  - {name: b, image: busybox, command: [sleep, "3600"], resources: {limits: {memory: 40Mi}}}
`
	if err := os.WriteFile(manifest, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	h.Kubectl("apply", "-f", manifest)
	h.Kubectl("wait", "--for=condition=Ready", "pod/sized", "pod/whole", "--timeout=60s")
	is := func(pod, path, want string) {
		t.Helper()
		h.Eventually(30*time.Second, want, "get", "pod", pod, "-o", "jsonpath=<{"+path+"}>")
	}
	is("sized", ".status.qosClass", "<Burstable>")
	is("whole", ".status.resources.limits.memory", "<96Mi>")
	is("whole", ".status.allocatedResources.cpu", "<100m>")
	started := h.Kubectl("get", "pod", "sized", "-o", "jsonpath={.status.containerStatuses[0].containerID}")
	resize := func(pod, patch string) (string, error) {
		return h.TryKubectl("patch", "pod", pod, "--subresource", "resize", "--patch", `{"spec":`+patch+`}`)
	}
	if said, err := resize("sized", `{"containers":[{"name":"c","resources":{"requests":{"cpu":"150m"},"limits":{"cpu":"400m","memory":"128Mi"}}}]}`); err != nil || !strings.Contains(said, "pod/sized patched") {
		t.Fatalf("resize: %s, %v", said, err)
	}
	is("sized", ".status.containerStatuses[0].resources.limits.memory", "<128Mi>")
	is("sized", ".status.containerStatuses[0].allocatedResources.cpu", "<150m>")
	is("sized", ".status.observedGeneration", "<2>")
	h.Eventually(20*time.Second, "Pod resize completed: {", "get", "events", "--field-selector", "involvedObject.name=sized,reason=ResizeCompleted", "-o", "jsonpath={.items[*].message}")
	if now := h.Kubectl("get", "pod", "sized", "-o", "jsonpath={.status.containerStatuses[0].containerID} {.status.containerStatuses[0].restartCount}"); now != started+" 0" {
		t.Errorf("the container was restarted: %s, it was %s", now, started)
	}
	if _, err := resize("whole", `{"resources":{"limits":{"memory":"120Mi"}}}`); err != nil {
		t.Errorf("resize of a whole pod: %v", err)
	}
	is("whole", ".status.resources.limits.memory", "<120Mi>")

	for patch, want := range map[string]string{
		`{"containers":[{"name":"c","resources":{"requests":{"cpu":"900"},"limits":{"cpu":"900"}}}]}`: "node didn't have enough allocatable resources: cpu, requested: 900000, allocatable: ",
		`{"containers":[{"name":"c","resources":{"requests":{"memory":"1Gi"}}}]}`:                     "must be less than or equal to memory limit",
		`{"containers":[{"name":"c","resources":{"requests":{"cpu":"400m","memory":"128Mi"}}}]}`:      "Pod QOS Class may not change as a result of resizing",
		`{"containers":[{"name":"c","resources":{"limits":{"ephemeral-storage":"1Gi"}}}]}`:            "only cpu and memory resources are mutable",
	} {
		if said, err := resize("sized", patch); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("resize %s: %s, %v; want %q", patch, said, err, want)
		}
	}
	h.Kubectl("delete", "-f", manifest, "--now")
}
