package eviction

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/types"
	stats "k8s.io/kubelet/pkg/apis/stats/v1alpha1"

	"github.com/skiff-run/skiff/internal/config"
)

const mi = 1 << 20

var noon = time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)

func left(mebibytes int64) Observations {
	return Observations{memoryAvailable: {mebibytes * mi, 1000 * mi, resource.BinarySI}}
}

func threshold(mebibytes int64, grace time.Duration, reclaim int64) config.Threshold {
	return config.Threshold{
		Signal: memoryAvailable, GracePeriod: grace, Value: config.Amount{Value: mebibytes * mi, Format: resource.BinarySI},
		MinReclaim: config.Amount{Value: reclaim * mi, Format: resource.BinarySI},
	}
}

func TestPressureIsActedUponAndRemembered(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		threshold config.Threshold
		// looks are what is left every 10 s; the strings say what follows: + acts, p tells of pressure.
		looks []int64
		want  string
	}{
		"enough":                                     {threshold(100, 0, 0), []int64{500, 100}, ". ."},
		"a hard threshold acts at once":              {threshold(100, 0, 0), []int64{99}, "p+"},
		"the condition outlasts the pressure":        {threshold(100, 0, 0), []int64{99, 500, 500, 500, 500}, "p+ p p . ."},
		"a soft threshold waits":                     {threshold(100, 20*time.Second, 0), []int64{99, 99, 99}, "p p p+"},
		"a soft threshold forgets":                   {threshold(100, 20*time.Second, 0), []int64{99, 500, 99, 99, 99}, "p p p p p+"},
		"more than the threshold has to be free":     {threshold(100, 0, 50), []int64{99, 120, 151, 120}, "p+ p+ p p"},
		"what is free before does not ask for more":  {threshold(100, 0, 50), []int64{120}, "."},
		"a soft threshold waits for more to be free": {threshold(100, 10*time.Second, 50), []int64{99, 99, 120, 160}, "p p+ p+ p"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := state{thresholds: []config.Threshold{c.threshold}, transition: 25 * time.Second}
			var got []string
			for i, amount := range c.looks {
				act, conditions := s.look(left(amount), noon.Add(time.Duration(i)*10*time.Second))
				one := ""
				if slices.Contains(conditions, v1.NodeMemoryPressure) {
					one += "p"
				}
				if len(act) > 0 {
					one += "+"
				}
				if one == "" {
					one = "."
				}
				got = append(got, one)
			}
			if text := strings.Join(got, " "); text != c.want {
				t.Errorf("got %s, want %s", text, c.want)
			}
		})
	}
}

func TestMemoryIsMoreUrgentThanTheDisk(t *testing.T) {
	t.Parallel()
	s := state{thresholds: withAllocatable([]config.Threshold{
		{Signal: nodefsAvailable, Value: config.Amount{Share: 0.1}}, threshold(100, 0, 0), {Signal: pidAvailable, Value: config.Amount{Share: 0.1}},
	}), transition: time.Minute}
	seen := left(50)
	seen[nodefsAvailable] = Observation{9, 100, resource.BinarySI}
	seen[allocatableMemory] = Observation{99 * mi, 500 * mi, resource.BinarySI}
	act, conditions := s.look(seen, noon)
	if len(act) != 3 || resourceOf(act[0].Signal) != v1.ResourceMemory || resourceOf(act[1].Signal) != v1.ResourceMemory || act[2].Signal != nodefsAvailable {
		t.Errorf("acts upon %v", act)
	}
	if fmt.Sprint(conditions) != "[MemoryPressure DiskPressure]" {
		t.Errorf("conditions %v", conditions)
	}
}

func pod(name string, priority int32, requests string) *v1.Pod {
	p := &v1.Pod{Spec: v1.PodSpec{Priority: &priority, Containers: []v1.Container{{Name: "c"}}}}
	p.Name, p.UID = name, types.UID(name)
	if requests != "" {
		p.Spec.Containers[0].Resources.Requests = v1.ResourceList{
			v1.ResourceMemory: resource.MustParse(requests), v1.ResourceEphemeralStorage: resource.MustParse(requests),
		}
	}
	return p
}

// uses is a pod with that much memory, disk and that many processes.
func uses(name string, mebibytes, processes uint64) *stats.PodStats {
	bytes, half := mebibytes*mi, mebibytes*mi/2
	return &stats.PodStats{
		PodRef: stats.PodReference{Name: name, UID: name}, Memory: &stats.MemoryStats{WorkingSetBytes: &bytes}, ProcessStats: &stats.ProcessStats{ProcessCount: &processes},
		EphemeralStorage: &stats.FsStats{UsedBytes: &bytes},
		Containers: []stats.ContainerStats{{
			Name: "c", Memory: &stats.MemoryStats{WorkingSetBytes: &bytes}, Rootfs: &stats.FsStats{UsedBytes: &half}, Logs: &stats.FsStats{UsedBytes: &half},
		}},
	}
}

