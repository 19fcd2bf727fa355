package agent_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/skiff-run/skiff/agent/devices/deviceplugin"
	"github.com/skiff-run/skiff/internal/testenv"
)

const testDevice = "example.com/device"

func (m *machine) rejected(name, reason, message string) {
	m.Helper()
	testenv.Eventually(m, 20*time.Second, func() bool {
		s := m.pod(name).Status
		return s.Phase == v1.PodFailed && s.Reason == reason && s.Message == "Pod was rejected: "+message
	}, "%s is refused: %s: %s", name, reason, message)
}

func TestAPodGetsTheDevicesOfAPlugin(t *testing.T) {
	m := newMachine(t)
	m.start()
	m.ready()
	dir := filepath.Join(m.settings.RootDir, "device-plugins")
	plug := func() *deviceplugin.Plugin {
		t.Helper()
		testenv.Eventually(t, 10*time.Second, func() bool { _, err := os.Stat(filepath.Join(dir, "kubelet.sock")); return err == nil }, "the agent listens for plugins")
		p, err := deviceplugin.Start(dir, testDevice, "d0", "d1")
		must(t, err)
		t.Cleanup(p.Stop)
		must(t, p.Register(context.Background()))
		return p
	}
	offers := func(count string) {
		t.Helper()
		testenv.Eventually(t, 15*time.Second, func() bool {
			q, ok := m.node().Status.Allocatable[testDevice]
			return ok && q.String() == count
		}, "the node offers %s devices", count)
	}
	plugin := plug()
	offers("2")
	asks := func(count string) func(*v1.Pod) {
		return func(p *v1.Pod) {
			list := v1.ResourceList{testDevice: resource.MustParse(count)}
			p.Spec.Containers[0].Resources = v1.ResourceRequirements{Requests: list, Limits: list}
		}
	}
	m.create(shell("web", "true", asks("1")))
	testenv.Eventually(t, 20*time.Second, func() bool { return isReady(m.pod("web")) }, "the pod is Ready")
	for command, want := range map[string]string{
		"echo+$TEST_DEVICES": "[d1]\n", "echo+x+%3E+/dev/test-d1": "", "ls+/dev/test-d1+/driver/test.sock": "/dev/test-d1\n/driver/test.sock\n",
	} {
		if out, err := m.exec("web", "app", "sh", "-c", command); err != nil || out != want {
			t.Errorf("%s: %q, %v; want %q", command, out, err, want)
		}
	}
	testenv.Eventually(t, 10*time.Second, func() bool {
		s := m.pod("web").Status.ContainerStatuses[0].AllocatedResourcesStatus
		return len(s) == 1 && s[0].Name == testDevice && s[0].Resources[0].ResourceID == "d1" && s[0].Resources[0].Health == v1.ResourceHealthStatusHealthy
	}, "the status names the device")
	plugin.SetHealth("d1", "Unhealthy")
	offers("1")
	testenv.Eventually(t, 10*time.Second, func() bool {
		return m.pod("web").Status.ContainerStatuses[0].AllocatedResourcesStatus[0].Resources[0].Health == v1.ResourceHealthStatusUnhealthy
	}, "the status tells that it broke")
	plugin.SetHealth("d1", "Healthy")
	offers("2")
	m.create(shell("greedy", "true", asks("2")))
	m.rejected("greedy", "UnexpectedAdmissionError", "Allocate failed due to requested number of devices unavailable for example.com/device. Requested: 2, Available: 1, which is unexpected")

	id := m.pod("web").Status.ContainerStatuses[0].ContainerID
	m.stop()
	plugin.Stop()
	m.start()
	offers("0")
	plug()
	offers("2")
	m.create(shell("other", "true", asks("1")))
	testenv.Eventually(t, 20*time.Second, func() bool { return isReady(m.pod("other")) }, "the other pod is Ready")
	if out, err := m.exec("other", "app", "sh", "-c", "echo+$TEST_DEVICES"); err != nil || out != "[d0]\n" {
		t.Errorf("the other pod has %q, %v", out, err)
	}
	if phase := m.pod("web").Status.Phase; phase != v1.PodRunning {
		t.Errorf("the pod is %s after the restart", phase)
	}
	if s := m.pod("web").Status.ContainerStatuses[0]; s.ContainerID != id || s.RestartCount != 0 || s.State.Running == nil {
		t.Errorf("the pod was disturbed: %+v", s)
	}
}

