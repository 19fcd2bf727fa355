package host

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/skiff-run/skiff/internal/testenv"
)

// unreachable is how long a connection that must not come about is waited for:
// longer than any that did come about took, by far.
const unreachable = 300 * time.Millisecond

func newNetwork(t *testing.T, name string, hosts ...string) *Network {
	t.Helper()
	testenv.RequireRoot(t)
	testenv.RequireProgram(t, "bash", "nsenter", "ip", "nft")
	n, err := New("skiff-"+name, filepath.Join(t.TempDir(), "hosts"), DefaultSubnet, WithUs)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		// The test's context is over by now.
		if err := n.Close(context.Background()); err != nil {
			t.Error(err)
		}
	})
	for _, name := range hosts {
		h, err := n.Add(name)
		if err == nil {
			err = h.Boot()
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return n
}

// serve accepts connections on a port of the host until the test ends.
func serve(t *testing.T, h *Host) {
	t.Helper()
	listener, err := h.Listen(t.Context(), "tcp", ":7000")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { listener.Close() })
	go func() {
		for {
			connection, err := listener.Accept()
			if err != nil {
				return
			}
			connection.Close()
		}
	}()
}

func reaches(t *testing.T, from, to *Host) bool {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), unreachable)
	defer cancel()
	connection, err := from.Dial(ctx, "tcp", net.JoinHostPort(to.Address.String(), "7000"))
	if err == nil {
		connection.Close()
	}
	return err == nil
}

func TestHostsReachEachOtherUntilTheNetworkIsCut(t *testing.T) {
	t.Parallel()
	n := newNetwork(t, "test-cuts", "a1", "b1", "c1")
	a, b, c := n.Hosts[0], n.Hosts[1], n.Hosts[2]
	for _, h := range n.Hosts {
		serve(t, h)
	}
	expect := func(when string, want map[string]bool) {
		t.Helper()
		for _, pair := range []struct {
			name     string
			from, to *Host
		}{{"a-b", a, b}, {"b-a", b, a}, {"a-c", a, c}, {"c-a", c, a}, {"b-c", b, c}, {"switch-a", n.Switch, a}} {
			if expected, ok := want[pair.name]; ok {
				// Frames may take a moment to find their way after a cable was plugged in.
				if expected {
					testenv.Eventually(t, 5*time.Second, func() bool { return reaches(t, pair.from, pair.to) }, "%s: %s does not connect", when, pair.name)
				} else if reaches(t, pair.from, pair.to) {
					t.Errorf("%s: %s connects", when, pair.name)
				}
			}
		}
	}
	steps := []struct {
		when string
		do   func() error
		want map[string]bool
	}{
		{"at first", func() error { return nil }, map[string]bool{"a-b": true, "b-a": true, "a-c": true, "c-a": true, "b-c": true, "switch-a": true}},
		{"a is cut off", func() error { return n.Cut(Between([]*Host{a}, []*Host{b, c})...) }, map[string]bool{"a-b": false, "c-a": false, "b-c": true, "switch-a": true}},
		{"healed", n.Heal, map[string]bool{"a-b": true, "c-a": true}},
		{"a and b see only c", func() error { return n.Cut(Both(a, b)...) }, map[string]bool{"a-b": false, "b-a": false, "a-c": true, "b-c": true}},
		{"healed again", n.Heal, map[string]bool{"a-b": true}},
		{"everything to b is lost", func() error { return n.Lose(100, Direction{a, b}) }, map[string]bool{"a-b": false, "a-c": true}},
		{"healed of loss", n.Heal, map[string]bool{"a-b": true}},
		{"a's cable is pulled", func() error { return n.Unplug(a) }, map[string]bool{"a-b": false, "b-a": false, "switch-a": false, "b-c": true}},
		{"a's cable is back", n.Heal, map[string]bool{"a-b": true, "switch-a": true}},
		{"a moves", func() error { return a.SetAddress(netip.MustParseAddr("198.51.100.77")) }, map[string]bool{"a-b": true, "b-a": true, "switch-a": true}},
	}
	for _, step := range steps {
		if err := step.do(); err != nil {
			t.Fatalf("%s: %v", step.when, err)
		}
		expect(step.when, step.want)
	}
}

