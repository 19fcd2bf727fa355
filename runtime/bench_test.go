package runtime_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"sync"
	"testing"
	"time"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// BenchmarkPod compares a pod's way from nothing to running with the same
// container started by ctr, which is the limit set by containerd and runc.
func BenchmarkPod(b *testing.B) {
	for name, bin := range installs(b) {
		b.Run(name, func(b *testing.B) {
			d := startContainerd(b, bin)
			ctr := func(id string) error {
				program := "ctr"
				if _, err := os.Stat(d.program("ctr")); bin != "" && err == nil {
					program = d.program("ctr")
				}
				out, err := exec.Command(program, "-a", d.socket(), "-n", "k8s.io", "run", "-d", "--cgroup", d.options(benchNumber).CgroupRoot+"/kubepods/podctr/"+id, testImage, id, "sleep", "1000").CombinedOutput()
				if err != nil {
					return fmt.Errorf("%w: %s", err, out)
				}
				return nil
			}
			for _, n := range []int{1, 30} {
				b.Run(fmt.Sprintf("ctr/%d", n), func(b *testing.B) { measure(b, d, n, ctr) })
				b.Run(fmt.Sprintf("skiff/%d", n), func(b *testing.B) { measure(b, d, n, nil) })
			}
		})
	}
}

// measure starts n pods, eight at a time, and reports the time until all run.
func measure(b *testing.B, d *daemon, n int, start func(id string) error) {
	h := &benchHarness{B: b, d: d}
	h.open()
	defer h.cleanUp()
	round := 0
	for b.Loop() {
		round++
		began := time.Now()
		limit := make(chan struct{}, 8)
		var wg sync.WaitGroup
		for i := range n {
			limit <- struct{}{}
			wg.Go(func() {
				defer func() { <-limit }()
				id := fmt.Sprintf("bench-%d-%d-%d", n, round, i)
				var err error
				if start != nil {
					err = start(id)
				} else {
					err = h.pod(id)
				}
				if err != nil {
					b.Error(err)
				}
			})
		}
		wg.Wait()
		b.ReportMetric(float64(time.Since(began).Milliseconds()), "ms/round")
		b.StopTimer()
		if start != nil {
			for i := range n {
				h.removeByCtr(fmt.Sprintf("bench-%d-%d-%d", n, round, i))
			}
		} else {
			h.removeAll()
		}
		b.StartTimer()
	}
}

func (h *benchHarness) pod(id string) error {
	ctx := context.Background()
	config := &runtimeapi.PodSandboxConfig{
		Metadata: &runtimeapi.PodSandboxMetadata{Name: id, Uid: id, Namespace: "default"}, Hostname: "bench", LogDirectory: h.d.dir + "/logs/" + id,
		Linux: &runtimeapi.LinuxPodSandboxConfig{
			CgroupParent:    h.rt.Cgroups().PodParent(id, "BestEffort"),
			SecurityContext: &runtimeapi.LinuxSandboxSecurityContext{NamespaceOptions: &runtimeapi.NamespaceOption{Pid: runtimeapi.NamespaceMode_CONTAINER}},
		},
	}
	began := time.Now()
	sandbox, err := h.rt.RunPodSandbox(ctx, config, "")
	if err != nil {
		return err
	}
	made := time.Now()
	container, err := h.rt.CreateContainer(ctx, sandbox, &runtimeapi.ContainerConfig{
		Metadata: &runtimeapi.ContainerMetadata{Name: "main"}, Image: &runtimeapi.ImageSpec{Image: testImage}, Command: []string{"sleep", "1000"}, LogPath: "main/0.log",
		Linux: &runtimeapi.LinuxContainerConfig{SecurityContext: &runtimeapi.LinuxContainerSecurityContext{NamespaceOptions: &runtimeapi.NamespaceOption{Pid: runtimeapi.NamespaceMode_CONTAINER}}},
	}, config)
	if err != nil {
		return err
	}
	created := time.Now()
	if err := h.rt.StartContainer(ctx, container); err != nil {
		return err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.steps[0] += made.Sub(began)
	h.steps[1] += created.Sub(made)
	h.steps[2] += time.Since(created)
	h.count++
	return nil
}