func TestGuaranteedPodsGetProcessorsOfTheirOwn(t *testing.T) {
	if runtime.NumCPU() < 2 {
		t.Skip("needs two processors")
	}
	m := newMachine(t)
	m.requireV1()
	m.settings.Resources.CPUManagerPolicy, m.settings.Resources.ReservedSystemCPUs = "static", "0"
	m.start()
	m.ready()
	all := fmt.Sprintf("0-%d", runtime.NumCPU()-1)
	cpusOf := func(name, want string) {
		t.Helper()
		testenv.Eventually(t, 20*time.Second, func() bool {
			pod := m.pod(name)
			if !isReady(pod) {
				return false
			}
			out, err := m.exec(name, "app", "cat", "/proc/self/status")
			return err == nil && strings.Contains(out, "Cpus_allowed_list:\t"+want+"\n")
		}, "%s runs on %s", name, want)
	}
	m.create(shell("shared", "true"))
	cpusOf("shared", all)
	count := runtime.NumCPU() - 1
	m.create(shell("own", "true", func(p *v1.Pod) { p.Spec.Containers[0].Resources = amounts(fmt.Sprint(count), "64Mi") }))
	own := "1"
	if count > 1 {
		own = fmt.Sprintf("1-%d", count)
	}
	cpusOf("own", own)
	cpusOf("shared", "0")
	if quota := m.cgroup(m.pod("own"), true, "cpu", "cpu.cfs_quota_us"); quota != "-1" {
		t.Errorf("whoever has processors for itself is stopped after %s µs", quota)
	}
	m.create(shell("late", "true", func(p *v1.Pod) { p.Spec.Containers[0].Resources = amounts("1", "64Mi") }))
	m.rejected("late", "UnexpectedAdmissionError", "Allocate failed due to not enough cpus available to satisfy request: requested=1, available=0, which is unexpected")
	m.revise("own", func(p *v1.Pod) { p.Spec.Containers[0].Resources = amounts("500m", "64Mi") })
	testenv.Eventually(t, 10*time.Second, func() bool {
		c := podCondition(m.pod("own"), v1.PodResizePending)
		return c != nil && c.Reason == v1.PodReasonInfeasible && c.Message == `Resize is infeasible for Guaranteed Pods alongside CPU Manager policy "static"`
	}, "the resize is infeasible")
	m.stop()
	m.start()
	cpusOf("own", own)
	cpusOf("shared", "0")
	must(t, m.client.Tracker().Delete(v1.SchemeGroupVersion.WithResource("pods"), "default", "own"))
	cpusOf("shared", all)
}

func TestACriticalPodTakesThePlaceOfAnother(t *testing.T) {
	m := newMachine(t)
	m.settings.MaxPods = 2
	m.start()
	m.ready()
	m.create(shell("ordinary", "true"))
	m.create(shell("precious", "true", func(p *v1.Pod) { p.Spec.Containers[0].Resources = amounts("10m", "16Mi") }))
	for _, name := range []string{"ordinary", "precious"} {
		testenv.Eventually(t, 20*time.Second, func() bool { return isReady(m.pod(name)) }, "%s is Ready", name)
	}
	m.create(shell("late", "true"))
	m.rejected("late", "OutOfpods", "Node didn't have enough resource: pods, requested: 1, used: 2, capacity: 2")
	critical := int32(2000000000)
	m.create(shell("critical", "true", func(p *v1.Pod) { p.Spec.Priority = &critical }))
	testenv.Eventually(t, 20*time.Second, func() bool { return isReady(m.pod("critical")) }, "the critical pod is Ready")
	testenv.Eventually(t, 20*time.Second, func() bool {
		s := m.pod("ordinary").Status
		c := podCondition(m.pod("ordinary"), v1.DisruptionTarget)
		return s.Phase == v1.PodFailed && s.Reason == "Preempting" && s.Message == "Preempted in order to admit critical pod" &&
			c != nil && c.Message == "Pod was preempted by Kubelet to accommodate a critical pod."
	}, "the ordinary pod made place")
	if !isReady(m.pod("precious")) {
		t.Error("the guaranteed pod was ended too")
	}
}
