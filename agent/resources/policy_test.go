package resources

import (
	"testing"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/skiff-run/skiff/internal/config"
)

func TestPolicyOfTheNode(t *testing.T) {
	t.Parallel()
	half := podOf(v1.ResourceRequirements{Requests: list("500m", "512Mi"), Limits: list("1", "1Gi")})
	guaranteed := podOf(v1.ResourceRequirements{Requests: list("1", "1Gi"), Limits: list("1", "1Gi")})
	for name, c := range map[string]struct {
		policy             Policy
		pod                *v1.Pod
		quota, period      int64
		swap, memoryToSwap string
	}{
		"a longer period":                    {Policy{QuotaPeriod: 200000}, half, 200000, 200000, "", "1073741824"},
		"limits on CPU are not enforced":     {Policy{}, half, 0, 0, "", "1073741824"},
		"nobody swaps in cgroup v2":          {Policy{QuotaPeriod: 100000, Unified: true}, half, 100000, 100000, "0", "0"},
		"an eighth of memory is of swap":     {Policy{QuotaPeriod: 100000, Unified: true, Swap: 8 << 30, MemoryCapacity: 4 << 30}, half, 100000, 100000, "1073741824", "0"},
		"guaranteed pods do not swap":        {Policy{QuotaPeriod: 100000, Unified: true, Swap: 8 << 30, MemoryCapacity: 4 << 30}, guaranteed, 100000, 100000, "0", "0"},
		"whoever has a processor runs on it": {Policy{QuotaPeriod: 100000, Exclusive: func(*v1.Pod, *v1.Container) string { return "1" }}, guaranteed, -1, 100000, "", "1073741824"},
	} {
		r := c.policy.Container(c.pod, &c.pod.Spec.Containers[0])
		total := resource.NewQuantity(r.MemorySwapLimitInBytes, resource.DecimalSI).String()
		if r.CpuQuota != c.quota || r.CpuPeriod != c.period || r.Unified[swapFile] != c.swap || total != c.memoryToSwap {
			t.Errorf("%s: quota %d, period %d, swap %q, memory and swap %s", name, r.CpuQuota, r.CpuPeriod, r.Unified[swapFile], total)
		}
	}
	shared := Policy{Shared: func() string { return "0,2" }}
	if r := shared.Container(half, &half.Spec.Containers[0]); r.CpusetCpus != "0,2" {
		t.Errorf("runs on %q", r.CpusetCpus)
	}
	own := Policy{QuotaPeriod: 100000, Exclusive: func(*v1.Pod, *v1.Container) string { return "1" }}
	if r := own.Pod(guaranteed); r.CpuQuota != 0 {
		t.Errorf("the pod is stopped after %d", r.CpuQuota)
	}
}

func TestPodLevelResources(t *testing.T) {
	t.Parallel()
	pod := podOf(v1.ResourceRequirements{Requests: list("", "1Gi"), Limits: list("1", "2Gi")}, v1.ResourceRequirements{})
	pod.Spec.Resources = &v1.ResourceRequirements{Requests: list("1", "3Gi"), Limits: list("2", "4Gi")}
	pod.Spec.Resources.Limits["hugepages-2Mi"] = resource.MustParse("8Mi")
	pod.Spec.Containers[0].Resources.Limits["hugepages-2Mi"] = resource.MustParse("4Mi")
	const gi = 1 << 30
	own, bound := ForContainer(pod, &pod.Spec.Containers[0], 16*gi), ForContainer(pod, &pod.Spec.Containers[1], 16*gi)
	if own.CpuQuota != 100000 || own.MemoryLimitInBytes != 2*gi || bound.CpuQuota != 200000 || bound.MemoryLimitInBytes != 4*gi {
		t.Errorf("own limits %v, the pod's %v", own, bound)
	}
	// 2Gi that nobody claims lower both scores by an eighth of 1Gi in 16Gi each.
	if own.OomScoreAdj != 1000-125 || bound.OomScoreAdj != 1000-62 {
		t.Errorf("scores %d and %d", own.OomScoreAdj, bound.OomScoreAdj)
	}
	pages := map[string]uint64{}
	for _, l := range own.HugepageLimits {
		pages[l.GetPageSize()] = l.GetLimit()
	}
	if pages["2MB"] != 4<<20 {
		t.Errorf("huge pages of its own: %v", pages)
	}
	for _, l := range bound.HugepageLimits {
		if l.GetPageSize() == "2MB" && l.GetLimit() != 8<<20 || l.GetPageSize() != "2MB" && l.GetLimit() != 0 {
			t.Errorf("huge pages of the pod: %v", l)
		}
	}
	if p := ForPod(pod); p.CpuQuota != 200000 || p.MemoryLimitInBytes != 4*gi || p.CpuShares != 1024 {
		t.Errorf("the pod: %v", p)
	}
}

func TestSidecarsOutliveWhomTheyServe(t *testing.T) {
	t.Parallel()
	pod := podOf(v1.ResourceRequirements{Requests: list("", "1Gi")})
	always := v1.ContainerRestartPolicyAlways
	pod.Spec.InitContainers = []v1.Container{{Name: "proxy", RestartPolicy: &always}}
	if score := OOMScoreAdj(pod, &pod.Spec.InitContainers[0], 4<<30); score != 750 {
		t.Errorf("score %d, that of the container is 750", score)
	}
}

func TestWhatIsReservedIsKeptFromPods(t *testing.T) {
	t.Parallel()
	capacity := v1.ResourceList{
		v1.ResourceCPU: resource.MustParse("4"), v1.ResourceMemory: resource.MustParse("8Gi"), v1.ResourceEphemeralStorage: resource.MustParse("100Gi"),
		v1.ResourcePods: resource.MustParse("110"), "hugepages-2Mi": resource.MustParse("1Gi"),
	}
	c := config.DefaultAgent().Resources
	c.SystemReserved = map[string]string{"cpu": "500m", "memory": "1Gi", "ephemeral-storage": "5Gi"}
	c.KubeReserved = map[string]string{"cpu": "500m"}
	r, err := NewReservations(&c, capacity)
	if err != nil {
		t.Fatal(err)
	}
	offered, enforced := r.Allocatable(capacity), r.Enforced(capacity)
	for name, want := range map[v1.ResourceName]string{v1.ResourceCPU: "3", v1.ResourceMemory: "6044Mi", v1.ResourceEphemeralStorage: "85Gi", v1.ResourcePods: "110", "hugepages-2Mi": "1Gi"} {
		if got, want := offered[name], resource.MustParse(want); max(got.Value()-want.Value(), want.Value()-got.Value()) > 1<<10 {
			t.Errorf("%s: %s, want %s", name, got.String(), want.String())
		}
	}
	if got := enforced[v1.ResourceMemory]; got.String() != "7Gi" || r.CPUs() != 1 {
		t.Errorf("enforced are %s of memory; %d processors are reserved", got.String(), r.CPUs())
	}
	c.ReservedSystemCPUs = "0-2"
	if r, err = NewReservations(&c, capacity); err != nil || r.CPUs() != 3 {
		t.Errorf("%d processors are reserved: %v", r.CPUs(), err)
	}
	c.KubeReserved = map[string]string{"memory": "9Gi"}
	if _, err := NewReservations(&c, capacity); err == nil {
		t.Error("more is reserved than there is")
	}
}
