package resources

import (
	"testing"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
)

func list(cpu, memory string) v1.ResourceList {
	l := v1.ResourceList{}
	if cpu != "" {
		l[v1.ResourceCPU] = resource.MustParse(cpu)
	}
	if memory != "" {
		l[v1.ResourceMemory] = resource.MustParse(memory)
	}
	return l
}

func podOf(requirements ...v1.ResourceRequirements) *v1.Pod {
	p := &v1.Pod{}
	for _, r := range requirements {
		p.Spec.Containers = append(p.Spec.Containers, v1.Container{Resources: r})
	}
	return p
}

func TestQOSAndOOMScore(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		pod   *v1.Pod
		class v1.PodQOSClass
		score int64
		path  string
	}{
		"nothing asked":           {podOf(v1.ResourceRequirements{}), v1.PodQOSBestEffort, 1000, "/kubepods/besteffort/podu"},
		"limits for everything":   {podOf(v1.ResourceRequirements{Limits: list("1", "1Gi"), Requests: list("1", "1Gi")}), v1.PodQOSGuaranteed, -997, "/kubepods/podu"},
		"limits without requests": {podOf(v1.ResourceRequirements{Limits: list("1", "1Gi")}), v1.PodQOSGuaranteed, -997, "/kubepods/podu"},
		"only CPU":                {podOf(v1.ResourceRequirements{Requests: list("1", "")}), v1.PodQOSBurstable, 999, "/kubepods/burstable/podu"},
		"a quarter of the memory": {podOf(v1.ResourceRequirements{Requests: list("", "1Gi")}), v1.PodQOSBurstable, 750, "/kubepods/burstable/podu"},
		"nearly all memory":       {podOf(v1.ResourceRequirements{Requests: list("", "4Gi")}), v1.PodQOSBurstable, 3, "/kubepods/burstable/podu"},
		"one container without":   {podOf(v1.ResourceRequirements{Limits: list("1", "1Gi")}, v1.ResourceRequirements{}), v1.PodQOSBurstable, 999, "/kubepods/burstable/podu"},
	} {
		class := QOSClass(test.pod)
		score := OOMScoreAdj(test.pod, &test.pod.Spec.Containers[0], 4<<30)
		if class != test.class || score != test.score || CgroupParent(class, "u") != test.path {
			t.Errorf("%s: %s %d %s, want %s %d %s", name, class, score, CgroupParent(class, "u"), test.class, test.score, test.path)
		}
	}
}

func TestLinuxResources(t *testing.T) {
	t.Parallel()
	pod := podOf(v1.ResourceRequirements{Requests: list("250m", "64Mi"), Limits: list("500m", "128Mi")})
	c := ForContainer(pod, &pod.Spec.Containers[0], 1<<30)
	if c.CpuShares != 256 || c.CpuQuota != 50000 || c.CpuPeriod != 100000 || c.MemoryLimitInBytes != 128<<20 {
		t.Errorf("container: %v", c)
	}
	if p := ForPod(pod); p.CpuShares != 256 || p.CpuQuota != 50000 || p.MemoryLimitInBytes != 128<<20 {
		t.Errorf("pod: %v", p)
	}
	open := podOf(v1.ResourceRequirements{Limits: list("500m", "")}, v1.ResourceRequirements{})
	if p := ForPod(open); p.CpuQuota != 0 || p.MemoryLimitInBytes != 0 {
		t.Errorf("a pod with an unlimited container is limited: %v", p)
	}
	if Shares(0) != 2 || Shares(1) != 2 || Shares(1<<40) != 262144 || Quota(1) != 1000 {
		t.Error("bounds of shares and quota")
	}
}
