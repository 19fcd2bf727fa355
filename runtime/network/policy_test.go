package network

import (
	"net/netip"
	"os/exec"
	"runtime"
	"strings"
	"testing"

	"github.com/vishvananda/netns"

	"github.com/skiff-run/skiff/internal/testenv"
)

func TestAnAddressIsClosedBeforeItGetsANewOwner(t *testing.T) {
	t.Parallel()
	testenv.RequireRoot(t)
	testenv.RequireProgram(t, "nft")
	done := make(chan struct{})
	go func() {
		defer close(done)
		// Never unlocked: the runtime throws the thread away with its namespace.
		runtime.LockOSThread()
		handle, err := netns.New()
		if err != nil {
			t.Errorf("make network namespace: %v", err)
			return
		}
		defer handle.Close()
		f := newFirewall("skiff-pods", "skiff0")
		again := []netip.Addr{netip.MustParseAddr("10.244.0.2"), netip.MustParseAddr("fd00::2")}
		if err := f.disown(t.Context(), again); err != nil {
			t.Errorf("without policies: %v", err)
		}
		script := "table inet " + policyTable + ` {
			set known4 { type ipv4_addr; elements = { 10.244.0.2, 10.244.0.3 }; }
			set known6 { type ipv6_addr; }
		}`
		if output, err := exec.Command("nft", script).CombinedOutput(); err != nil {
			t.Errorf("%v\n%s", err, output)
			return
		}
		if err := f.disown(t.Context(), again); err != nil {
			t.Error(err)
		}
		output, err := exec.Command("nft", "list", "ruleset").CombinedOutput()
		if err != nil || !strings.Contains(string(output), "elements = { 10.244.0.3 }") {
			t.Errorf("%v\n%s", err, output)
		}
	}()
	<-done
}
