package testenv

import (
	"errors"
	"fmt"
	"net"
	"syscall"
	"testing"
)

// claims is how many runs may hold names of one base at the same time.
const claims = 16

// Claim takes the name base for this test, or base-2, base-3 and so on while
// tests that still run hold those before. It removes what runs that were
// killed left behind under any of these names, and, after the test, the name's
// own traces before it gives the name back.
func Claim(t testing.TB, base string, traces func(name string) Traces) string {
	t.Helper()
	name, release, err := Hold(base, traces)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		defer release()
		if err := traces(name).Remove(); err != nil {
			t.Errorf("remove what the test left behind: %v", err)
		}
	})
	return name
}

// Hold is Claim for what lives longer than a test: who calls it removes the
// traces. The kernel releases the names of a process that dies, because a name
// is held by an abstract unix socket that no child inherits.
func Hold(base string, traces func(name string) Traces) (held string, release func(), err error) {
	for i := 1; i <= claims; i++ {
		name := base
		if i > 1 {
			name = fmt.Sprintf("%s-%d", base, i)
		}
		socket, err := net.Listen("unix", "@skiff-test/"+name)
		if errors.Is(err, syscall.EADDRINUSE) {
			continue
		}
		if err != nil {
			return "", nil, errors.Join(fmt.Errorf("hold the name %s: %w", name, err), letGo(release))
		}
		left := traces(name)
		if err := left.Remove(); err != nil {
			return "", nil, errors.Join(fmt.Errorf("remove what a killed run left under the name %s: %w", name, err), socket.Close(), letGo(release))
		}
		if held != "" {
			socket.Close()
			continue
		}
		held, release = name, func() { socket.Close() }
	}
	if held == "" {
		return "", nil, fmt.Errorf("%d tests hold the names beginning with %s already", claims, base)
	}
	return held, release, nil
}

func letGo(release func()) error {
	if release != nil {
		release()
	}
	return nil
}
