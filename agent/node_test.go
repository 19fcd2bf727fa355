package agent_test

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	v1 "k8s.io/api/core/v1"
	nodev1 "k8s.io/api/node/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	kubeletconfig "k8s.io/kubelet/config/v1beta1"
	"k8s.io/utils/ptr"

	"github.com/skiff-run/skiff/agent"
	"github.com/skiff-run/skiff/agent/shutdown/logindtest"
	"github.com/skiff-run/skiff/internal/testenv"
	"github.com/skiff-run/skiff/runtime"
)

// events are the messages of events with a reason.
func (m *machine) events(reason string) []string {
	m.Helper()
	list, err := m.client.CoreV1().Events("").List(context.Background(), metav1.ListOptions{})
	must(m, err)
	var messages []string
	for i := range list.Items {
		if list.Items[i].Reason == reason {
			messages = append(messages, list.Items[i].Message)
		}
	}
	return messages
}

func TestTheNodeIsWhatItsConfigurationSays(t *testing.T) {
	m := newMachine(t)
	m.settings.NodeLabels = map[string]string{"topology.kubernetes.io/zone": "a"}
	m.settings.RegisterWithTaints = []string{"dedicated=x:NoSchedule"}
	m.options.Handlers = map[string]runtime.Handler{"other": {Binary: "runc"}}
	m.start()
	m.ready()
	node := m.node()
	if node.Labels["topology.kubernetes.io/zone"] != "a" || node.Labels[v1.LabelHostname] != nodeName || len(node.Spec.Taints) != 1 || node.Spec.Taints[0].ToString() != "dedicated=x:NoSchedule" {
		t.Errorf("labels %v, taints %v", node.Labels, node.Spec.Taints)
	}
	info := node.Status.NodeInfo
	for name, value := range map[string]string{
		"machineID": info.MachineID, "bootID": info.BootID, "kernelVersion": info.KernelVersion, "osImage": info.OSImage,
		"kubeletVersion": info.KubeletVersion, "operatingSystem": info.OperatingSystem, "architecture": info.Architecture,
	} {
		if value == "" {
			t.Errorf("the node's %s is empty", name)
		}
	}
	if !strings.HasPrefix(info.ContainerRuntimeVersion, "containerd://") {
		t.Errorf("runtime %q", info.ContainerRuntimeVersion)
	}
	var handlers []string
	for _, h := range node.Status.RuntimeHandlers {
		handlers = append(handlers, h.Name)
		if h.Features == nil || !*h.Features.RecursiveReadOnlyMounts {
			t.Errorf("handler %q: %+v", h.Name, h.Features)
		}
	}
	if !slices.Equal(handlers, []string{"", "other"}) || !*node.Status.Features.SupplementalGroupsPolicy {
		t.Errorf("handlers %q, features %+v", handlers, node.Status.Features)
	}

	t.Run("runtime classes", func(t *testing.T) {
		for name, handler := range map[string]string{"class": "other", "missing": "nowhere"} {
			_, err := m.client.NodeV1().RuntimeClasses().Create(context.Background(), &nodev1.RuntimeClass{ObjectMeta: metav1.ObjectMeta{Name: name}, Handler: handler}, metav1.CreateOptions{})
			must(t, err)
			m.create(&v1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "of-" + name}, Spec: v1.PodSpec{
				RuntimeClassName: ptr.To(name), RestartPolicy: v1.RestartPolicyAlways,
				Tolerations: []v1.Toleration{{Operator: v1.TolerationOpExists}},
				Containers:  []v1.Container{{Name: "app", Image: testImage, ImagePullPolicy: v1.PullIfNotPresent, Command: []string{"sleep", "3600"}}},
			}})
		}
		testenv.Eventually(t, 30*time.Second, func() bool { return isReady(m.pod("of-class")) }, "the pod of a configured handler is Ready")
		want := `Failed to create pod sandbox: failed to get sandbox runtime: no runtime for "nowhere" is configured`
		testenv.Eventually(t, 30*time.Second, func() bool { return slices.Contains(m.events("FailedCreatePodSandBox"), want) }, "the pod of a handler that is not configured says so: %q", m.events("FailedCreatePodSandBox"))
	})
	t.Run("health, configuration and logs", func(t *testing.T) {
		for _, path := range []string{"/healthz", "/healthz/ping", "/healthz/log", "/healthz/syncloop"} {
			if code, body := m.get(path); code != 200 || body != "ok" {
				t.Errorf("%s: %d %q", path, code, body)
			}
		}
		var configz struct {
			Kubelet kubeletconfig.KubeletConfiguration `json:"kubeletconfig"`
		}
		m.getJSON("/configz", &configz)
		if configz.Kubelet.MaxPods != 110 || configz.Kubelet.ContainerLogMaxSize != "10Mi" || configz.Kubelet.CgroupDriver == "" || configz.Kubelet.ImageMinimumGCAge.Duration != 2*time.Minute {
			t.Errorf("configz %+v", configz.Kubelet)
		}
		must(t, os.WriteFile(filepath.Join(m.dir, "machine.log"), []byte("all is well\n"), 0o600))
		if code, body := m.get("/logs/machine.log"); code != 200 || body != "all is well\n" {
			t.Errorf("a log of the machine: %d %q", code, body)
		}
		if code, body := m.get("/logs/"); code != 200 || !strings.Contains(body, "machine.log") {
			t.Errorf("the logs of the machine: %d %q", code, body)
		}
		_, metrics := m.get("/metrics")
		if series(t, metrics, "kubelet_node_name{", `node="n1"`) != 1 || series(t, metrics, "kubelet_running_pods ") < 1 || series(t, metrics, "kubelet_running_containers{", `"running"`) < 1 ||
			series(t, metrics, "process_resident_memory_bytes ") == 0 {
			t.Errorf("metrics\n%s", metrics)
		}
		if code, body := m.get("/containerLogs/default/of-class/none"); code != 404 || body != "container \"none\" not found in pod \"of-class\"\n" {
			t.Errorf("the log of a container that is none: %d %q", code, body)
		}
	})
}

