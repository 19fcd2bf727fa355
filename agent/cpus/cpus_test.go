package cpus

import (
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/cpuset"
)

// twoSockets has two sockets of two cores of two threads: the second threads are 4 to 7.
func twoSockets() Topology {
	return Topology{{0, 0, 0}, {1, 1, 0}, {2, 0, 1}, {3, 1, 1}, {4, 0, 0}, {5, 1, 0}, {6, 0, 1}, {7, 1, 1}}
}

func TestProcessorsAreTakenTogether(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		available string
		n         int
		want      string
	}{
		"one thread":                            {"0-7", 1, "0"},
		"a whole core":                          {"0-7", 2, "0,4"},
		"a whole socket":                        {"0-7", 4, "0-1,4-5"},
		"a whole core before two halves":        {"1-7", 2, "1,5"},
		"a thread of a core in use":             {"1-7", 1, "4"},
		"the socket with less room":             {"0,2-7", 2, "0,4"},
		"everything":                            {"0-7", 8, "0-7"},
		"more than there is":                    {"0-3", 5, ""},
		"a socket, a core and a thread of more": {"0-7", 7, "0-2,4-6,3"},
	} {
		set, err := cpuset.Parse(c.available)
		if err != nil {
			t.Fatal(err)
		}
		got, ok := twoSockets().take(set, c.n)
		want, _ := cpuset.Parse(c.want)
		if ok != (c.want != "") || (ok && !got.Equals(want)) {
			t.Errorf("%s: %s, want %s", name, got, c.want)
		}
		if ok && (got.Size() != c.n || !got.IsSubsetOf(set)) {
			t.Errorf("%s: %s", name, got)
		}
	}
}

func guaranteed(name, cpu string) *v1.Pod {
	p := &v1.Pod{}
	p.Name, p.UID, p.Status.QOSClass = name, types.UID(name), v1.PodQOSGuaranteed
	p.Spec.Containers = []v1.Container{{Name: "c", Resources: v1.ResourceRequirements{Requests: v1.ResourceList{v1.ResourceCPU: resource.MustParse(cpu)}}}}
	return p
}

func manager(t *testing.T, file string, static bool) (*Manager, error) {
	t.Helper()
	return New(Config{
		Static: static, Topology: twoSockets(), Reserved: cpuset.New(0, 4), File: file, Logger: slog.New(slog.DiscardHandler), Changed: func() {},
	})
}

func TestWhoHasWhichProcessor(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "cpus.json")
	m, err := manager(t, file, true)
	if err != nil {
		t.Fatal(err)
	}
	a, b, half := guaranteed("a", "2"), guaranteed("b", "4"), guaranteed("half", "1500m")
	for _, pod := range []*v1.Pod{a, half} {
		if err := m.Admit(pod, nil); err != nil {
			t.Fatal(err)
		}
	}
	if own, shared := m.Exclusive(a, &a.Spec.Containers[0]), m.Shared(); own != "1,5" || shared != "0,2-4,6-7" {
		t.Errorf("a has %s, the others %s", own, shared)
	}
	if m.Exclusive(half, &half.Spec.Containers[0]) != "" {
		t.Error("one and a half processors are exclusive")
	}
	// A new agent goes on from there, and takes nothing back before it knows the pods.
	if m, err = manager(t, file, true); err != nil {
		t.Fatal(err)
	}
	if err := m.Admit(b, nil); err != nil {
		t.Fatal(err)
	}
	if own := m.Exclusive(b, &b.Spec.Containers[0]); own != "2-3,6-7" {
		t.Errorf("b has %s", own)
	}
	const want = "not enough cpus available to satisfy request: requested=1, available=0"
	if err := m.Admit(guaranteed("late", "1"), []*v1.Pod{a, b}); err == nil || err.Error() != want {
		t.Errorf("error %v, want %s", err, want)
	}
	m.Known()
	if err := m.Admit(guaranteed("late", "1"), []*v1.Pod{b}); err != nil {
		t.Errorf("a has ended and its processors are kept: %v", err)
	}
	if _, err := manager(t, file, false); err == nil || !strings.Contains(err.Error(), `configured policy "none" differs from state checkpoint policy "static"`) {
		t.Errorf("another policy: %v", err)
	}
	m.Prune(nil)
	if m.Shared() != "0-7" {
		t.Errorf("nobody is left, and shared are %s", m.Shared())
	}
	if _, err := manager(t, file, false); err != nil {
		t.Errorf("another policy on an empty node: %v", err)
	}
}

func TestInitContainersLeaveTheirProcessors(t *testing.T) {
	t.Parallel()
	m, err := manager(t, filepath.Join(t.TempDir(), "cpus.json"), true)
	if err != nil {
		t.Fatal(err)
	}
	pod := guaranteed("a", "4")
	always := v1.ContainerRestartPolicyAlways
	pod.Spec.InitContainers = []v1.Container{guaranteed("", "6").Spec.Containers[0], guaranteed("", "2").Spec.Containers[0]}
	pod.Spec.InitContainers[0].Name, pod.Spec.InitContainers[1].Name, pod.Spec.InitContainers[1].RestartPolicy = "init", "sidecar", &always
	if err := m.Admit(pod, nil); err != nil {
		t.Fatal(err)
	}
	parse := func(c *v1.Container) cpuset.CPUSet { set, _ := cpuset.Parse(m.Exclusive(pod, c)); return set }
	sidecar, app := parse(&pod.Spec.InitContainers[1]), parse(&pod.Spec.Containers[0])
	if sidecar.Size() != 2 || app.Size() != 4 || !sidecar.Intersection(app).IsEmpty() {
		t.Errorf("sidecar %s, container %s", sidecar, app)
	}
}

func TestTheMachinesTopology(t *testing.T) {
	t.Parallel()
	top, err := ReadTopology("/sys/devices/system/cpu")
	if err != nil || len(top) == 0 {
		t.Fatalf("%v, %v", top, err)
	}
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "online"), []byte("0-2\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if top, err := ReadTopology(dir); err != nil || top.All().String() != "0-2" || top[1].core == top[2].core {
		t.Errorf("a machine that does not tell: %v, %v", top, err)
	}
}
