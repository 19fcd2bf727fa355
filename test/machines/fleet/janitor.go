package fleet

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/skiff-run/skiff/internal/testenv"
)

// janitorOf is the variable that tells a process that it is a janitor, of fleets
// with this name.
const janitorOf = "SKIFF_FLEET_JANITOR"

// Janitor cleans up and ends the process, if that is what it was started for:
// TestMain of a package whose tests Claim calls it first. A janitor outlives a
// test that is interrupted, killed, or panics, and takes its fleet away.
func Janitor() {
	name := os.Getenv(janitorOf)
	if name == "" {
		return
	}
	_, _ = io.Copy(io.Discard, os.Stdin) // until the test's process has ended
	if err := sweep(name); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

// sweep removes fleets of this name that nobody holds. Who holds a name removes
// what was left under it first, so a fleet that has the name by now is safe.
func sweep(name string) error {
	cache, err := Cache()
	if err != nil {
		return err
	}
	_, release, err := testenv.Hold(Prefix+name, func(name string) testenv.Traces { return Traces(filepath.Join(cache, name)) })
	if err != nil {
		return err
	}
	release()
	return nil
}

// callJanitor starts a janitor, which sees our end by that of its input.
func callJanitor(t testing.TB, name string) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	janitor := exec.Command(self, "-test.run=^$")
	janitor.Env = append(os.Environ(), janitorOf+"="+name)
	janitor.Dir = "/"
	janitor.SysProcAttr = &syscall.SysProcAttr{Setsid: true} // Ctrl-C is meant for the test
	input, err := janitor.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := janitor.Start(); err != nil {
		t.Fatalf("call the janitor: %v", err)
	}
	t.Cleanup(func() {
		_ = input.Close()
		if err := janitor.Wait(); err != nil {
			t.Errorf("the janitor: %v", err)
		}
	})
}
