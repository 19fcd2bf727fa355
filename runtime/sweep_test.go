package runtime

import (
	"os/exec"
	"syscall"
	"testing"
	"time"

	"github.com/skiff-run/skiff/internal/testenv"
)

func TestShimsOfANodeWithinAContainerAreNotOurs(t *testing.T) {
	t.Parallel()
	testenv.RequireRoot(t)
	r := &Runtime{options: Options{Namespace: "k8s.io", ContainerdAddress: t.TempDir() + "/containerd.sock"}}
	start := func(id string, flags uintptr) int {
		t.Helper()
		bash, err := exec.LookPath("bash")
		if err != nil {
			t.Skip(err)
		}
		// A process with a shim's command line that waits for the end of its input.
		shim := &exec.Cmd{
			Path: bash, SysProcAttr: &syscall.SysProcAttr{Cloneflags: flags},
			Args: []string{"containerd-shim-runc-v2", "-c", "read -r x", "-namespace", "k8s.io", "-id", id, "-address", r.options.ContainerdAddress},
		}
		input, err := shim.StdinPipe()
		if err == nil {
			err = shim.Start()
		}
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			input.Close()
			_ = shim.Wait()
		})
		return shim.Process.Pid
	}
	own := start("own", 0)
	start("within", syscall.CLONE_NEWPID)
	testenv.Eventually(t, 5*time.Second, func() bool {
		found, err := r.shims()
		return err == nil && len(found) == 1 && found[0].pid == own && found[0].id == "own"
	}, "want the shim of our own process table alone")
}
