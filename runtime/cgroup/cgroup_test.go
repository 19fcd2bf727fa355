package cgroup

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
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
	inForce(t, m, m.PodParent("u-2", corev1.PodQOSBurstable), map[string]string{
		"cpu.shares": "100", "memory.limit_in_bytes": "67108864", "pids.max": "10", "cpu.weight": strconv.FormatUint(Weight(100), 10), "memory.max": "67108864",
	})
	// A resize loosens and tightens what is there.
	if err := m.SetPod(ctx, "u-2", corev1.PodQOSBurstable, Resources{CPUShares: 2048, CPUQuota: 50000, MemoryLimit: -1, PidsLimit: -1}); err != nil {
		t.Fatal(err)
	}
	inForce(t, m, m.PodParent("u-2", corev1.PodQOSBurstable), map[string]string{
		"cpu.shares": "2048", "cpu.cfs_quota_us": "50000", "pids.max": "max", "cpu.weight": strconv.FormatUint(Weight(2048), 10), "cpu.max": "50000 100000", "memory.max": "max",
	})
	if err := errors.Join(m.LimitRoot(ctx, Resources{CPUShares: 1024, MemoryLimit: 1 << 30}), m.SetQOS(ctx, corev1.PodQOSBurstable, Resources{CPUShares: 512})); err != nil {
		t.Fatal(err)
	}
	inForce(t, m, m.tier(""), map[string]string{"cpu.shares": "1024", "memory.limit_in_bytes": "1073741824", "cpu.weight": "100", "memory.max": "1073741824"})
	inForce(t, m, m.tier(corev1.PodQOSBurstable), map[string]string{"cpu.shares": "512", "cpu.weight": strconv.FormatUint(Weight(512), 10)})
	if s, err := m.RootStats(); err != nil || s.MemoryLimit != 1<<30 {
		t.Errorf("all pods: %+v, %v", s, err)
	}
	if err := m.LimitExisting(ctx, "/nobody-has-made-this", Resources{CPUShares: 2}); err == nil {
		t.Error("a cgroup that is not there was limited")
	}
	lingers := exec.Command("sleep", "3600")
	if err := lingers.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- lingers.Wait() }()
	join(t, m, m.PodParent("u-2", corev1.PodQOSBurstable), lingers.Process.Pid)
	for range 2 {
		if err := m.RemovePod(ctx, "u-2"); err != nil {
			t.Error(err)
		}
	}
	if pods, _ := m.Pods(); slices.Contains(pods, "u-2") {
		t.Error("the pod is still there")
	}
	if err := <-ended; err == nil {
		t.Error("what ran in the pod ended by itself")
	}
}

// inForce checks the files that this machine's version of cgroups has.
func inForce(t *testing.T, m *Manager, name string, want map[string]string) {
	t.Helper()
	checked := 0
	for _, dir := range directories(m, name) {
		for file, value := range want {
			data, err := os.ReadFile(filepath.Join(dir, file))
			if errors.Is(err, fs.ErrNotExist) {
				continue
			}
			checked++
			if got := strings.TrimSpace(string(data)); err != nil || got != value {
				t.Errorf("%s: %s is %q, want %q (%v)", name, file, got, value, err)
			}
		}
	}
	if checked == 0 {
		t.Errorf("%s has none of the files", name)
	}
}

// directories are where a cgroup is in the file system: one for each mount.
func directories(m *Manager, name string) []string {
	if v1, is := m.tree.(treeV1); is {
		var dirs []string
		_ = v1.each(func(mount string) error { dirs = append(dirs, filepath.Join(mount, m.path(name))); return nil })
		return dirs
	}
	return []string{filepath.Join(mountPoint, m.path(name))}
}

// join moves a process into a cgroup, or below it where processes may only be in leaves.
func join(t *testing.T, m *Manager, name string, pid int) {
	t.Helper()
	for _, dir := range directories(m, name) {
		if _, err := os.Stat(dir); err != nil {
			continue
		}
		if m.Unified() {
			dir = filepath.Join(dir, "container")
			if err := os.Mkdir(dir, 0o755); err != nil {
				t.Fatal(err)
			}
		}
		if err := writeFile(filepath.Join(dir, "cgroup.procs"), strconv.Itoa(pid)); err != nil {
			t.Fatal(err)
		}
	}
}
