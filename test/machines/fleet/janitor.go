package fleet

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

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
	if over, _ := io.ReadAll(os.Stdin); len(over) > 0 {
		os.Exit(0) // the test cleans up itself
	}
	// Our input ends a moment before the kernel gives back the name that the test
	// held; its process has ended when both are done.
	if err := errors.Join(ended(parentFile), sweep(name)); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

// parentFile is a janitor's descriptor of the test's process.
const parentFile = 3

// ended waits until a process has, by its pidfd.
func ended(process int32) error {
	for {
		_, err := unix.Poll([]unix.PollFd{{Fd: process, Events: unix.POLLIN}}, -1)
		if !errors.Is(err, unix.EINTR) {
			return err
		}
	}
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

// callJanitor starts a janitor, which sees our end by that of its input and of our
// process, and is told when it is not needed.
func callJanitor(t testing.TB, name string) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	janitor := exec.Command(self, "-test.run=^$")
	janitor.Env = append(os.Environ(), janitorOf+"="+name)
	janitor.Dir, janitor.Stderr = "/", os.Stderr
	janitor.SysProcAttr = &syscall.SysProcAttr{Setsid: true} // Ctrl-C is meant for the test
	input, err := janitor.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	process, err := unix.PidfdOpen(os.Getpid(), 0)
	if err != nil {
		t.Fatalf("call the janitor: %v", err)
	}
	file := os.NewFile(uintptr(process), "pidfd")
	defer file.Close()
	janitor.ExtraFiles = []*os.File{file} // parentFile
	if err := janitor.Start(); err != nil {
		t.Fatalf("call the janitor: %v", err)
	}
	t.Cleanup(func() {
		_, err := io.WriteString(input, "over")
		if err := errors.Join(err, input.Close(), janitor.Wait()); err != nil {
			t.Errorf("the janitor: %v", err)
		}
	})
}
