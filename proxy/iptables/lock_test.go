package iptables

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/skiff-run/skiff/internal/testenv"
)

// TestTheLockThatAnotherProgramHolds makes a sync fail after a while, which is
// counted, and the next one programs everything.
func TestTheLockThatAnotherProgramHolds(t *testing.T) {
	testenv.RequireRoot(t)
	testenv.RequireProgram(t, "iptables-legacy")
	file := filepath.Join(t.TempDir(), "xtables.lock")
	t.Setenv("XTABLES_LOCKFILE", file)
	inNamespace(t, func() error {
		b, err := New(Options{Variant: Legacy})
		if err != nil {
			return err
		}
		for _, f := range b.families {
			f.program.wait = 1
		}
		lock, err := os.OpenFile(file, os.O_CREATE|os.O_RDWR, 0o600)
		if err != nil {
			return err
		}
		defer lock.Close()
		if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX); err != nil {
			return err
		}
		services := everywhere(port("default/web:", "10.96.0.5", "10.244.0.2:80"))
		if err := b.Sync(t.Context(), services); !errors.Is(err, ErrLocked) {
			return fmt.Errorf("while another holds the lock: %w", err)
		}
		if n := testutil.ToFloat64(b.metrics.timeouts); n != 1 {
			t.Errorf("counted %v times", n)
		}
		if err := unix.Flock(int(lock.Fd()), unix.LOCK_UN); err != nil {
			return err
		}
		if err := b.Sync(t.Context(), services); err != nil {
			return err
		}
		found, err := b.Check(t.Context())
		if found != "" {
			t.Errorf("after the second sync: %s", found)
		}
		return err
	})
}

// inNamespace runs f on a thread whose network namespace goes with it.
func inNamespace(t *testing.T, f func() error) {
	t.Helper()
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		handle, err := netns.New()
		if err == nil {
			defer handle.Close()
			err = f()
		}
		done <- err
	}()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}
