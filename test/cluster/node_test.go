package cluster

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	metrics "k8s.io/metrics/pkg/apis/metrics/v1beta1"

	"github.com/skiff-run/skiff/internal/testenv"
)

// testNode asks what people ask of a node: what is used, logs in all forms, static
// pods and runtime classes.
func testNode(t *testing.T, h *Host) {
	t.Run("kubectl top", func(t *testing.T) {
		h.Eventually(2*time.Minute, h.Name, "top", "nodes", "--no-headers")
		h.Eventually(2*time.Minute, "bare", "top", "pods", "--no-headers")
		if said := h.Kubectl("top", "pod", "bare", "--containers", "--no-headers"); len(strings.Fields(said)) != 4 || !strings.HasSuffix(strings.TrimSpace(said), "Mi") {
			t.Errorf("top pod --containers: %q", said)
		}
		var pod metrics.PodMetrics
		if err := json.Unmarshal([]byte(h.Kubectl("get", "--raw", "/apis/metrics.k8s.io/v1beta1/namespaces/default/pods/bare")), &pod); err != nil {
			t.Fatal(err)
		}
		if len(pod.Containers) != 1 || pod.Containers[0].Usage.Memory().IsZero() || pod.Labels["run"] != "bare" || pod.Window.Duration < time.Second || time.Since(pod.Timestamp.Time) > time.Minute {
			t.Errorf("metrics of the pod bare: %+v", pod)
		}
		if said := h.Kubectl("top", "pods", "-l", "run=bare", "--no-headers"); strings.Count(said, "\n") != 1 {
			t.Errorf("top pods of one label: %q", said)
		}
		if said := h.Kubectl("get", "pods.metrics.k8s.io", "bare"); !strings.Contains(said, "WINDOW") {
			t.Errorf("metrics as a table: %q", said)
		}
		h.Kubectl("create", "serviceaccount", "viewer")
		h.Kubectl("create", "rolebinding", "viewer", "--clusterrole=view", "--serviceaccount=default:viewer")
		h.Eventually(20*time.Second, "yes", "auth", "can-i", "list", "pods.metrics.k8s.io", "--as=system:serviceaccount:default:viewer")
	})
	t.Run("logs in all forms", func(t *testing.T) {
		h.Kubectl("run", "lines", "--image=busybox", "--restart=Never", "--", "sh", "-c", "for i in 1 2 3 4 5; do echo out $i; done; sleep 0.2; echo wrong >&2; sleep 3600")
		h.Eventually(time.Minute, "wrong", "logs", "lines")
		for _, tc := range []struct {
			arguments []string
			want      string
		}{
			{[]string{"--tail=2"}, "out 5\nwrong\n"}, {[]string{"--tail=0"}, ""}, {[]string{"--limit-bytes=8"}, "out 1\nou"}, {[]string{"--since=1h", "--tail=1"}, "wrong\n"},
			{[]string{"--since-time=2200-01-01T00:00:00Z"}, ""},
		} {
			if got := h.Kubectl(append([]string{"logs", "lines"}, tc.arguments...)...); got != tc.want {
				t.Errorf("logs %v: %q, want %q", tc.arguments, got, tc.want)
			}
		}
		stamp, text, _ := strings.Cut(h.Kubectl("logs", "lines", "--timestamps", "--tail=1"), " ")
		if _, err := time.Parse(time.RFC3339Nano, stamp); err != nil || text != "wrong\n" {
			t.Errorf("logs with time stamps: %q %q", stamp, text)
		}
		for stream, want := range map[string]string{"Stderr": "wrong\n", "Stdout": "out 1\nout 2\nout 3\nout 4\nout 5\n"} {
			if got := h.Kubectl("get", "--raw", "/api/v1/nodes/"+h.Name+"/proxy/containerLogs/default/lines/lines?stream="+stream); got != want {
				t.Errorf("the stream %s: %q, want %q", stream, got, want)
			}
		}
		if _, err := h.TryKubectl("logs", "lines", "--previous"); err == nil || !strings.Contains(err.Error(), `previous terminated container "lines" in pod "lines" not found`) {
			t.Errorf("a container that has no previous one: %v", err)
		}
		h.Kubectl("delete", "pod", "lines", "--now")
	})
	t.Run("static pods", func(t *testing.T) {
		file := filepath.Join(h.Root, "etc/skiff/pods/fixed.yaml")
		write := func(seconds string) {
			t.Helper()
			text := "apiVersion: v1\nkind: Pod\nmetadata: {name: fixed}\nspec:\n  terminationGracePeriodSeconds: 1\n  containers: [{name: c, image: busybox, command: [sleep, '" + seconds + "']}]\n"
			if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		name := "fixed-" + h.Name
		ask := func(path string) string {
			said, err := h.TryKubectl("get", "pod", name, "-o", "jsonpath="+path)
			if err != nil {
				return ""
			}
			return said
		}
		write("3600")
		h.Eventually(time.Minute, "True", "get", "pod", name, "-o", `jsonpath={.status.conditions[?(@.type=="Ready")].status}`)
		uid, id := ask("{.metadata.uid}"), ask("{.status.containerStatuses[0].containerID}")
		if owner := ask("{.metadata.ownerReferences[0].kind}/{.metadata.ownerReferences[0].name}"); owner != "Node/"+h.Name {
			t.Errorf("the mirror's owner is %s", owner)
		}
		h.Kubectl("delete", "pod", name)
		testenv.Eventually(t, time.Minute, func() bool {
			again := ask("{.metadata.uid}")
			return again != "" && again != uid && ask("{.status.containerStatuses[0].containerID}") == id
		}, "a deleted mirror comes again, and the pod runs on")
		write("3601")
		testenv.Eventually(t, time.Minute, func() bool {
			again := ask("{.status.containerStatuses[0].containerID}")
			return again != "" && again != id && ask("{.status.phase}") == "Running"
		}, "a changed manifest is another pod")
		if err := os.Remove(file); err != nil {
			t.Fatal(err)
		}
		testenv.Eventually(t, time.Minute, func() bool {
			_, err := h.TryKubectl("get", "pod", name)
			return err != nil && strings.Contains(err.Error(), "NotFound")
		}, "without its manifest the pod is gone")
	})
	t.Run("runtime classes", func(t *testing.T) {
		manifest := filepath.Join(t.TempDir(), "class.yaml")
		if err := os.WriteFile(manifest, []byte("apiVersion: node.k8s.io/v1\nkind: RuntimeClass\nmetadata: {name: kata}\nhandler: kata\noverhead: {podFixed: {memory: 64Mi}}\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		h.Kubectl("apply", "-f", manifest)
		if said := h.Kubectl("get", "runtimeclass"); !strings.Contains(said, "HANDLER") || !strings.Contains(said, "kata") {
			t.Errorf("get runtimeclass: %q", said)
		}
		run := func(name, class string) error {
			_, err := h.TryKubectl("run", name, "--image=busybox", "--overrides", `{"spec":{"runtimeClassName":"`+class+`"}}`, "--", "sleep", "3600")
			return err
		}
		if err := run("classless", "none"); err == nil || !strings.Contains(err.Error(), `pods "classless" is forbidden: pod rejected: RuntimeClass "none" not found`) {
			t.Errorf("a pod of a class that does not exist: %v", err)
		}
		if err := run("sandboxed", "kata"); err != nil {
			t.Fatal(err)
		}
		if overhead := h.Kubectl("get", "pod", "sandboxed", "-o", "jsonpath={.spec.overhead.memory}"); overhead != "64Mi" {
			t.Errorf("overhead %q", overhead)
		}
		h.Eventually(time.Minute, `no runtime for "kata" is configured`, "describe", "pod", "sandboxed")
		h.Kubectl("delete", "pod", "sandboxed", "--now")
	})
}