func TestWhoIsEvictedFirst(t *testing.T) {
	t.Parallel()
	pods := []*v1.Pod{
		pod("modest", 0, "500Mi"), pod("important", 9, "100Mi"), pod("greedy", 0, "100Mi"), pod("greedier", 0, "100Mi"), pod("unknown", 9, ""), pod("besteffort", 0, ""),
	}
	used := map[string]*stats.PodStats{}
	for name, u := range map[string][2]uint64{"modest": {400, 900}, "important": {300, 1}, "greedy": {300, 2}, "greedier": {400, 3}, "besteffort": {250, 4}} {
		used[name] = uses(name, u[0], u[1])
	}
	for signal, want := range map[string]string{
		memoryAvailable: "unknown greedier besteffort greedy important modest",
		nodefsAvailable: "unknown greedier besteffort greedy important modest",
		pidAvailable:    "unknown modest besteffort greedier greedy important",
	} {
		ranked := slices.Clone(pods)
		rank(ranked, used, signal, false)
		var names []string
		for _, p := range ranked {
			names = append(names, p.Name)
		}
		if got := strings.Join(names, " "); got != want {
			t.Errorf("%s: %s, want %s", signal, got, want)
		}
	}
}

func TestWhatThePodIsTold(t *testing.T) {
	t.Parallel()
	text, annotations := message(v1.ResourceMemory, pod("web", 0, "100Mi"), uses("web", 300, 1), []config.Threshold{threshold(100, 0, 0)}, left(50))
	if want := "The node was low on resource: memory. Threshold quantity: 100Mi, available: 50Mi. Container c was using 300Mi, request is 100Mi, has larger consumption of memory. "; text != want {
		t.Errorf("got  %q\nwant %q", text, want)
	}
	if annotations["starved_resource"] != "memory" || annotations["offending_containers"] != "c" || annotations["offending_containers_usage"] != "300Mi" {
		t.Errorf("annotations %v", annotations)
	}
}

func TestLimitsOnTheDisk(t *testing.T) {
	t.Parallel()
	limited := func(container, volume string) *v1.Pod {
		p := pod("web", 0, "")
		if container != "" {
			p.Spec.Containers[0].Resources.Limits = v1.ResourceList{v1.ResourceEphemeralStorage: resource.MustParse(container)}
		}
		if volume != "" {
			limit := resource.MustParse(volume)
			p.Spec.Volumes = []v1.Volume{{Name: "scratch", VolumeSource: v1.VolumeSource{EmptyDir: &v1.EmptyDirVolumeSource{SizeLimit: &limit}}}}
		}
		return p
	}
	used := uses("web", 100, 1)
	volume := uint64(30 * mi)
	used.VolumeStats = []stats.VolumeStats{{Name: "scratch", FsStats: stats.FsStats{UsedBytes: &volume}}}
	for name, c := range map[string]struct {
		pod  *v1.Pod
		used *stats.PodStats
		want string
	}{
		"no limit":            {limited("", ""), used, ""},
		"within the limits":   {limited("100Mi", "30Mi"), used, ""},
		"a volume too full":   {limited("100Mi", "29Mi"), used, `Usage of EmptyDir volume "scratch" exceeds the limit "29Mi". `},
		"too much altogether": {limited("99Mi", "30Mi"), used, "Pod ephemeral local storage usage exceeds the total limit of containers 99Mi. "},
		"a container too much": {limited("50Mi", ""), func() *stats.PodStats {
			u := uses("web", 100, 1)
			u.EphemeralStorage = nil
			return u
		}(), `Container c exceeded its local ephemeral storage limit "50Mi". `},
	} {
		if got := beyondDisk(c.pod, c.used, false); got != c.want {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
		if limitsDisk(c.pod) != (name != "no limit") {
			t.Errorf("%s: limits are seen: %v", name, limitsDisk(c.pod))
		}
	}
}

func TestTheMachineCanBeObserved(t *testing.T) {
	t.Parallel()
	found := Observations{}
	for _, err := range []error{memory(found), fileSystem(found, t.TempDir(), nodefsAvailable, nodefsInodes), processIDs(found)} {
		if err != nil {
			t.Error(err)
		}
	}
	for _, signal := range []string{memoryAvailable, nodefsAvailable, pidAvailable} {
		if o := found[signal]; o.Available <= 0 || o.Available > o.Capacity {
			t.Errorf("%s: %+v", signal, o)
		}
	}
}