func TestOneDirectionIsCutAlone(t *testing.T) {
	t.Parallel()
	n := newNetwork(t, "test-oneway", "a2", "b2")
	a, b := n.Hosts[0], n.Hosts[1]
	receive := func(h *Host) net.PacketConn {
		t.Helper()
		socket, err := inNetwork(h, func() (net.PacketConn, error) { return net.ListenPacket("udp4", ":7001") })
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { socket.Close() })
		return socket
	}
	sockets := map[*Host]net.PacketConn{a: receive(a), b: receive(b)}
	arrives := func(from, to *Host) bool {
		if _, err := sockets[from].WriteTo([]byte("frame"), net.UDPAddrFromAddrPort(netip.AddrPortFrom(to.Address, 7001))); err != nil {
			t.Fatal(err)
		}
		if err := sockets[to].SetReadDeadline(time.Now().Add(unreachable)); err != nil {
			t.Fatal(err)
		}
		_, _, err := sockets[to].ReadFrom(make([]byte, 16))
		return err == nil
	}
	// Both directions once, so that each knows the other's hardware address.
	testenv.Eventually(t, 5*time.Second, func() bool { return arrives(a, b) && arrives(b, a) }, "nothing arrives")
	if err := n.Cut(Direction{a, b}); err != nil {
		t.Fatal(err)
	}
	if arrives(a, b) || !arrives(b, a) {
		t.Error("want only the direction from a to b cut")
	}
}

func TestAHostKeepsItsFilesWhenItIsSwitchedOffAndNothingElse(t *testing.T) {
	t.Parallel()
	n := newNetwork(t, "test-power")
	h, err := n.Add("a3")
	if err != nil {
		t.Fatal(err)
	}
	if err := h.Hide("/etc/apt", "/etc/skiff"); err != nil {
		t.Fatal(err)
	}
	if err := h.WriteFile("/etc/skiff/agent.yaml", []byte("made before it booted")); err != nil {
		t.Fatal(err)
	}
	if err := h.Boot(); err != nil {
		t.Fatal(err)
	}
	ctx := t.Context()
	cgroup := h.CgroupRoot + "/pod"
	script := `set -e
ls -A /etc/apt; cat /etc/skiff/agent.yaml; hostname
mkdir -p /var/lib/skiff && echo kept >/var/lib/skiff/data && echo gone >/run/data
for each in /sys/fs/cgroup/cpu /sys/fs/cgroup; do if [ -e $each/cgroup.procs ]; then mkdir -p $each$1; break; fi; done
mkdir -p /var/lib/skiff/volume && mount -t tmpfs tmpfs /var/lib/skiff/volume && echo gone >/var/lib/skiff/volume/data
setsid sleep 3600 >/dev/null 2>&1 & (setsid sleep 3600 >/dev/null 2>&1 &)`
	if said, err := h.Run(ctx, "bash", "-c", script, "bash", cgroup); err != nil || said != "made before it booteda3\n" {
		t.Fatalf("said %q, %v", said, err)
	}
	var sleeping []int
	testenv.Eventually(t, 5*time.Second, func() bool {
		sleeping, err = h.Processes("sleep")
		return err == nil && len(sleeping) == 2
	}, "the processes of the host are not found")
	if n, err := h.Signal("sleep", unix.SIGSTOP); err != nil || n != 2 {
		t.Errorf("signalled %d, %v", n, err)
	}
	if err := h.PowerOff(ctx); err != nil {
		t.Fatal(err)
	}
	for _, pid := range sleeping {
		if err := unix.Kill(pid, 0); !errors.Is(err, unix.ESRCH) {
			t.Errorf("process %d is left: %v", pid, err)
		}
	}
	if left, _ := filepath.Glob("/sys/fs/cgroup/*" + cgroup); len(left) > 0 {
		t.Errorf("cgroups are left: %v", left)
	}
	if mounts, err := os.ReadFile("/proc/self/mounts"); err != nil || strings.Contains(string(mounts), h.Files) {
		t.Errorf("mounts are left (%v)", err)
	}
	if err := h.Boot(); err != nil {
		t.Fatal(err)
	}
	if said, err := h.Run(ctx, "sh", "-c", "cat /var/lib/skiff/data; ls /run/data /var/lib/skiff/volume/data 2>&1"); !strings.HasPrefix(said, "kept\n") || strings.Count(said, "No such file or directory") != 2 {
		t.Errorf("after the second boot: %q, %v", said, err)
	}
}

