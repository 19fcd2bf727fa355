package agent_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/skiff-run/skiff/internal/testenv"
)

func amounts(cpu, memory string) v1.ResourceRequirements {
	list := v1.ResourceList{v1.ResourceCPU: resource.MustParse(cpu), v1.ResourceMemory: resource.MustParse(memory)}
	return v1.ResourceRequirements{Requests: list, Limits: list}
}

// revise changes the pod as the API server would: a new spec is a new generation.
func (m *machine) revise(name string, change func(*v1.Pod)) {
	m.Helper()
	pod := m.pod(name)
	change(pod)
	pod.Generation++
	_, err := m.client.CoreV1().Pods("default").Update(context.Background(), pod, metav1.UpdateOptions{})
	must(m, err)
}

// cgroup reads a file of a pod's cgroup, or of the one container in it, on cgroup v1.
func (m *machine) cgroup(pod *v1.Pod, container bool, controller, file string) string {
	m.Helper()
	dir := filepath.Join("/sys/fs/cgroup", controller, m.settings.CgroupRoot, "kubepods", "pod"+string(pod.UID))
	if container {
		dir = filepath.Join(dir, strings.TrimPrefix(pod.Status.ContainerStatuses[0].ContainerID, "containerd://"))
	}
	data, err := os.ReadFile(filepath.Join(dir, file))
	must(m, err)
	return strings.TrimSpace(string(data))
}

func (m *machine) requireV1() {
	if _, err := os.Stat("/sys/fs/cgroup/memory/memory.limit_in_bytes"); err != nil {
		m.Skip("reads the files of cgroup v1")
	}
}

func podCondition(pod *v1.Pod, t v1.PodConditionType) *v1.PodCondition {
	for i := range pod.Status.Conditions {
		if pod.Status.Conditions[i].Type == t {
			return &pod.Status.Conditions[i]
		}
	}
	return nil
}

func TestAPodIsResizedInPlace(t *testing.T) {
	m := newMachine(t)
	m.requireV1()
	m.start()
	m.ready()
	m.create(&v1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "web"}, Spec: v1.PodSpec{
		RestartPolicy: v1.RestartPolicyAlways,
		Containers:    []v1.Container{{Name: "app", Image: testImage, ImagePullPolicy: v1.PullIfNotPresent, Command: []string{"sleep", "3600"}, Resources: amounts("100m", "64Mi")}},
	}})
	testenv.Eventually(t, 20*time.Second, func() bool { return isReady(m.pod("web")) }, "the pod is Ready")
	id := m.pod("web").Status.ContainerStatuses[0].ContainerID
	check := func(cpu, memory string, shares, quota, bytes int64) {
		t.Helper()
		testenv.Eventually(t, 15*time.Second, func() bool {
			s := m.pod("web").Status
			r := s.ContainerStatuses[0].Resources
			return s.ObservedGeneration == m.pod("web").Generation && r.Limits.Cpu().String() == cpu && r.Limits.Memory().String() == memory && s.AllocatedResources.Cpu().String() == cpu &&
				podCondition(m.pod("web"), v1.PodResizeInProgress) == nil && podCondition(m.pod("web"), v1.PodResizePending) == nil
		}, "the status says %s and %s", cpu, memory)
		for _, container := range []bool{true, false} {
			pod := m.pod("web")
			for file, want := range map[string]int64{"cpu.shares": shares, "cpu.cfs_quota_us": quota} {
				if got := m.cgroup(pod, container, "cpu", file); got != fmt.Sprint(want) {
					t.Errorf("container %v: %s is %s, want %d", container, file, got, want)
				}
			}
			if got := m.cgroup(pod, container, "memory", "memory.limit_in_bytes"); got != fmt.Sprint(bytes) {
				t.Errorf("container %v: memory limit is %s, want %d", container, got, bytes)
			}
		}
		if s := m.pod("web").Status.ContainerStatuses[0]; s.ContainerID != id || s.RestartCount != 0 {
			t.Errorf("the container was restarted: %+v", s)
		}
	}
	check("100m", "64Mi", 102, 10000, 64<<20)

	m.revise("web", func(p *v1.Pod) { p.Spec.Containers[0].Resources = amounts("200m", "128Mi") })
	check("200m", "128Mi", 204, 20000, 128<<20)

	m.revise("web", func(p *v1.Pod) { p.Spec.Containers[0].Resources = amounts("50m", "32Mi") })
	check("50m", "32Mi", 51, 5000, 32<<20)

	t.Run("what does not fit is put off, and remembered across agents", func(t *testing.T) {
		m.revise("web", func(p *v1.Pod) { p.Spec.Containers[0].Resources = amounts("1000", "32Mi") })
		testenv.Eventually(t, 10*time.Second, func() bool {
			c := podCondition(m.pod("web"), v1.PodResizePending)
			return c != nil && c.Reason == v1.PodReasonDeferred && strings.HasPrefix(c.Message, "Node didn't have enough resource: cpu, requested: 1000000, used: 0, capacity: ")
		}, "the resize is deferred")
		m.stop()
		m.start()
		testenv.Eventually(t, 10*time.Second, func() bool {
			code, body := m.tryGet("/pods")
			return code == 200 && strings.Contains(body, `"cpu":"50m"`) && !strings.Contains(body, `"cpu":"1k"`)
		}, "the new agent knows what the pod was given")
		m.revise("web", func(p *v1.Pod) { p.Spec.Containers[0].Resources = amounts("60m", "48Mi") })
		check("60m", "48Mi", 61, 6000, 48<<20)
	})
	t.Run("memory in use is not taken away", func(t *testing.T) {
		if out, err := m.exec("web", "app", "touch", "/tmp/a"); err != nil {
			t.Fatal(out, err)
		}
		m.revise("web", func(p *v1.Pod) { p.Spec.Containers[0].Resources = amounts("60m", "64Ki") })
		testenv.Eventually(t, 10*time.Second, func() bool {
			c := podCondition(m.pod("web"), v1.PodResizeInProgress)
			return c != nil && c.Reason == v1.PodReasonError && strings.Contains(c.Message, `attempting to set container "app" memory limit (65536) below current usage (`)
		}, "the error is told")
		m.revise("web", func(p *v1.Pod) { p.Spec.Containers[0].Resources = amounts("60m", "48Mi") })
		check("60m", "48Mi", 61, 6000, 48<<20)
	})
}
