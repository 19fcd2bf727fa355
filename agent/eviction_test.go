package agent_test

import (
	"context"
	"strings"
	"testing"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/skiff-run/skiff/internal/testenv"
)

// shell is a pod that runs a script, then sleeps.
func shell(name, script string, change ...func(*v1.Pod)) *v1.Pod {
	pod := &v1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: v1.PodSpec{
		RestartPolicy: v1.RestartPolicyAlways,
		Containers:    []v1.Container{{Name: "app", Image: testImage, ImagePullPolicy: v1.PullIfNotPresent, Command: []string{"sh", "-c", script + "; exec sleep 3600"}}},
	}}
	for _, c := range change {
		c(pod)
	}
	return pod
}

func (m *machine) condition(t v1.NodeConditionType) v1.NodeCondition {
	for _, c := range m.node().Status.Conditions {
		if c.Type == t {
			return c
		}
	}
	return v1.NodeCondition{}
}

func (m *machine) evicted(name, message string) {
	m.Helper()
	testenv.Eventually(m, time.Minute, func() bool {
		s := m.pod(name).Status
		return s.Phase == v1.PodFailed && s.Reason == "Evicted" && strings.HasPrefix(s.Message, message)
	}, "%s is evicted: %s", name, message)
	testenv.Eventually(m, 10*time.Second, func() bool {
		list, err := m.client.CoreV1().Events("default").List(context.Background(), metav1.ListOptions{})
		must(m, err)
		for _, e := range list.Items {
			if e.Reason == "Evicted" && e.Type == v1.EventTypeWarning && e.InvolvedObject.Name == name && strings.HasPrefix(e.Message, message) {
				return true
			}
		}
		return false
	}, "an event tells of %s", name)
}

func TestPodsThatTakeMoreOfTheDiskThanTheyMayAreEvicted(t *testing.T) {
	m := newMachine(t)
	m.start()
	m.ready()
	limit := resource.MustParse("1Mi")
	limited := func(p *v1.Pod) {
		p.Spec.Containers[0].Resources.Limits = v1.ResourceList{v1.ResourceEphemeralStorage: limit}
	}
	m.create(shell("volume", "busybox dd if=/dev/zero of=/scratch/big bs=1M count=2", func(p *v1.Pod) {
		p.Spec.Volumes = []v1.Volume{{Name: "scratch", VolumeSource: v1.VolumeSource{EmptyDir: &v1.EmptyDirVolumeSource{SizeLimit: &limit}}}}
		p.Spec.Containers[0].VolumeMounts = []v1.VolumeMount{{Name: "scratch", MountPath: "/scratch"}}
	}))
	m.create(shell("layer", "busybox dd if=/dev/zero of=/big bs=1M count=2", limited))
	m.create(shell("modest", "echo hello", limited))
	m.evicted("volume", `Usage of EmptyDir volume "scratch" exceeds the limit "1Mi". `)
	m.evicted("layer", "Pod ephemeral local storage usage exceeds the total limit of containers 1Mi. ")
	if pod := m.pod("modest"); !isReady(pod) {
		t.Errorf("a pod within its limit: %+v", pod.Status)
	}
	if c := podCondition(m.pod("volume"), v1.DisruptionTarget); c != nil {
		t.Errorf("a pod to blame itself is called disrupted: %+v", c)
	}
}

func TestAMachineShortOfDiskEvictsAndRecovers(t *testing.T) {
	m := newMachine(t)
	m.start()
	m.ready()
	important := int32(1000)
	m.create(shell("important", "true", func(p *v1.Pod) { p.Spec.Priority = &important }))
	m.create(shell("other", "true"))
	for _, name := range []string{"important", "other"} {
		testenv.Eventually(t, 20*time.Second, func() bool { return isReady(m.pod(name)) }, "%s is Ready", name)
	}
	m.stop()
	// No disk has that much.
	m.settings.Resources.EvictionHard = map[string]string{"imagefs.available": "1Ei"}
	m.settings.Resources.EvictionPressureTransitionPeriod = "1ms"
	m.start()
	testenv.Eventually(t, 20*time.Second, func() bool {
		c := m.condition(v1.NodeDiskPressure)
		return c.Status == v1.ConditionTrue && c.Reason == "KubeletHasDiskPressure"
	}, "the node tells of its pressure")
	m.evicted("other", "The node was low on resource: ephemeral-storage. Threshold quantity: 1Ei, available: ")
	c := podCondition(m.pod("other"), v1.DisruptionTarget)
	if c == nil || c.Status != v1.ConditionTrue || c.Reason != v1.PodReasonTerminationByKubelet || c.Message != m.pod("other").Status.Message {
		t.Errorf("condition %+v", c)
	}
	m.create(shell("late", "true"))
	testenv.Eventually(t, 20*time.Second, func() bool {
		s := m.pod("late").Status
		return s.Phase == v1.PodFailed && s.Reason == "Evicted" && s.Message == "Pod was rejected: The node had condition: [DiskPressure]. "
	}, "a new pod is refused")
	m.evicted("important", "The node was low on resource: ephemeral-storage. ")
	m.stop()
	m.settings.Resources.EvictionHard = nil
	m.start()
	testenv.Eventually(t, 20*time.Second, func() bool { return m.condition(v1.NodeDiskPressure).Status == v1.ConditionFalse }, "the pressure is gone")
	m.create(shell("again", "true"))
	testenv.Eventually(t, 20*time.Second, func() bool { return isReady(m.pod("again")) }, "pods are taken again")
}
