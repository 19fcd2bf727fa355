// Package testenv tells tests what the machine they run on can do, so that a
// test which needs root, a kernel feature or a program is skipped by name with
// the reason, and gives them conditions to wait for instead of sleeps.
package testenv

import (
	"os"
	"os/exec"
	"testing"
	"time"
)

// RequireRoot skips the test unless it runs as root.
func RequireRoot(t testing.TB) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: run `make test` as root to include it")
	}
}

// RequireProgram skips the test unless every named program is on the PATH.
func RequireProgram(t testing.TB, names ...string) {
	t.Helper()
	for _, name := range names {
		if _, err := exec.LookPath(name); err != nil {
			t.Skipf("needs the program %q: `make deps` installs it", name)
		}
	}
}

// Eventually waits until condition returns true, asking every 10 ms, and fails
// the test with message after limit.
func Eventually(t testing.TB, limit time.Duration, condition func() bool, message string, args ...any) {
	t.Helper()
	ticker := time.NewTicker(10 * time.Millisecond)
	defer ticker.Stop()
	deadline := time.After(limit)
	for {
		if condition() {
			return
		}
		select {
		case <-ticker.C:
		case <-deadline:
			t.Fatalf("not within %s: "+message, append([]any{limit}, args...)...)
		}
	}
}
