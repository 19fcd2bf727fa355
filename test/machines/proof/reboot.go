package proof

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/skiff-run/skiff/test/machines/fleet"
)

// lonely is a pod that nothing but its node brings back.
const lonely = `
apiVersion: v1
kind: Pod
metadata: {name: lonely, labels: {app: lonely}}
spec:
  nodeName: %s
  terminationGracePeriodSeconds: 1
  tolerations: [{operator: Exists, effect: NoExecute}] # the node may be away for longer than a reboot is waited for
  containers:
  - {name: web, image: "skiff/web:1"}
---
apiVersion: v1
kind: Service
metadata: {name: lonely}
spec: {selector: {app: lonely}, ports: [{port: 80, targetPort: 8080}]}
`

// testReboot restarts a machine the way its administrator does. Its daemons, its
// pods and their service are there again without anybody's help.
func testReboot(t *testing.T, f *fleet.Fleet) {
	rebooted := others(f, leader(t, f))[0]
	boxes(t, f)
	apply(t, f, fmt.Sprintf(lonely, rebooted.Name))
	remove(t, f, "pod/lonely", "service/lonely")
	kubectl(t, f, "wait", "--for=condition=Ready", "pod/lonely", "--timeout=120s")
	identity := func() string { return kubectl(t, f, "get", "pod", "lonely", "-o", "jsonpath={.metadata.uid}") }
	before := identity()
	containers := func() string {
		return kubectl(t, f, "get", "pods", "--field-selector=spec.nodeName="+rebooted.Name, "-o", "jsonpath={.items[*].status.containerStatuses[*].containerID}")
	}
	ran := containers()

	began := time.Now()
	if err := rebooted.Reboot(t.Context()); err != nil {
		t.Fatal(err)
	}
	booted := time.Since(began)
	healthy(t, f)
	// Not the status from before: other containers.
	says(t, f, 2*time.Minute, func(said string) bool {
		fields := strings.Fields(said)
		for _, id := range fields {
			if strings.Contains(ran, id) {
				return false
			}
		}
		return len(fields) == len(strings.Fields(ran))
	}, "get", "pods", "--field-selector=spec.nodeName="+rebooted.Name, "-o", "jsonpath={.items[*].status.containerStatuses[*].containerID}")
	kubectl(t, f, "wait", "--for=condition=Ready", "pod/lonely", "--timeout=120s")
	kubectl(t, f, "wait", "--for=condition=Ready", "pod", "-l", "app=box", "--timeout=120s")
	t.Logf("%s and its pods are back %s after it was told to reboot, of which it was away for %s", rebooted.Name, time.Since(began).Round(time.Second), booted.Round(time.Second))
	if identity() != before {
		t.Error("the pod is another one")
	}
	for _, m := range f.Machines {
		says(t, f, 30*time.Second, func(said string) bool { return strings.TrimSpace(said) == "lonely" },
			"exec", boxOn(m), "--", "wget", "-q", "-O-", "http://lonely.default")
	}
}
