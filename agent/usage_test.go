package agent_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	stats "k8s.io/kubelet/pkg/apis/stats/v1alpha1"

	"github.com/skiff-run/skiff/agent/usage"
	"github.com/skiff-run/skiff/internal/testenv"
)

// getJSON reads an answer of the endpoint.
func (m *machine) getJSON(path string, into any) {
	m.Helper()
	code, body := m.get(path)
	if code != 200 {
		m.Fatalf("%s: %d %s", path, code, body)
	}
	must(m, json.Unmarshal([]byte(body), into))
}

// series finds the value of the series with these texts in its name and labels.
func series(t testing.TB, metrics string, texts ...string) float64 {
	t.Helper()
	for line := range strings.Lines(metrics) {
		found := !strings.HasPrefix(line, "#")
		for _, text := range texts {
			found = found && strings.Contains(line, text)
		}
		if !found {
			continue
		}
		_, rest, _ := strings.Cut(line, "} ")
		if !strings.Contains(line, "} ") {
			_, rest, _ = strings.Cut(line, " ")
		}
		value, err := strconv.ParseFloat(strings.Fields(rest)[0], 64)
		must(t, err)
		return value
	}
	t.Fatalf("no series with %q in\n%s", texts, metrics)
	return 0
}

func TestWhatAPodUsesIsWhatItsCgroupSays(t *testing.T) {
	m := newMachine(t)
	m.start()
	m.ready()
	const held = 24 << 20
	m.create(&v1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "busy"}, Spec: v1.PodSpec{
		RestartPolicy: v1.RestartPolicyAlways,
		Containers: []v1.Container{{
			Name: "burn", Image: testImage, ImagePullPolicy: v1.PullIfNotPresent,
			Command: []string{"sh", "-c", "head -c 25165824 /dev/zero > /memory/x; head -c 3145728 /dev/zero > /disk/x; head -c 1048576 /dev/zero > /written; echo ready; while :; do :; done"},
			Resources: v1.ResourceRequirements{
				Limits:   v1.ResourceList{v1.ResourceCPU: resource.MustParse("200m"), v1.ResourceMemory: resource.MustParse("128Mi")},
				Requests: v1.ResourceList{v1.ResourceCPU: resource.MustParse("100m"), v1.ResourceMemory: resource.MustParse("64Mi")},
			},
			VolumeMounts: []v1.VolumeMount{{Name: "memory", MountPath: "/memory"}, {Name: "disk", MountPath: "/disk"}},
		}},
		Volumes: []v1.Volume{
			{Name: "memory", VolumeSource: v1.VolumeSource{EmptyDir: &v1.EmptyDirVolumeSource{Medium: v1.StorageMediumMemory}}},
			{Name: "disk", VolumeSource: v1.VolumeSource{EmptyDir: &v1.EmptyDirVolumeSource{}}},
		},
	}})
	testenv.Eventually(t, 30*time.Second, func() bool {
		code, body := m.get("/containerLogs/default/busy/burn")
		return code == 200 && body == "ready\n"
	}, "the pod holds its memory")

	t.Run("the figures behind kubectl top", func(t *testing.T) {
		var top usage.Top
		cpu := func() int64 {
			top = usage.Top{}
			m.getJSON("/metrics/usage", &top)
			if len(top.Pods) != 1 || len(top.Pods[0].Containers) != 1 || top.Node == nil {
				return 0
			}
			return top.Pods[0].Containers[0].Usage.Cpu().MilliValue()
		}
		testenv.Eventually(t, 30*time.Second, func() bool { used := cpu(); return used > 50 && used < 220 }, "it uses what it may, 200m")
		pod := top.Pods[0]
		if memory := pod.Containers[0].Usage.Memory().Value(); memory < held || memory > 2*held {
			t.Errorf("memory %d", memory)
		}
		if pod.Name != "busy" || pod.Namespace != "default" || pod.Window.Duration < time.Second || time.Since(pod.Timestamp.Time) > time.Minute {
			t.Errorf("pod %+v", pod)
		}
		if node := top.Node; node.Name != nodeName || node.Usage.Cpu().MilliValue() < pod.Containers[0].Usage.Cpu().MilliValue()/2 || node.Usage.Memory().Value() < held {
			t.Errorf("node %+v", top.Node)
		}
	})
	t.Run("the summary", func(t *testing.T) {
		var s stats.Summary
		testenv.Eventually(t, 30*time.Second, func() bool {
			s = stats.Summary{}
			m.getJSON("/stats/summary", &s)
			return *s.Node.Runtime.ImageFs.UsedBytes > 0
		}, "the image's layers are measured")
		if s.Node.NodeName != nodeName || *s.Node.CPU.UsageCoreNanoSeconds == 0 || *s.Node.Memory.WorkingSetBytes < held || *s.Node.Fs.CapacityBytes == 0 ||
			*s.Node.Rlimit.NumOfRunningProcesses < 2 || s.Node.StartTime.IsZero() || len(s.Node.SystemContainers) != 2 {
			t.Errorf("node %+v", s.Node)
		}
		if len(s.Pods) != 1 {
			t.Fatalf("pods %+v", s.Pods)
		}
		pod := s.Pods[0]
		if pod.PodRef != (stats.PodReference{Name: "busy", Namespace: "default", UID: "uid-of-busy"}) || pod.StartTime.IsZero() || *pod.Memory.WorkingSetBytes < held ||
			*pod.ProcessStats.ProcessCount == 0 || pod.Network.Name != "eth0" || pod.Network.TxBytes == nil {
			t.Errorf("pod %+v", pod)
		}
		c := pod.Containers[0]
		if c.Name != "burn" || *c.Memory.WorkingSetBytes < held || *c.Memory.AvailableBytes > 128<<20-held || *c.CPU.UsageCoreNanoSeconds == 0 ||
			*c.Rootfs.UsedBytes < 1<<20 || *c.Rootfs.InodesUsed == 0 || *c.Logs.UsedBytes == 0 || *c.Rootfs.CapacityBytes == 0 {
			t.Errorf("container %+v", c)
		}
		sizes := map[string]uint64{}
		for _, v := range pod.VolumeStats {
			sizes[v.Name] = *v.UsedBytes
		}
		if sizes["memory"] < held || sizes["disk"] < 3<<20 || sizes["disk"] > 4<<20 {
			t.Errorf("volumes %v", sizes)
		}
		if used := *pod.EphemeralStorage.UsedBytes; used < 4<<20 || used > held {
			t.Errorf("ephemeral storage %d: the disk's volume, the layer and the log", used)
		}
		var brief stats.Summary
		m.getJSON("/stats/summary?only_cpu_and_memory=true", &brief)
		if brief.Pods[0].VolumeStats != nil || brief.Pods[0].EphemeralStorage != nil || brief.Pods[0].Memory == nil {
			t.Error("a brief summary measures disks")
		}
	})
	t.Run("metrics for dashboards", func(t *testing.T) {
		_, metrics := m.get("/metrics/cadvisor")
		burn := []string{`container="burn"`, `image="` + testImage + `"`, `namespace="default"`, `pod="busy"`}
		found := regexp.MustCompile(`container_memory_working_set_bytes{container="burn",id="([^"]+)"`).FindStringSubmatch(metrics)
		if found == nil {
			t.Fatalf("no working set in\n%s", metrics)
		}
		cgroup := found[1]
		testenv.Eventually(t, 20*time.Second, func() bool {
			_, metrics = m.get("/metrics/cadvisor")
			told := series(t, metrics, append(burn, "container_memory_usage_bytes{")...)
			is, err := os.ReadFile(filepath.Join("/sys/fs/cgroup/memory", cgroup, "memory.usage_in_bytes"))
			if err != nil {
				is, err = os.ReadFile(filepath.Join("/sys/fs/cgroup", cgroup, "memory.current"))
			}
			must(t, err)
			bytes, err := strconv.ParseFloat(strings.TrimSpace(string(is)), 64)
			must(t, err)
			return told > held && told > bytes-(2<<20) && told < bytes+(2<<20)
		}, "the memory told is the cgroup's")
		for name, least := range map[string]float64{
			"container_cpu_usage_seconds_total{": 0.01, "container_cpu_cfs_throttled_periods_total{": 1, "container_cpu_cfs_throttled_seconds_total{": 0.001, "container_spec_cpu_quota{": 20000,
			"container_spec_cpu_shares{": 102, "container_spec_memory_limit_bytes{": 128 << 20, "container_memory_working_set_bytes{": held, "container_start_time_seconds{": 1e9,
			"container_fs_usage_bytes{": 1 << 20, "container_processes{": 1,
		} {
			if got := series(t, metrics, append(burn, name)...); got < least {
				t.Errorf("%s %v, want at least %v", name, got, least)
			}
		}
		pod := []string{`container=""`, `pod="busy"`, `interface="eth0"`}
		series(t, metrics, append(pod, "container_network_receive_bytes_total{")...)
		series(t, metrics, append(pod, "container_network_transmit_packets_dropped_total{")...)
		if series(t, metrics, "container_memory_working_set_bytes{", `id="/"`) < held || series(t, metrics, "machine_memory_bytes") < held || series(t, metrics, "machine_cpu_cores") < 1 ||
			series(t, metrics, "container_fs_limit_bytes{", `id="/"`) == 0 {
			t.Error("the machine's own figures")
		}
		_, metrics = m.get("/metrics/resource")
		one := []string{`container="burn"`, `namespace="default"`, `pod="busy"`}
		if series(t, metrics, append(one, "container_cpu_usage_seconds_total{")...) == 0 || series(t, metrics, append(one, "container_memory_working_set_bytes{")...) < held ||
			series(t, metrics, "pod_memory_working_set_bytes{") < held || series(t, metrics, "node_cpu_usage_seconds_total") == 0 || series(t, metrics, "resource_scrape_error") != 0 {
			t.Errorf("resource metrics\n%s", metrics)
		}
	})
}
