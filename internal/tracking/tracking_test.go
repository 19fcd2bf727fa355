package tracking_test

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/skiff-run/skiff/internal/testenv"
	"github.com/skiff-run/skiff/internal/tracking"
)

// TestAConnectionIsTrackedFromItsBeginning though there is no rule that any
// packet meets.
func TestAConnectionIsTrackedFromItsBeginning(t *testing.T) {
	testenv.RequireRoot(t)
	testenv.RequireProgram(t, "nft")
	inNamespace(t, func() error {
		if known, err := connectAndLookUp(); err != nil || known {
			return errors.Join(err, fmt.Errorf("before: tracked %t, so this test proves nothing", known))
		}
		if err := tracking.On(t.Context()); err != nil {
			return err
		}
		known, err := connectAndLookUp()
		if !known {
			t.Error("the connection is not tracked")
		}
		return err
	})
}

// connectAndLookUp makes a connection over loopback and says whether the
// kernel tracks it.
func connectAndLookUp() (bool, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return false, err
	}
	defer listener.Close()
	client, err := net.Dial("tcp", listener.Addr().String())
	if err != nil {
		return false, err
	}
	defer client.Close()
	flows, err := netlink.ConntrackTableList(netlink.ConntrackTable, unix.AF_INET)
	port := uint16(client.LocalAddr().(*net.TCPAddr).Port)
	return slices.ContainsFunc(flows, func(f *netlink.ConntrackFlow) bool { return f.Forward.SrcPort == port }), err
}

func TestOffLeavesNothing(t *testing.T) {
	testenv.RequireRoot(t)
	testenv.RequireProgram(t, "nft")
	inNamespace(t, func() error {
		for range 2 {
			if err := tracking.On(t.Context()); err != nil {
				return err
			}
		}
		if rules := ruleset(); strings.Count(rules, "ct state new accept") != 1 {
			t.Errorf("turned on twice:\n%s", rules)
		}
		for range 2 {
			if err := tracking.Off(t.Context()); err != nil {
				return err
			}
		}
		if rules := ruleset(); rules != "" {
			t.Errorf("left behind:\n%s", rules)
		}
		return nil
	})
}

func ruleset() string {
	output, err := exec.Command("nft", "list", "ruleset").CombinedOutput()
	if err != nil {
		return fmt.Sprintf("%v: %s", err, output)
	}
	return string(bytes.TrimSpace(output))
}

// inNamespace runs f in a new network namespace with loopback up, on a thread
// that ends with it.
func inNamespace(t *testing.T, f func() error) {
	t.Helper()
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		done <- func() error {
			handle, err := netns.New()
			if err != nil {
				return fmt.Errorf("make network namespace: %w", err)
			}
			defer handle.Close()
			lo, err := netlink.LinkByName("lo")
			if err != nil {
				return err
			}
			return errors.Join(netlink.LinkSetUp(lo), f())
		}()
	}()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}
