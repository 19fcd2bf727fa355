package cluster

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/skiff-run/skiff/internal/testenv"
)

func TestMain(m *testing.M) {
	code := m.Run()
	if err := Clean(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = max(code, 1)
	}
	os.Exit(code)
}

// TestAUserWalksThroughACluster is what the README promises, typed by hand.
func TestAUserWalksThroughACluster(t *testing.T) {
	h := NewHost(t, "skiff-walk")
	mirror := h.Registry()
	before := h.traces()
	if said := h.Up("--registry-config-dir", mirror); !strings.Contains(said, "export KUBECONFIG=") {
		t.Fatalf("up says %q", said)
	}

	t.Run("a deployment comes up", func(t *testing.T) {
		h.Kubectl("create", "deployment", "web", "--image=nginx:1.25", "--replicas=3")
		h.Kubectl("rollout", "status", "deployment/web", "--timeout=90s")
		if pods := h.Kubectl("get", "pods", "-o", "wide"); strings.Count(pods, "Running") != 3 || !strings.Contains(pods, "NOMINATED NODE") {
			t.Errorf("pods:\n%s", pods)
		}
		for _, reason := range []string{"Scheduled", "Pulling", "Pulled", "Created", "Started", "ScalingReplicaSet", "SuccessfulCreate"} {
			h.Eventually(20*time.Second, reason, "get", "events")
		}
		if told := h.Kubectl("describe", "deployment", "web"); !strings.Contains(told, "deployment-controller") {
			t.Errorf("describe:\n%s", told)
		}
	})
	t.Run("its service answers by address and by name", func(t *testing.T) {
		h.Kubectl("expose", "deployment", "web", "--port=80")
		h.Kubectl("run", "bare", "--image=busybox", "--", "sleep", "3600")
		h.Kubectl("wait", "--for=condition=Ready", "pod/bare", "--timeout=60s")
		address := h.Kubectl("get", "service", "web", "-o", "jsonpath={.spec.clusterIP}")
		h.Eventually(20*time.Second, "Welcome to nginx!", "exec", "bare", "--", "wget", "-q", "-O-", "http://"+address)
		h.Eventually(20*time.Second, "Welcome to nginx!", "exec", "bare", "--", "wget", "-q", "-O-", "http://web")
		testenv.Eventually(t, 20*time.Second, func() bool {
			page, err := h.Try("curl", "-s", "-m", "2", "http://"+address)
			return err == nil && strings.Contains(page, "Welcome to nginx!")
		}, "the cluster address does not answer on the node")
	})
	t.Run("it is scaled, updated and rolled back", func(t *testing.T) {
		h.Kubectl("scale", "deployment", "web", "--replicas=5")
		h.Kubectl("rollout", "status", "deployment/web", "--timeout=60s")
		h.Kubectl("set", "image", "deployment/web", "nginx=nginx:1.26")
		h.Kubectl("rollout", "status", "deployment/web", "--timeout=90s")
		if history := h.Kubectl("rollout", "history", "deployment/web"); !strings.Contains(history, "2") {
			t.Errorf("history:\n%s", history)
		}
		h.Kubectl("rollout", "undo", "deployment/web")
		h.Kubectl("rollout", "status", "deployment/web", "--timeout=90s")
		if image := h.Kubectl("get", "deployment", "web", "-o", "jsonpath={.spec.template.spec.containers[0].image}"); image != "nginx:1.25" {
			t.Errorf("image %s", image)
		}
	})
	t.Run("a deleted pod is replaced", func(t *testing.T) {
		name := h.Kubectl("get", "pods", "-l", "app=web", "-o", "jsonpath={.items[0].metadata.name}")
		h.Kubectl("delete", "pod", name, "--wait=false")
		testenv.Eventually(t, 20*time.Second, func() bool {
			names := h.Kubectl("get", "pods", "-l", "app=web", "--field-selector=status.phase=Running", "-o", "name")
			return strings.Count(names, "pod/") >= 5 && !strings.Contains(names, name)
		}, "no replacement")
	})
	t.Run("logs, exec and cp", func(t *testing.T) {
		h.Kubectl("run", "chatty", "--image=busybox", "--restart=Never", "--", "sh", "-c", "echo hello; sleep 3600")
		h.Kubectl("wait", "--for=condition=Ready", "pod/chatty", "--timeout=60s")
		h.Eventually(10*time.Second, "hello", "logs", "chatty")
		if got := h.Kubectl("exec", "chatty", "--", "hostname"); strings.TrimSpace(got) != "chatty" {
			t.Errorf("hostname %q", got)
		}
		file := filepath.Join(t.TempDir(), "note")
		if err := os.WriteFile(file, []byte("carried over"), 0o600); err != nil {
			t.Fatal(err)
		}
		h.Kubectl("cp", file, "chatty:/tmp/note")
		if got := h.Kubectl("exec", "chatty", "--", "cat", "/tmp/note"); got != "carried over" {
			t.Errorf("copied %q", got)
		}
		if _, err := h.TryKubectl("exec", "chatty", "--", "sh", "-c", "exit 7"); err == nil || !strings.Contains(err.Error(), "exit code 7") {
			t.Errorf("exit code: %v", err)
		}
	})
	t.Run("what goes wrong is said as Kubernetes says it", func(t *testing.T) {
		h.Kubectl("run", "crash", "--image=busybox", "--", "sh", "-c", "exit 1")
		h.Eventually(60*time.Second, "CrashLoopBackOff", "get", "pods")
		h.Eventually(20*time.Second, "BackOff", "get", "events")
		h.Kubectl("run", "wrong", "--image=nosuchimage:none")
		h.Eventually(60*time.Second, "ImagePullBackOff", "get", "pod", "wrong")
		h.Kubectl("run", "huge", "--image=busybox", "--overrides", `{"spec":{"containers":[{"name":"huge","image":"busybox","resources":{"requests":{"cpu":"1000"}}}]}}`)
		h.Eventually(20*time.Second, "0/1 nodes are available: 1 Insufficient cpu.", "describe", "pod", "huge")
		manifest := filepath.Join(t.TempDir(), "bad.yaml")
		if err := os.WriteFile(manifest, []byte("apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: bad}\nspec:\n  selector: {matchLabels: {a: b}}\n  template:\n    metadata: {labels: {a: c}}\n    spec: {containers: [{name: c}]}\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := h.TryKubectl("apply", "-f", manifest)
		if err == nil || !strings.Contains(err.Error(), "`selector` does not match template `labels`") || !strings.Contains(err.Error(), "spec.template.spec.containers[0].image: Required value") {
			t.Errorf("a wrong manifest: %v", err)
		}
	})
	t.Run("daemons are killed and nobody notices", func(t *testing.T) {
		started := func() string {
			return h.Kubectl("get", "pod", "chatty", "-o", "jsonpath={.status.containerStatuses[0].state.running.startedAt} {.status.containerStatuses[0].restartCount}")
		}
		first := started()
		for _, daemon := range []string{"agent", "control", "proxy"} {
			old := h.PID(daemon)
			h.must("kill", "-9", old)
			testenv.Eventually(t, 30*time.Second, func() bool {
				data, err := os.ReadFile(filepath.Join(h.Root, "run/skiff/up", daemon+".pid"))
				return err == nil && strings.TrimSpace(string(data)) != old
			}, "%s is not started again", daemon)
		}
		h.Eventually(60*time.Second, "Ready", "get", "nodes")
		h.Kubectl("scale", "deployment", "web", "--replicas=2")
		h.Kubectl("rollout", "status", "deployment/web", "--timeout=90s")
		if again := started(); again != first {
			t.Errorf("the container was restarted: %s, then %s", first, again)
		}
	})
	t.Run("down leaves nothing and up finds everything", func(t *testing.T) {
		h.Skiff("down", "--root", h.Root)
		if after := h.traces(); after != before {
			t.Errorf("left behind:\n%s\nbefore:\n%s", after, before)
		}
		h.Up("--registry-config-dir", mirror)
		h.Kubectl("rollout", "status", "deployment/web", "--timeout=90s")
		h.Eventually(60*time.Second, "Running", "get", "pod", "bare")
	})
}

// traces are the links, rules, mounts, cgroups and processes of the host.
func (h *Host) traces() string {
	h.t.Helper()
	var out strings.Builder
	out.WriteString(h.Run("ip", "-o", "link"))
	out.WriteString(h.Run("nft", "list", "ruleset"))
	mounts, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		h.t.Fatal(err)
	}
	for _, line := range strings.Split(string(mounts), "\n") {
		if strings.Contains(line, h.Root) {
			out.WriteString("mount " + line + "\n")
		}
	}
	processes, err := exec.Command("pgrep", "-fa", h.Root).Output()
	if err == nil {
		for _, line := range strings.Split(string(processes), "\n") {
			if strings.Contains(line, "skiff-") || strings.Contains(line, "containerd") {
				out.WriteString("process " + line + "\n")
			}
		}
	}
	return out.String()
}
