package runtime_test

import (
	"context"
	"os/exec"
	"sync"
	"testing"
	"time"

	"github.com/skiff-run/skiff/runtime"
)

// benchHarness is one runtime that is measured.
type benchHarness struct {
	*testing.B
	d  *daemon
	rt *runtime.Runtime

	mu    sync.Mutex // guards what follows
	steps [3]time.Duration
	count int
}

// benchNumber tells the runtime under measurement from those of the tests.
const benchNumber = 200

func (h *benchHarness) open() {
	h.Helper()
	rt, err := runtime.New(context.Background(), h.d.options(benchNumber))
	if err != nil {
		h.Fatal(err)
	}
	if err := rt.SetPodCIDRs(context.Background(), podCIDR(benchNumber)); err != nil {
		h.Fatal(err)
	}
	h.rt = rt
	// The first container of an image looks up its user; that is not what is measured.
	if err := h.pod("warm"); err != nil {
		h.Fatal(err)
	}
	h.removeAll()
	h.steps, h.count = [3]time.Duration{}, 0
}

func (h *benchHarness) removeAll() {
	h.Helper()
	list, err := h.rt.ListPodSandbox(context.Background(), nil)
	if err != nil {
		h.Fatal(err)
	}
	var wg sync.WaitGroup
	for _, s := range list {
		wg.Go(func() {
			if err := h.rt.RemovePodSandbox(context.Background(), s.GetId()); err != nil {
				h.Error(err)
			}
		})
	}
	wg.Wait()
}

func (h *benchHarness) removeByCtr(id string) {
	program := "ctr"
	if h.d.bin != "" {
		program = h.d.program("ctr")
	}
	for _, args := range [][]string{{"task", "rm", "-f", id}, {"container", "rm", id}} {
		if out, err := exec.Command(program, append([]string{"-a", h.d.socket(), "-n", "k8s.io"}, args...)...).CombinedOutput(); err != nil {
			h.Errorf("ctr %v: %v: %s", args, err, out)
		}
	}
}

func (h *benchHarness) cleanUp() {
	if h.count > 0 {
		n := time.Duration(h.count)
		h.Logf("sandbox %s, create %s, start %s", h.steps[0]/n, h.steps[1]/n, h.steps[2]/n)
	}
	if err := h.rt.Close(); err != nil {
		h.Error(err)
	}
	if err := runtime.Cleanup(context.Background(), h.d.options(benchNumber)); err != nil {
		h.Error(err)
	}
}