func TestAStoppedProcessGoesOnAndDoesNotKeepTheHostOn(t *testing.T) {
	t.Parallel()
	n := newNetwork(t, "test-stop", "a5")
	h := n.Hosts[0]
	// Waited for by an nsenter, which stops itself with its child.
	sleep := h.Command(t.Context(), "sleep", "3600")
	if err := sleep.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- sleep.Wait() }()
	state := func(want string) {
		t.Helper()
		testenv.Eventually(t, 5*time.Second, func() bool {
			fields, err := stat(sleep.Process.Pid)
			return err == nil && fields[0] == want
		}, "the nsenter is not in state %s", want)
	}
	signal := func(signal unix.Signal) {
		t.Helper()
		testenv.Eventually(t, 5*time.Second, func() bool {
			sent, err := h.Signal("sleep", signal)
			return err == nil && sent == 1
		}, "sleep does not run")
	}
	signal(unix.SIGSTOP)
	state("T")
	signal(unix.SIGCONT)
	state("S")
	signal(unix.SIGSTOP)
	state("T")
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if err := h.PowerOff(ctx); err != nil {
		t.Fatal(err)
	}
	if err := <-ended; err == nil {
		t.Error("sleep ended well")
	}
}

func TestASmallDiskFills(t *testing.T) {
	t.Parallel()
	n := newNetwork(t, "test-disk", "a4")
	h := n.Hosts[0]
	if err := h.SmallDisk(t.Context(), "/var/lib/skiff/control", 1<<20); err != nil {
		t.Fatal(err)
	}
	if _, err := h.Run(t.Context(), "dd", "if=/dev/zero", "of=/var/lib/skiff/control/fill", "bs=1M", "count=2"); err == nil || !strings.Contains(err.Error(), "No space left on device") {
		t.Errorf("got %v", err)
	}
}

// TestMachinesEndWithTheProcessThatMadeThem starts a process that makes a
// network, and kills it.
func TestMachinesEndWithTheProcessThatMadeThem(t *testing.T) {
	if folder := os.Getenv("SKIFF_TEST_HOST_CHILD"); folder != "" {
		n, err := New("test-child", folder, DefaultSubnet, WithUs)
		if err != nil {
			t.Fatal(err)
		}
		fmt.Printf("pid %d\n", n.Switch.Machine.PID)
		select {}
	}
	t.Parallel()
	testenv.RequireRoot(t)
	child := exec.Command(os.Args[0], "-test.run=^"+t.Name()+"$")
	child.Env = append(os.Environ(), "SKIFF_TEST_HOST_CHILD="+filepath.Join(t.TempDir(), "hosts"))
	output, err := child.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	var pid int
	if _, err := fmt.Fscanf(output, "pid %d\n", &pid); err != nil {
		t.Fatal(err)
	}
	if err := unix.Kill(pid, 0); err != nil {
		t.Fatalf("the switch does not run: %v", err)
	}
	if err := child.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = child.Wait()
	testenv.Eventually(t, 5*time.Second, func() bool { return errors.Is(unix.Kill(pid, 0), unix.ESRCH) }, "the switch outlives the test")
}
