package cluster

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
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
	if said := h.Up("--registry-config-dir", mirror); !strings.Contains(said, "export KUBECONFIG=") || !strings.Contains(said, "nftables, DNS at 10.96.0.10") {
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
		name := h.living("app=web")[0]
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
	t.Run("every verb", func(t *testing.T) { testVerbs(t, h) })
	t.Run("kubectl debug", func(t *testing.T) { testDebug(t, h) })
	t.Run("what a node tells and takes", func(t *testing.T) { testNode(t, h) })
	t.Run("settings change without a restart", func(t *testing.T) { testReload(t, h) })
	t.Run("a bundle for a bug report", func(t *testing.T) { testBundle(t, h) })
	t.Run("amounts are given and resized", func(t *testing.T) { testResources(t, h) })
	t.Run("daemons are killed under load and nobody notices", func(t *testing.T) { testKills(t, h) })
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

// counter prints numbered lines, about a thousand a second, until it is told
// to stop.
const counter = "i=0; while [ ! -e /tmp/stop ]; do for j in $(seq 50); do echo count $i; i=$((i+1)); done; sleep 0.05; done; echo end; sleep 3600"

// testKills kills each daemon, the agent several times, while a pod logs and a
// deployment is scaled to and fro.
func testKills(t *testing.T, h *Host) {
	h.Kubectl("run", "counter", "--image=busybox", "--restart=Never", "--", "sh", "-c", counter)
	h.Kubectl("wait", "--for=condition=Ready", "pod/counter", "pod/chatty", "--timeout=120s")
	started := func() string {
		return h.Kubectl("get", "pod", "chatty", "counter", "-o", "jsonpath={range .items[*].status.containerStatuses[0]}{.containerID} {.restartCount}\n{end}")
	}
	first := started()
	for i, daemon := range []string{"agent", "agent", "agent", "control", "proxy"} {
		if _, err := h.TryKubectl("scale", "deployment", "web", "--replicas="+[]string{"6", "2"}[i%2]); err != nil {
			t.Error(err)
		}
		old := h.PID(daemon)
		h.must("kill", "-9", old)
		testenv.Eventually(t, time.Minute, func() bool {
			data, err := os.ReadFile(filepath.Join(h.Root, "run/skiff/up", daemon+".pid"))
			return err == nil && strings.TrimSpace(string(data)) != old
		}, "%s is not started again", daemon)
		h.Eventually(2*time.Minute, "ok", "get", "--raw", "/api/v1/nodes/"+h.Name+"/proxy/healthz")
	}
	h.Kubectl("wait", "--for=condition=Ready", "node/"+h.Name, "--timeout=120s")
	h.Kubectl("scale", "deployment", "web", "--replicas=3")
	h.Kubectl("rollout", "status", "deployment/web", "--timeout=120s")
	if again := started(); again != first {
		t.Errorf("containers were restarted: %s, then %s", first, again)
	}
	h.Kubectl("exec", "counter", "--", "touch", "/tmp/stop")
	h.Eventually(time.Minute, "end", "logs", "counter", "--tail=1")
	lines := h.countLines()
	lines = lines[:max(0, len(lines)-1)]
	for i, line := range lines {
		if want := fmt.Sprintf("count %d", i); line != want {
			t.Fatalf("line %d of %d of the log is %q, want %q", i, len(lines), line, want)
		}
	}
	if len(lines) < 1000 {
		t.Errorf("only %d lines: that is no load", len(lines))
	}
	h.Kubectl("delete", "pod", "counter", "--now")
}

// countLines reads the whole log of the pod counter from its files, rotated
// ones included, in order.
func (h *Host) countLines() []string {
	h.t.Helper()
	files, err := filepath.Glob(filepath.Join(h.Root, "var/log/pods/default_counter_*/counter/0.log*"))
	if err != nil || len(files) == 0 {
		h.t.Fatalf("log files %v: %v", files, err)
	}
	// A rotated file is named after its time, so they sort; the newest has no suffix.
	slices.Sort(files)
	files = append(files[1:], files[0])
	var lines []string
	for _, file := range files {
		data := h.Run("sh", "-c", `case "$1" in *.gz) zcat "$1";; *) cat "$1";; esac`, "sh", file)
		for _, line := range strings.Split(strings.TrimSuffix(data, "\n"), "\n") {
			if fields := strings.SplitN(line, " ", 4); len(fields) == 4 {
				lines = append(lines, fields[3])
			}
		}
	}
	return lines
}

// living are the names of the pods with a label that are not being deleted.
func (h *Host) living(label string) []string {
	h.t.Helper()
	names := strings.Fields(h.Kubectl("get", "pods", "-l", label, "-o", "go-template={{range .items}}{{if not .metadata.deletionTimestamp}}{{.metadata.name}} {{end}}{{end}}"))
	if len(names) == 0 {
		h.t.Fatalf("no pod with the label %s", label)
	}
	return names
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
