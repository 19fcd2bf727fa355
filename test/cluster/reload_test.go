package cluster

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/skiff-run/skiff/internal/config"
	"github.com/skiff-run/skiff/internal/testenv"
)

// testReload changes drop-ins while the daemons run.
func testReload(t *testing.T, h *Host) {
	dropIn := func(daemon, kind, content string) string {
		t.Helper()
		file := filepath.Join(h.Root, "etc/skiff", daemon+".d", "50-test.yaml")
		if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte("apiVersion: "+config.APIVersion+"\nkind: "+kind+"\n"+content), 0o600); err != nil {
			t.Fatal(err)
		}
		return file
	}
	reload := func() { h.Run("kill", "-HUP", h.PID("up")) }
	log := func(daemon string) string {
		data, err := os.ReadFile(filepath.Join(h.Root, "var/log/skiff", daemon+".log"))
		if err != nil {
			t.Fatal(err)
		}
		return string(data)
	}
	says := func(daemon, text string) {
		t.Helper()
		testenv.Eventually(t, 20*time.Second, func() bool { return strings.Contains(log(daemon), text) }, "the log of %s does not say %q", daemon, text)
	}
	pods := "jsonpath={.status.allocatable.pods}"
	before := []string{h.PID("control"), h.PID("agent"), h.PID("proxy")}
	files := []string{
		dropIn("agent", config.AgentKind, "maxPods: 77\nbridge: other0\n"),
		dropIn("proxy", config.ProxyKind, "dns: {stubDomains: {corp.example: \"192.0.2.53:53\"}}\n"),
		dropIn("control", config.ControlKind, "loadBalancerPool: [192.0.2.100-192.0.2.110]\n"),
	}
	reload()
	h.Eventually(20*time.Second, "77", "get", "node", h.Name, "-o", pods)
	says("agent", "applied=[maxPods] waitingForRestart=[bridge]")
	says("proxy", "applied=[dns.stubDomains] waitingForRestart=[]")
	says("control", "applied=[loadBalancerPool] waitingForRestart=[]")
	h.Kubectl("create", "service", "loadbalancer", "balanced", "--tcp=80")
	h.Eventually(20*time.Second, "192.0.2.1", "get", "service", "balanced", "-o", "jsonpath={.status.loadBalancer.ingress[0].ip}")
	h.Kubectl("delete", "service", "balanced")

	dropIn("agent", config.AgentKind, "maxPods: 78\nmaxPod: 1\n")
	reload()
	says("up", "field maxPod not found")
	if got := h.Kubectl("get", "node", h.Name, "-o", pods); got != "77" {
		t.Errorf("a broken file changed the node to %s pods", got)
	}
	for _, file := range files {
		if err := os.Remove(file); err != nil {
			t.Fatal(err)
		}
	}
	reload()
	h.Eventually(20*time.Second, "110", "get", "node", h.Name, "-o", pods)
	if after := []string{h.PID("control"), h.PID("agent"), h.PID("proxy")}; strings.Join(after, " ") != strings.Join(before, " ") {
		t.Errorf("daemons were restarted: %v, then %v", before, after)
	}
}
