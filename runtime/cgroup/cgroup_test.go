package cgroup

import (
	"context"
	"fmt"
	"os"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"

	"github.com/skiff-run/skiff/internal/testenv"
)

func TestWeightsMeetAtMinimumDefaultAndMaximum(t *testing.T) {
	t.Parallel()
	for shares, want := range map[uint64]uint64{0: 0, 2: 1, 1024: 100, 262144: 10000} {
		if got := Weight(shares); got != want {
			t.Errorf("%d shares weigh %d, want %d", shares, got, want)
		}
	}
}

func TestSlicesAreNamedAsSystemdNestsThem(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ cgroup, slice, path string }{
		"the tree's top":    {"/kubepods", "kubepods.slice", "/kubepods.slice"},
		"a tier":            {"/kubepods/burstable", "kubepods-burstable.slice", "/kubepods.slice/kubepods-burstable.slice"},
		"a UID has dashes":  {"/kubepods/burstable/podab-cd", "kubepods-burstable-podab_cd.slice", "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-podab_cd.slice"},
		"a slice stays one": {"/kubepods.slice/kubepods-x.slice", "kubepods-x.slice", "/kubepods.slice/kubepods-x.slice"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if got := SliceName(c.cgroup); got != c.slice {
				t.Errorf("slice %s, want %s", got, c.slice)
			}
			if got := slicePath(c.slice); got != c.path {
				t.Errorf("path %s, want %s", got, c.path)
			}
		})
	}
}

func TestContainersStandBelowTheirPod(t *testing.T) {
	t.Parallel()
	for driver, want := range map[string][2]string{
		DriverCgroupfs: {"/kubepods/burstable/podu-1/abc", "/kubepods/burstable/podu-1/abc"},
		DriverSystemd:  {"kubepods-burstable-podu_1.slice:cri-containerd:abc", "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-podu_1.slice/cri-containerd-abc.scope"},
	} {
		m := &Manager{driver: driver}
		got := m.ContainerPath(m.PodParent("u-1", "Burstable"), "abc")
		if got != want[0] || m.FilePath(got) != want[1] {
			t.Errorf("%s: %s at %s", driver, got, m.FilePath(got))
		}
	}
}

func TestLimitsBecomeFilesOfTheVersion(t *testing.T) {
	t.Parallel()
	r := Resources{CPUShares: 1024, CPUQuota: 50000, MemoryLimit: 1 << 20, PidsLimit: -1}
	if diff := cmp.Diff([]write{
		{"cpu", "cpu.shares", "1024"}, {"cpu", "cpu.cfs_period_us", "100000"}, {"cpu", "cpu.cfs_quota_us", "50000"},
		{"memory", "memory.limit_in_bytes", "1048576"}, {"pids", "pids.max", "max"},
	}, r.filesV1(), cmp.AllowUnexported(write{})); diff != "" {
		t.Error(diff)
	}
	r.Unified = map[string]string{"memory.high": "1"}
	if diff := cmp.Diff([]write{
		{"cpu", "cpu.weight", "100"}, {"cpu", "cpu.max", "50000 100000"}, {"memory", "memory.max", "1048576"}, {"pids", "pids.max", "max"}, {"", "memory.high", "1"},
	}, r.filesV2(), cmp.AllowUnexported(write{})); diff != "" {
		t.Error(diff)
	}
	if len(Resources{}.filesV1())+len(Resources{}.filesV2()) > 0 {
		t.Error("no limits write something")
	}
}

func TestTheTreeOfTheMachine(t *testing.T) {
	testenv.RequireRoot(t)
	m, err := New(Options{Root: fmt.Sprintf("/skiff-runtime-test-cgroup-%d", os.Getpid()), Driver: DriverCgroupfs})
	if err != nil {
		t.Skipf("needs a writable cgroup tree: %v", err)
	}
	ctx := context.Background()
	t.Cleanup(func() {
		if err := m.RemoveAll(ctx); err != nil {
			t.Error(err)
		}
		if m.tree.exists(m.root) {
			t.Error("something is left")
		}
	})
	if err := m.SetupRoot(ctx, Resources{CPUShares: 2048}); err != nil {
		t.Fatal(err)
	}
	for uid, qos := range map[string]string{"u-1": "Guaranteed", "u-2": "Burstable", "u-3": "BestEffort"} {
		if err := m.SetPod(ctx, uid, corev1.PodQOSClass(qos), Resources{CPUShares: 100, MemoryLimit: 64 << 20, PidsLimit: 10}); err != nil {
			t.Fatal(err)
		}
	}
	pods, err := m.Pods()
	slices.Sort(pods)
	if err != nil || !slices.Equal(pods, []string{"u-1", "u-2", "u-3"}) {
		t.Errorf("pods %v: %v", pods, err)
	}
	if s, err := m.PodStats("u-2"); err != nil || s.MemoryLimit != 64<<20 {
		t.Errorf("stats %+v: %v", s, err)
	}
	for range 2 {
		if err := m.RemovePod(ctx, "u-2"); err != nil {
			t.Error(err)
		}
	}
	if pods, _ := m.Pods(); slices.Contains(pods, "u-2") {
		t.Error("the pod is still there")
	}
}
