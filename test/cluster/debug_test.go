package cluster

import (
	"strings"
	"testing"
	"time"
)

// testDebug looks into pods and nodes with kubectl debug.
func testDebug(t *testing.T, h *Host) {
	h.Kubectl("run", "patient", "--image=busybox", "--labels=part=debug", "--", "sleep", "4321")
	h.Kubectl("wait", "--for=condition=Ready", "pod/patient", "--timeout=60s")
	t.Run("a container beside, which sees the processes of another", func(t *testing.T) {
		h.Kubectl("debug", "patient", "--image=busybox", "--target=patient", "--container=doctor", "--profile=general", "--", "sh", "-c", "ps; echo looked; sleep 3600")
		h.Eventually(60*time.Second, "looked", "logs", "patient", "-c", "doctor")
		if said := h.Kubectl("logs", "patient", "-c", "doctor"); !strings.Contains(said, "sleep 4321") {
			t.Errorf("the container sees:\n%s", said)
		}
		h.Eventually(30*time.Second, "running", "get", "pod", "patient", "-o", "jsonpath={.status.ephemeralContainerStatuses[?(@.name=='doctor')].state}")
		if restarts := h.Kubectl("get", "pod", "patient", "-o", "jsonpath={.status.containerStatuses[0].restartCount}"); restarts != "0" {
			t.Errorf("the patient was restarted %s times", restarts)
		}
	})
	t.Run("a copy with another command", func(t *testing.T) {
		h.Kubectl("debug", "patient", "--copy-to=copy", "--container=patient", "--share-processes", "--", "sh", "-c", "echo copied; sleep 3600")
		h.Eventually(60*time.Second, "copied", "logs", "copy", "-c", "patient")
		h.Kubectl("wait", "--for=condition=Ready", "pod/copy", "--timeout=60s")
	})
	t.Run("a node", func(t *testing.T) {
		said := h.Kubectl("debug", "node/"+h.Name, "--image=busybox", "--profile=sysadmin", "--", "sh", "-c", "chroot /host cat /proc/1/comm && echo entered; ls /host/etc/hostname")
		var name string
		for word := range strings.FieldsSeq(said) {
			if strings.HasPrefix(word, "node-debugger-") {
				name = strings.Trim(word, ".")
			}
		}
		if name == "" {
			t.Fatalf("kubectl debug says %q", said)
		}
		h.Eventually(60*time.Second, "Succeeded", "get", "pod", name, "-o", "jsonpath={.status.phase}")
		if logs := h.Kubectl("logs", name); !strings.Contains(logs, "entered") || !strings.Contains(logs, "/host/etc/hostname") {
			t.Errorf("the node's debugger says:\n%s", logs)
		}
		h.Kubectl("delete", "pod", name, "--now")
	})
	h.Kubectl("delete", "pod", "patient", "copy", "--now")
}
