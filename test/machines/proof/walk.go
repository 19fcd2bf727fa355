package proof

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/skiff-run/skiff/test/machines/fleet"
)

// box is a pod with a shell on one machine, in a manifest to be formatted with the machine's name.
const box = `---
apiVersion: v1
kind: Pod
metadata: {name: box-%[1]s, labels: {app: box}}
spec:
  nodeSelector: {kubernetes.io/hostname: %[1]s}
  terminationGracePeriodSeconds: 1
  tolerations: [{operator: Exists, effect: NoExecute}] # a virtual machine takes longer to reboot than a node may be away
  containers:
  - name: box
    image: busybox:1.36
    command: [sh, -c, 'echo "I am on $NODE"; exec sleep 100000']
    env: [{name: NODE, valueFrom: {fieldRef: {fieldPath: spec.nodeName}}}]
`

// boxes runs a box on every machine until the test ends.
func boxes(t *testing.T, f *fleet.Fleet) {
	t.Helper()
	var manifest strings.Builder
	for _, m := range f.Machines {
		fmt.Fprintf(&manifest, box, m.Name)
	}
	apply(t, f, manifest.String())
	remove(t, f, "pods", "-l", "app=box")
	kubectl(t, f, "wait", "--for=condition=Ready", "pod", "-l", "app=box", "--timeout=240s")
}

// boxOn is the name of the box on a machine.
func boxOn(m *fleet.Machine) string { return "box-" + m.Name }

// remove deletes what a test made when it ends, and waits until it is gone.
func remove(t *testing.T, f *fleet.Fleet, what ...string) {
	t.Cleanup(func() {
		// The test's context is over by now.
		if _, err := tryKubectl(context.Background(), f, append([]string{"delete", "--now", "--ignore-not-found"}, what...)...); err != nil {
			t.Error(err)
		}
	})
}

// webPort is where every machine serves the service web.
const webPort = 30080

// testWalk is the README's walk, on every machine.
func testWalk(t *testing.T, f *fleet.Fleet) {
	remove(t, f, "deployment/web", "service/web")
	kubectl(t, f, "create", "deployment", "web", "--image=skiff/web:1", "--replicas=3")
	kubectl(t, f, "create", "service", "nodeport", "web", "--tcp=80:8080", fmt.Sprintf("--node-port=%d", webPort))
	boxes(t, f)
	kubectl(t, f, "rollout", "status", "deployment/web", "--timeout=120s")

	t.Run("a deployment is spread over the machines", func(t *testing.T) {
		if got := nodesOf(t, f, "app=web"); !slices.Equal(got, []string{"m1", "m2", "m3"}) {
			t.Errorf("it runs on %v", got)
		}
	})
	addresses := strings.Fields(kubectl(t, f, "get", "pods", "-l", "app=web", "-o", "jsonpath={.items[*].status.podIP}"))
	service := kubectl(t, f, "get", "service", "web", "-o", "jsonpath={.spec.clusterIP}")
	for _, m := range f.Machines {
		t.Run(m.Name, func(t *testing.T) {
			pod := boxOn(m)
			t.Run("pods reach pods on every machine", func(t *testing.T) {
				for _, address := range addresses {
					if said := kubectl(t, f, "exec", pod, "--", "wget", "-q", "-O-", "http://"+address+":8080"); !strings.HasPrefix(said, "web-") {
						t.Errorf("%s says %q", address, said)
					}
				}
			})
			t.Run("names are found, and services by their names", func(t *testing.T) {
				for _, name := range []string{"kubernetes.default.svc.cluster.local", "web.default.svc.cluster.local"} {
					kubectl(t, f, "exec", pod, "--", "nslookup", name)
				}
				says(t, f, 20*time.Second, func(said string) bool { return strings.HasPrefix(said, "web-") },
					"exec", pod, "--", "wget", "-q", "-O-", "http://web.default")
			})
			t.Run("the machine reaches services", func(t *testing.T) {
				said := on(t, m, fmt.Sprintf("python3 -c \"import urllib.request; print(urllib.request.urlopen('http://%s', timeout=5).read().decode())\"", service))
				if !strings.HasPrefix(said, "web-") {
					t.Errorf("the service says %q", said)
				}
			})
			t.Run("others reach services through it", func(t *testing.T) {
				said, err := f.Command(t.Context(), "curl", "-sS", "-m", "5", fmt.Sprintf("http://%s:%d", m.Address, webPort)).CombinedOutput()
				if err != nil || !strings.HasPrefix(string(said), "web-") {
					t.Errorf("the node port says %q: %v", said, err)
				}
			})
			t.Run("logs and exec, through every machine's API", func(t *testing.T) {
				for _, api := range f.Machines {
					if said := kubectl(t, f, via(api), "logs", pod); strings.TrimSpace(said) != "I am on "+m.Name {
						t.Errorf("the log through %s says %q", api.Name, said)
					}
					if said := kubectl(t, f, via(api), "exec", pod, "--", "sh", "-c", "echo $NODE"); strings.TrimSpace(said) != m.Name {
						t.Errorf("exec through %s says %q", api.Name, said)
					}
				}
			})
		})
	}
	t.Run("a machine is drained and used again", func(t *testing.T) {
		drained := f.Machines[1].Name
		kubectl(t, f, "drain", drained, "--ignore-daemonsets", "--delete-emptydir-data", "--pod-selector=app=web", "--timeout=120s")
		kubectl(t, f, "rollout", "status", "deployment/web", "--timeout=120s")
		if got := nodesOf(t, f, "app=web"); slices.Contains(got, drained) || len(got) != 2 {
			t.Errorf("after drain it runs on %v", got)
		}
		if got := kubectl(t, f, "get", "node", drained); !strings.Contains(got, "Ready,SchedulingDisabled") {
			t.Errorf("the drained node:\n%s", got)
		}
		kubectl(t, f, "uncordon", drained)
		kubectl(t, f, "scale", "deployment/web", "--replicas=6")
		kubectl(t, f, "rollout", "status", "deployment/web", "--timeout=120s")
		if got := nodesOf(t, f, "app=web"); !slices.Contains(got, drained) {
			t.Errorf("after uncordon it runs on %v", got)
		}
	})
}

// nodesOf are the machines on which pods with a label run that are not on their
// way out, each once, sorted.
func nodesOf(t *testing.T, f *fleet.Fleet, label string) []string {
	t.Helper()
	nodes := strings.Fields(kubectl(t, f, "get", "pods", "-l", label, "-o", "go-template={{range .items}}{{if not .metadata.deletionTimestamp}}{{.spec.nodeName}} {{end}}{{end}}"))
	slices.Sort(nodes)
	return slices.Compact(nodes)
}
