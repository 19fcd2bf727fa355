package cluster

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/skiff-run/skiff/internal/testenv"
)

// diary is a deployment that adds a line to a file of its claim whenever it starts.
const diary = `apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: diary}
spec:
  accessModes: [ReadWriteOnce]
  resources: {requests: {storage: 64Mi}}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: diary}
spec:
  selector: {matchLabels: {app: diary}}
  strategy: {type: Recreate}
  template:
    metadata: {labels: {app: diary}}
    spec:
      terminationGracePeriodSeconds: 0
      securityContext: {runAsUser: 1000, runAsGroup: 1000, fsGroup: 4242, fsGroupChangePolicy: OnRootMismatch}
      volumes: [{name: data, persistentVolumeClaim: {claimName: diary}}]
      containers:
      - name: writer
        image: busybox
        command: [sh, -c, "echo started >> /data/lines; sleep 3600"]
        volumeMounts: [{name: data, mountPath: /data}, {name: data, mountPath: /part, subPath: a/b}]
`

// shelf is a volume that a person made, and a pod that gets it, and one whose scratch
// space is a claim of its own.
const shelf = `apiVersion: v1
kind: PersistentVolume
metadata: {name: shelf}
spec:
  capacity: {storage: 1Gi}
  accessModes: [ReadWriteOnce]
  storageClassName: manual
  hostPath: {path: PATH, type: DirectoryOrCreate}
---
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: shelf}
spec: {accessModes: [ReadWriteOnce], storageClassName: manual, resources: {requests: {storage: 500Mi}}}
---
apiVersion: v1
kind: Pod
metadata: {name: reader}
spec:
  terminationGracePeriodSeconds: 0
  volumes:
  - {name: shelf, persistentVolumeClaim: {claimName: shelf, readOnly: false}}
  - name: scratch
    ephemeral: {volumeClaimTemplate: {spec: {accessModes: [ReadWriteOncePod], resources: {requests: {storage: 1Mi}}}}}
  containers:
  - name: reader
    image: busybox
    command: [sh, -c, "echo book > /shelf/book; echo note > /scratch/note; sleep 3600"]
    volumeMounts: [{name: shelf, mountPath: /shelf}, {name: scratch, mountPath: /scratch}]
`

// TestClaimsJustWork: claims get volumes, pods find their data again, and what is
// deleted is gone from the disk too.
func TestClaimsJustWork(t *testing.T) {
	h := NewHost(t, "skiff-vol")
	h.Up("--registry-config-dir", h.Registry())
	dir := t.TempDir()
	apply := func(name, manifest string) {
		t.Helper()
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(manifest), 0o600); err != nil {
			t.Fatal(err)
		}
		h.Kubectl("apply", "-f", path)
	}
	lines := func() int {
		got, err := h.TryKubectl("exec", "deploy/diary", "--", "cat", "/data/lines")
		if err != nil {
			return -1
		}
		return strings.Count(got, "started")
	}
	volumes := filepath.Join(h.Root, "var/lib/skiff/volumes")

	t.Run("a deployment with a claim keeps its data", func(t *testing.T) {
		if classes := h.Kubectl("get", "storageclass"); !strings.Contains(classes, "local-path (default)") {
			t.Errorf("storage classes:\n%s", classes)
		}
		apply("diary.yaml", diary)
		h.Kubectl("rollout", "status", "deployment/diary", "--timeout=60s")
		if claim := h.Kubectl("get", "pvc", "diary"); !strings.Contains(claim, "Bound") || !strings.Contains(claim, "local-path") {
			t.Errorf("claim:\n%s", claim)
		}
		for _, reason := range []string{"WaitForFirstConsumer", "ExternalProvisioning", "ProvisioningSucceeded"} {
			h.Eventually(20*time.Second, reason, "get", "events")
		}
		testenv.Eventually(t, 20*time.Second, func() bool { return lines() == 1 }, "nothing was written")
		if owner := strings.TrimSpace(h.Kubectl("exec", "deploy/diary", "--", "stat", "-c", "%g %a", "/data")); owner != "4242 2777" {
			t.Errorf("group and mode %q, want 4242 2777", owner)
		}
		h.Kubectl("exec", "deploy/diary", "--", "sh", "-c", "echo here > /part/file && test -s /data/a/b/file")
		h.Kubectl("delete", "pod", "-l", "app=diary", "--wait=true")
		testenv.Eventually(t, 60*time.Second, func() bool { return lines() == 2 }, "the next pod does not find the data of the last")
	})
	t.Run("a killed agent leaves it alone", func(t *testing.T) {
		old := h.PID("agent")
		h.must("kill", "-9", old)
		h.Eventually(2*time.Minute, "ok", "get", "--raw", "/api/v1/nodes/"+h.Name+"/proxy/healthz")
		if n := lines(); n != 2 {
			t.Errorf("%d starts after the agent's, want 2", n)
		}
	})
	t.Run("a claim in use stays until nobody uses it", func(t *testing.T) {
		h.Kubectl("delete", "pvc", "diary", "--wait=false")
		h.Eventually(20*time.Second, "Terminating", "get", "pvc", "diary")
		if entries, err := os.ReadDir(volumes); err != nil || len(entries) != 1 {
			t.Fatalf("directories %v, %v", entries, err)
		}
		h.Kubectl("delete", "deployment", "diary")
		testenv.Eventually(t, 60*time.Second, func() bool {
			entries, err := os.ReadDir(volumes)
			_, gone := h.TryKubectl("get", "pvc", "diary")
			return err == nil && len(entries) == 0 && gone != nil && !strings.Contains(h.Kubectl("get", "pv", "-o", "name"), "pvc-")
		}, "the deleted claim's directory is still there")
	})
	t.Run("volumes made by hand, and for one pod", func(t *testing.T) {
		path := filepath.Join(dir, "shelf")
		apply("shelf.yaml", strings.ReplaceAll(shelf, "PATH", path))
		h.Kubectl("wait", "--for=condition=Ready", "pod/reader", "--timeout=60s")
		testenv.Eventually(t, 10*time.Second, func() bool {
			book, err := os.ReadFile(filepath.Join(path, "book"))
			return err == nil && string(book) == "book\n"
		}, "the pod did not write to the volume")
		if claim := h.Kubectl("get", "pvc", "reader-scratch", "-o", "jsonpath={.metadata.ownerReferences[0].name} {.status.phase}"); claim != "reader Bound" {
			t.Errorf("the claim of the ephemeral volume: %q", claim)
		}
		h.Kubectl("delete", "pod", "reader")
		testenv.Eventually(t, 60*time.Second, func() bool {
			entries, err := os.ReadDir(volumes)
			return err == nil && len(entries) == 0
		}, "the ephemeral volume outlives its pod")
		h.Kubectl("delete", "pvc", "shelf")
		h.Eventually(20*time.Second, "Released", "get", "pv", "shelf")
		if _, err := os.Stat(filepath.Join(path, "book")); err != nil {
			t.Errorf("what is to be retained is gone: %v", err)
		}
	})
}
