package proof

import (
	"context"
	"encoding/json"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/skiff-run/skiff/internal/testenv"
	"github.com/skiff-run/skiff/test/machines/fleet"
	"github.com/skiff-run/skiff/test/machines/proof/tally"
)

// loadManifest is a service whose pods leave as pods should that are to be moved
// under load: they serve for a while after nobody is sent to them any more.
const loadManifest = `
apiVersion: v1
kind: Namespace
metadata: {name: load}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, namespace: load}
spec:
  replicas: 3
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      terminationGracePeriodSeconds: 15
      topologySpreadConstraints:
      - {maxSkew: 1, topologyKey: kubernetes.io/hostname, whenUnsatisfiable: ScheduleAnyway, labelSelector: {matchLabels: {app: web}}}
      containers:
      - name: web
        image: skiff/web:1
        ports: [{containerPort: 8080}]
        readinessProbe: {httpGet: {path: /, port: 8080}, periodSeconds: 1}
        lifecycle: {preStop: {sleep: {seconds: 5}}}
---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: load}
spec:
  selector: {app: web}
  ports: [{port: 80, targetPort: 8080}]
`

// callerProgram and callerReport are the caller's files on a machine.
const (
	callerProgram = "/usr/local/bin/proof-caller"
	callerReport  = "/run/proof-caller.json"
)

// load is a service in the namespace load, and a caller on every machine.
type load struct{ f *fleet.Fleet }

// startLoad makes the service and has every machine call it. It is gone after
// the test.
func startLoad(t *testing.T, f *fleet.Fleet) load {
	t.Helper()
	l := load{f: f}
	t.Cleanup(func() { l.remove(t) })
	apply(t, f, loadManifest)
	kubectl(t, f, "-n", "load", "rollout", "status", "deployment/web", "--timeout=120s")
	address := strings.TrimSpace(kubectl(t, f, "-n", "load", "get", "service", "web", "-o", "jsonpath={.spec.clusterIP}"))
	program := filepath.Join(t.TempDir(), "caller")
	build := exec.CommandContext(t.Context(), "go", "build", "-o", program, "github.com/skiff-run/skiff/test/machines/proof/caller")
	if said, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build the caller: %v\n%s", err, said)
	}
	for _, m := range f.Machines {
		if err := m.Copy(t.Context(), program, callerProgram); err != nil {
			t.Fatal(err)
		}
		// It is answered from the start: what fails later, fails for what happens then.
		testenv.Eventually(t, time.Minute, func() bool {
			_, err := m.Run(t.Context(), fmt.Sprintf("%s -once -address %s:80 -name web.load.svc.cluster.local -dns 10.96.0.10:53", callerProgram, address))
			return err == nil
		}, "%s does not reach the service", m.Name)
		on(t, m, fmt.Sprintf("rm -f %s; systemd-run --quiet --unit=proof-caller %s -address %s:80 -name web.load.svc.cluster.local -dns 10.96.0.10:53 -report %s",
			callerReport, callerProgram, address, callerReport))
	}
	return l
}

// stop ends the calls and returns what each machine counted. Calls were made all
// the time: a caller that did not run ends the test.
func (l load) stop(t *testing.T) map[string]tally.Report {
	t.Helper()
	reports := map[string]tally.Report{}
	for _, m := range l.f.Machines {
		said := on(t, m, "systemctl stop proof-caller && cat "+callerReport)
		var report tally.Report
		if err := json.Unmarshal([]byte(said), &report); err != nil {
			t.Fatalf("the caller on %s says %q: %v", m.Name, said, err)
		}
		if report.New.Done == 0 || report.Kept.Done == 0 || report.Names.Done == 0 {
			t.Errorf("%s did not call: %+v", m.Name, report)
		}
		t.Logf("%s, new connections: %s", m.Name, report.New)
		t.Logf("%s, a kept connection: %s", m.Name, report.Kept)
		t.Logf("%s, names: %s", m.Name, report.Names)
		reports[m.Name] = report
	}
	return reports
}

func (l load) remove(t *testing.T) {
	// The test's own context is over when this runs.
	ctx, cancel := context.WithTimeout(context.Background(), commandLimit)
	defer cancel()
	for _, m := range l.f.Machines {
		if _, err := m.Run(ctx, fmt.Sprintf("systemctl stop proof-caller 2>/dev/null; systemctl reset-failed proof-caller 2>/dev/null; rm -f %s %s", callerProgram, callerReport)); err != nil {
			t.Errorf("remove the caller: %v", err)
		}
	}
	if _, err := tryKubectl(ctx, l.f, "delete", "namespace", "load", "--ignore-not-found", "--timeout=120s"); err != nil {
		t.Errorf("remove the load: %v", err)
	}
}

// containers says which containers the load's pods have and how often they were
// started.
func (l load) containers(t *testing.T) string {
	t.Helper()
	return kubectl(t, l.f, "-n", "load", "get", "pods", "--sort-by=.metadata.name", "-o",
		`jsonpath={range .items[*]}{.metadata.name} {.status.containerStatuses[0].containerID} {.status.containerStatuses[0].restartCount}{"\n"}{end}`)
}
