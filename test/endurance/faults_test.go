package endurance

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/skiff-run/skiff/internal/testenv"
	"github.com/skiff-run/skiff/test/host"
)

// TestFaultsAreNamedAndOvercome breaks what a node depends on, one thing at a
// time: events and conditions say what is wrong, pods that run are left alone,
// and when the cause is gone all goes on without anybody's help.
func TestFaultsAreNamedAndOvercome(t *testing.T) {
	n := newNode(t, "skiff-faults", func(h *host.Host) error {
		// A file system of its own, which can be made read-only.
		_, err := h.Run(t.Context(), "mount", "-t", "tmpfs", "-o", "size=1g", "tmpfs", "/var/lib/containerd")
		return err
	})
	ctx := t.Context()
	if err := n.create(ctx, &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "steady"}, Spec: kinds[0].spec()}); err != nil {
		t.Fatal(err)
	}
	n.becomesReady(t, "steady")
	first := containersOf(n.pod(ctx, "steady"))
	for _, fault := range []struct {
		name string
		test func(*testing.T)
	}{
		{"registries that fail", n.registryFails},
		{"a disk that cannot be written", n.diskIsReadOnly},
		{"containerd hangs", n.containerdHangs},
		{"the API is away", n.apiIsAway},
	} {
		t.Run(fault.name, func(t *testing.T) {
			fault.test(t)
			pod := n.pod(ctx, "steady")
			if pod == nil || !slices.Equal(containersOf(pod), first) {
				t.Errorf("the pod that had the containers %v is now: %s", first, describe(pod))
			}
		})
	}
	if t.Failed() {
		t.Logf("agent's log ends:\n%s", n.daemonLog("agent", 8000))
	}
}

// becomesReady waits for a pod.
func (n *node) becomesReady(t *testing.T, name string) {
	t.Helper()
	testenv.Eventually(t, patience, func() bool { pod := n.pod(t.Context(), name); return pod != nil && isReady(pod) }, "pod %s does not become Ready", name)
}

// says waits until an event of a pod contains all the words.
func (n *node) says(t *testing.T, pod string, words ...string) {
	t.Helper()
	var said string
	defer func() {
		if t.Failed() {
			t.Logf("events of pod %s:\n%s", pod, said)
		}
	}()
	testenv.Eventually(t, time.Minute, func() bool {
		said = n.events(t.Context(), pod)
		for line := range strings.Lines(said) {
			missing := slices.ContainsFunc(words, func(word string) bool { return !strings.Contains(strings.ToLower(line), strings.ToLower(word)) })
			if !missing {
				return true
			}
		}
		return false
	}, "no event of pod %s says %q", pod, words)
}

func (n *node) registryFails(t *testing.T) {
	registry, err := newSickRegistry(n, 5001)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := registry.close(); err != nil {
			t.Error(err)
		}
	})
	mirror := fmt.Sprintf("server = \"http://%[1]s\"\n[host.\"http://%[1]s\"]\n  capabilities = [\"pull\", \"resolve\"]\n", registry.address)
	if err := n.WriteFile("/etc/containerd/certs.d/"+strings.ReplaceAll(registry.address, ":", "_")+"_/hosts.toml", []byte(mirror)); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name string
		ill  illness
		want []string // what the event says, nil when the pod starts all the same
	}{
		{"corrupt", corrupt, []string{"Failed", "Failed to pull image", "digest"}},
		{"longer", longer, []string{"Failed", "Failed to pull image"}},
		{"shorter", shorter, []string{"Failed", "Failed to pull image", "EOF"}},
		{"refused", refused, []string{"Failed", "Failed to pull image", "403"}},
		{"slow", slow, nil},
	} {
		image, err := registry.push(t.Context(), n, c.name, 4<<20)
		if err != nil {
			t.Fatal(err)
		}
		registry.falls(c.ill)
		container := sleeper("main")
		container.Image = image
		pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "image-" + c.name}, Spec: corev1.PodSpec{Containers: []corev1.Container{container}}}
		if err := n.create(t.Context(), pod); err != nil {
			t.Fatal(err)
		}
		if c.want != nil {
			n.says(t, pod.Name, c.want...)
			testenv.Eventually(t, time.Minute, func() bool {
				pod := n.pod(t.Context(), pod.Name)
				if pod == nil || len(pod.Status.ContainerStatuses) != 1 || pod.Status.ContainerStatuses[0].State.Waiting == nil {
					return false
				}
				reason := pod.Status.ContainerStatuses[0].State.Waiting.Reason
				return reason == "ErrImagePull" || reason == "ImagePullBackOff"
			}, "pod %s does not say that its image cannot be pulled", pod.Name)
			registry.falls(healthy)
		}
		n.becomesReady(t, pod.Name)
		registry.falls(healthy)
	}
}

