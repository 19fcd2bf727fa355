package cluster

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// testBundle gathers a bundle of a cluster that runs: it is whole, and has no key.
func testBundle(t *testing.T, h *Host) {
	dir := t.TempDir()
	file := filepath.Join(dir, "report.tar.gz")
	said := h.Skiff("bundle", "--root", h.Root, "-o", file, "--all-namespaces")
	if info, err := os.Stat(file); err != nil || info.Mode().Perm() != 0o600 {
		t.Fatalf("the archive: %v, %v\n%s", info, err, said)
	}
	h.Run("tar", "-xzf", file, "-C", dir)
	read := func(name string) string {
		data, err := os.ReadFile(filepath.Join(dir, "report", name))
		if err != nil {
			t.Errorf("%v\nit says: %s", err, said)
		}
		return string(data)
	}
	for name, want := range map[string]string{
		"README": "cluster/pods.json", "cluster/nodes.json": h.Name, "cluster/status.json": "\"healthy\": true", "cluster/pods.json": "\"phase\": \"Running\"",
		"cluster/health.txt": "readyz check passed", "check.json": "findings", "certificates.json": "apiserver", "configuration.txt": "kind: AgentConfiguration",
		"daemons/control-metrics.txt": "apiserver_request_total", "daemons/agent-metrics.txt": "# HELP", "daemons/proxy-metrics.txt": "# HELP",
		"daemons/control-goroutines.txt": "goroutine profile", "daemons/agent-goroutines.txt": "goroutine profile", "logs/agent.log": "agent starts", "network/nft.txt": "table",
		"containerd/containers.txt": "nginx",
	} {
		if content := read(name); !strings.Contains(content, want) {
			t.Errorf("%s does not have %q; missing:\n%s", name, want, read("errors.txt"))
		}
	}
	// What this machine has no program for may be missing, not what the API serves.
	if missing := read("errors.txt"); strings.Contains(missing, "cluster/") {
		t.Errorf("missing of a cluster that runs:\n%s", missing)
	}
	key, err := os.ReadFile(filepath.Join(h.Root, "etc/skiff/pki/ca.key"))
	if err != nil {
		t.Fatal(err)
	}
	body := strings.Split(string(key), "\n")[1]
	if found, err := h.Try("grep", "-rlE", "PRIVATE KEY|"+strings.NewReplacer("+", "\\+").Replace(body), filepath.Join(dir, "report")); err == nil {
		t.Errorf("a key is in %s", found)
	}
}