func TestAShutdownOfTheMachineEndsItsPods(t *testing.T) {
	login := logindtest.New(t)
	t.Setenv("DBUS_SYSTEM_BUS_ADDRESS", login.Address)
	m := newMachine(t)
	m.settings.ShutdownGracePeriod, m.settings.ShutdownGracePeriodCriticalPods = "4s", "2s"
	m.start()
	m.ready()
	run := func(name string) {
		m.create(&v1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: v1.PodSpec{
			RestartPolicy: v1.RestartPolicyAlways,
			Containers:    []v1.Container{{Name: "app", Image: testImage, ImagePullPolicy: v1.PullIfNotPresent, Command: []string{"sh", "-c", "trap 'exit 0' TERM; while :; do sleep 0.1; done"}}},
		}})
	}
	run("web")
	testenv.Eventually(t, 30*time.Second, func() bool { return isReady(m.pod("web")) && login.Inhibitors() == 1 }, "the pod is Ready and shutdowns are delayed")
	login.PrepareForShutdown(true)
	login.Released()
	const message = "Pod was terminated in response to imminent node shutdown."
	testenv.Eventually(t, 20*time.Second, func() bool {
		s := m.pod("web").Status
		return s.Phase == v1.PodFailed && s.Reason == "Terminated" && s.Message == message && slices.ContainsFunc(s.Conditions, func(c v1.PodCondition) bool {
			return c.Type == v1.DisruptionTarget && c.Status == v1.ConditionTrue && c.Reason == v1.PodReasonTerminationByKubelet && c.Message == message
		})
	}, "the pod says why it ended: %+v", m.pod("web").Status)
	testenv.Eventually(t, 20*time.Second, func() bool {
		return slices.ContainsFunc(m.node().Status.Conditions, func(c v1.NodeCondition) bool {
			return c.Type == v1.NodeReady && c.Status == v1.ConditionFalse && c.Message == "node is shutting down"
		})
	}, "the node says that it is ending")
	run("late")
	testenv.Eventually(t, 20*time.Second, func() bool {
		pod := m.pod("late")
		return pod != nil && pod.Status.Reason == "NodeShutdown" && pod.Status.Message == "Pod was rejected: Pod was rejected as the node is shutting down."
	}, "no pod is taken on any more")
}

func TestALogIsFollowedAcrossItsRotations(t *testing.T) {
	m := newMachine(t)
	m.settings.ContainerLogMaxSize, m.settings.ContainerLogMaxFiles = "20Ki", 100
	options, err := agent.RuntimeOptions(m.settings, m.logger())
	must(t, err)
	m.options.LogMaxBytes, m.options.LogMaxFiles = options.LogMaxBytes, options.LogMaxFiles
	m.start()
	m.ready()
	// More than three times what a pipe holds: each time it is emptied the file is too large.
	const lines = 25000
	m.create(&v1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "chatty"}, Spec: v1.PodSpec{
		RestartPolicy: v1.RestartPolicyNever,
		Containers: []v1.Container{{Name: "app", Image: testImage, ImagePullPolicy: v1.PullIfNotPresent, Command: []string{"sh", "-c",
			fmt.Sprintf("i=0; while [ $i -lt %d ]; do echo line $i; i=$((i+1)); done", lines)}}},
	}})
	testenv.Eventually(t, 30*time.Second, func() bool { code, _ := m.get("/containerLogs/default/chatty/app?limitBytes=1"); return code == 200 }, "there is a log")
	client := m.httpClient()
	client.Timeout = time.Minute
	response, err := client.Get(fmt.Sprintf("https://127.0.0.1:%d/containerLogs/default/chatty/app?follow=true", m.settings.Port))
	must(t, err)
	defer response.Body.Close()
	text := bufio.NewScanner(response.Body)
	first, next := -1, 0
	for text.Scan() {
		number, err := strconv.Atoi(strings.TrimPrefix(text.Text(), "line "))
		must(t, err)
		if first < 0 {
			first, next = number, number
		}
		if number != next {
			t.Fatalf("line %d follows line %d", number, next-1)
		}
		next++
	}
	must(t, text.Err())
	if next != lines {
		t.Errorf("lines %d to %d of %d were read", first, next-1, lines)
	}
	rotated, err := filepath.Glob(filepath.Join(m.settings.PodLogsDir, "default_chatty_*", "app", "0.log.*"))
	if err != nil || len(rotated) < 2 {
		t.Errorf("rotated files %q, %v", rotated, err)
	}
}