func (n *node) diskIsReadOnly(t *testing.T) {
	remount := func(how string) {
		t.Helper()
		if _, err := n.Run(t.Context(), "mount", "-o", "remount,"+how, "/var/lib/containerd"); err != nil {
			t.Fatal(err)
		}
	}
	// Files that are open for writing keep the kernel from it, so it is forced, as an error of a disk does.
	if _, err := n.Run(t.Context(), "sh", "-c", "mount -o remount,ro /var/lib/containerd 2>/dev/null || mount -o remount,size=$(du -sk /var/lib/containerd | cut -f1)k /var/lib/containerd"); err != nil {
		t.Fatal(err)
	}
	if err := n.create(t.Context(), &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "unwritable"}, Spec: kinds[0].spec()}); err != nil {
		t.Fatal(err)
	}
	n.says(t, "unwritable", "Warning", "Failed")
	remount("rw,size=1g")
	n.becomesReady(t, "unwritable")
}

func (n *node) containerdHangs(t *testing.T) {
	ctx := t.Context()
	if count, err := n.Signal("containerd", unix.SIGSTOP); err != nil || count != 1 {
		t.Fatalf("stop containerd: %d, %v", count, err)
	}
	thaw := func() {
		if _, err := n.Signal("containerd", unix.SIGCONT); err != nil {
			t.Error(err)
		}
	}
	defer thaw()
	if err := n.create(ctx, &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "late"}, Spec: kinds[0].spec()}); err != nil {
		t.Fatal(err)
	}
	testenv.Eventually(t, 2*time.Minute, func() bool {
		condition := n.condition(ctx, corev1.NodeReady)
		return condition != nil && condition.Status == corev1.ConditionFalse && strings.Contains(condition.Message, "containerd at ")
	}, "the node does not say that containerd hangs")
	thaw()
	testenv.Eventually(t, time.Minute, func() bool { return n.ready(ctx) }, "the node is not Ready again")
	n.becomesReady(t, "late")
	n.becomesReady(t, "steady")
}

// outage is longer than a node may be silent.
const outage = 20 * time.Second

// apiIsAway pauses the control plane for longer than a node may be silent. A
// container whose liveness probe fails is restarted meanwhile.
func (n *node) apiIsAway(t *testing.T) {
	ctx := t.Context()
	sick := sleeper("sick")
	sick.Command = []string{"sh", "-c", "touch /tmp/healthy; sleep 3600"}
	sick.LivenessProbe = &corev1.Probe{
		ProbeHandler:  corev1.ProbeHandler{Exec: &corev1.ExecAction{Command: []string{"cat", "/tmp/healthy"}}},
		PeriodSeconds: 1, FailureThreshold: 2, TimeoutSeconds: 5,
	}
	sick.TerminationMessagePolicy = corev1.TerminationMessageReadFile
	grace := int64(1)
	if err := n.create(ctx, &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "sick"}, Spec: corev1.PodSpec{Containers: []corev1.Container{sick}, TerminationGracePeriodSeconds: &grace}}); err != nil {
		t.Fatal(err)
	}
	n.becomesReady(t, "sick")
	before := n.pod(ctx, "sick").Status.ContainerStatuses[0]
	if count, err := n.Signal("skiff-control", unix.SIGSTOP); err != nil || count != 1 {
		t.Fatalf("pause the API: %d, %v", count, err)
	}
	thaw := func() {
		if _, err := n.Signal("skiff-control", unix.SIGCONT); err != nil {
			t.Error(err)
		}
	}
	defer thaw()
	// Without the API nobody can be asked to remove the file but containerd.
	id := strings.TrimPrefix(before.ContainerID, "containerd://")
	if _, err := n.Run(ctx, "ctr", "-n", "k8s.io", "tasks", "exec", "--exec-id", "break", id, "rm", "/tmp/healthy"); err != nil {
		t.Fatal(err)
	}
	testenv.Eventually(t, time.Minute, func() bool {
		said, err := n.Run(ctx, "ctr", "-n", "k8s.io", "tasks", "ls", "-q")
		return err == nil && !strings.Contains(said, id)
	}, "the container whose probe fails is not ended while the API is away")
	wait(ctx, outage) // its length is what is tested
	thaw()
	testenv.Eventually(t, time.Minute, func() bool {
		pod := n.pod(ctx, "sick")
		return pod != nil && isReady(pod) && pod.Status.ContainerStatuses[0].RestartCount == before.RestartCount+1
	}, "the status does not catch up")
	n.says(t, "sick", "Warning", "Unhealthy", "Liveness probe failed")
	testenv.Eventually(t, time.Minute, func() bool { return n.ready(ctx) }, "the node is not Ready again")
	n.becomesReady(t, "steady")
}
