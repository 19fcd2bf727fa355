package cluster

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/skiff-run/skiff/cmd/skiff/join"
	"github.com/skiff-run/skiff/internal/testenv"
	"github.com/skiff-run/skiff/test/host"
)

// operated is a network of hosts that an operator works on.
type operated struct {
	*host.Network
	t   testing.TB
	bin string
}

func newOperated(t testing.TB, name string, hosts ...string) *operated {
	t.Helper()
	testenv.RequireRoot(t)
	testenv.RequireProgram(t, "ip", "nsenter", "containerd", "runc", "nft", "conntrack")
	bin := Build(t)
	traces := func(name string) testenv.Traces {
		return testenv.Traces{Dir: filepath.Join(os.TempDir(), "skiff-test-"+name), Cgroup: "/skiff-host-" + name}
	}
	name = testenv.Claim(t, name, traces)
	network, err := host.New(name, traces(name).Dir, host.DefaultSubnet, host.WithUs)
	if err != nil {
		t.Fatal(err)
	}
	o := &operated{Network: network, t: t, bin: bin}
	t.Cleanup(func() {
		if t.Failed() {
			o.logs()
		}
		// The test's context is over by now.
		ctx, cancel := context.WithTimeout(context.Background(), commandLimit)
		defer cancel()
		if err := network.Close(ctx); err != nil {
			t.Error(err)
		}
	})
	for _, each := range hosts {
		h, err := network.Add(each)
		if err == nil {
			err = h.Boot()
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return o
}

func (o *operated) logs() {
	for _, h := range o.Hosts {
		files, _ := filepath.Glob(h.Path("/var/log/skiff/*.log"))
		for _, file := range files {
			if data, err := os.ReadFile(file); err == nil {
				o.t.Logf("%s:\n%s", file, data[max(0, len(data)-2500):])
			}
		}
	}
}

// try runs the command line on a host.
func (o *operated) try(h *host.Host, arguments ...string) (string, error) {
	ctx, cancel := context.WithTimeout(o.t.Context(), commandLimit)
	defer cancel()
	return h.Run(ctx, filepath.Join(o.bin, "skiff"), arguments...)
}

func (o *operated) skiff(h *host.Host, arguments ...string) string {
	o.t.Helper()
	said, err := o.try(h, arguments...)
	if err != nil {
		o.t.Fatal(err)
	}
	return said
}

// line is a join line for the role, as words, with what a test host needs.
func (o *operated) line(from, to *host.Host, role string) []string {
	o.t.Helper()
	words := strings.Fields(o.skiff(from, "token", "create", "--role", role))
	if len(words) != 7 || words[0] != "skiff" || words[1] != "join" {
		o.t.Fatalf("token create says %q", words)
	}
	return append(words[1:], "--cgroup-root", to.CgroupRoot)
}

func (o *operated) survey(h *host.Host) join.Survey {
	o.t.Helper()
	// The exit code tells health, which the tests look at by themselves.
	said, err := o.try(h, "status", "-o", "json")
	var survey join.Survey
	if decodeErr := json.Unmarshal([]byte(said), &survey); decodeErr != nil {
		o.t.Fatalf("status: %v\n%s", errors.Join(err, decodeErr), said)
	}
	return survey
}

// healthy waits until the cluster is well with so many voters.
func (o *operated) healthy(h *host.Host, voters int) {
	o.t.Helper()
	var last join.Survey
	testenv.Eventually(o.t, 30*time.Second, func() bool {
		last = o.survey(h)
		count := 0
		for _, machine := range last.Machines {
			if machine.Member != nil && machine.Member.Voter {
				count++
			}
		}
		return last.Healthy && count == voters
	}, "not healthy with %d voters: %+v", voters, last.Problems)
}

func (o *operated) members(h *host.Host) []string {
	o.t.Helper()
	var ids []string
	for _, machine := range o.survey(h).Machines {
		if machine.Member != nil {
			ids = append(ids, machine.Member.ID)
		}
	}
	slices.Sort(ids)
	return ids
}

// untouched fails the test when a host still has anything of a join.
func (o *operated) untouched(h *host.Host) {
	o.t.Helper()
	for _, path := range []string{"/etc/skiff/machine.yaml", "/etc/skiff/pki", "/etc/skiff/control.yaml", "/etc/skiff/admin.conf", "/var/lib/skiff"} {
		if _, err := h.Run(o.t.Context(), "test", "!", "-e", path); err != nil {
			o.t.Errorf("%s is left on %s", path, h.Name)
		}
	}
	if pids, err := h.Processes("skiff-control"); err != nil || len(pids) > 0 {
		o.t.Errorf("skiff-control runs on %s: %v %v", h.Name, pids, err)
	}
}

// TestAnOperatorRunsACluster types every verb once, on three control machines
// and a worker.
func TestAnOperatorRunsACluster(t *testing.T) {
	o := newOperated(t, "skiff-operate", "c1", "c2", "c3", "w1")
	c1, c2, c3, w1 := o.Hosts[0], o.Hosts[1], o.Hosts[2], o.Hosts[3]
	if said := o.skiff(c1, "init", "--cgroup-root", c1.CgroupRoot); strings.Count(said, "skiff join https://"+c1.Address.String()+":6443 --token ") != 2 {
		t.Fatalf("init says %s", said)
	}
	for _, h := range []*host.Host{c2, c3} {
		if said := o.skiff(h, o.line(c1, h, "control")...); !strings.Contains(said, "as a control machine") {
			t.Errorf("join says %s", said)
		}
	}
	// Any control machine may be named.
	if said := o.skiff(w1, o.line(c3, w1, "worker")...); !strings.Contains(said, "as a worker") {
		t.Errorf("join says %s", said)
	}
	o.healthy(c2, 3)

	t.Run("again changes nothing", func(t *testing.T) {
		before := o.members(c1)
		o.skiff(c1, "init", "--cgroup-root", c1.CgroupRoot)
		o.skiff(c2, o.line(c1, c2, "control")...)
		o.skiff(w1, o.line(c1, w1, "worker")...)
		if after := o.members(c1); !slices.Equal(before, after) {
			t.Errorf("members were %v, are %v", before, after)
		}
	})
	t.Run("roles are shown", func(t *testing.T) {
		if said := o.skiff(c1, "kubectl", "get", "nodes", "--no-headers"); strings.Count(said, "control-plane") != 3 || strings.Count(said, " Ready ") != 4 {
			t.Errorf("nodes:\n%s", said)
		}
		if screen := o.skiff(c1, "status"); !strings.Contains(screen, "survives the loss of 1 of 3 voters") || !strings.Contains(screen, "4 of 4 Ready") {
			t.Errorf("status:\n%s", screen)
		}
	})
	t.Run("leadership moves to whom it is given", func(t *testing.T) {
		if said := o.skiff(c2, "leader", "transfer", "c3"); !strings.Contains(said, "c3 leads") {
			t.Errorf("said %s", said)
		}
		o.skiff(c2, "leader", "transfer", "c1")
	})
	t.Run("a snapshot is complete and never overwrites", func(t *testing.T) {
		o.skiff(c2, "snapshot", "save", "/var/lib/before.snap")
		if said := o.skiff(c2, "snapshot", "inspect", "/var/lib/before.snap"); !strings.Contains(said, "SHA-256") {
			t.Errorf("inspect says %s", said)
		}
		if _, err := o.try(c2, "snapshot", "save", "/var/lib/before.snap"); err == nil || !strings.Contains(err.Error(), "name a new file") {
			t.Errorf("overwritten: %v", err)
		}
	})
	t.Run("a token that was deleted joins nobody", func(t *testing.T) {
		line := o.line(c1, w1, "worker")
		o.skiff(c1, "token", "delete", line[3])
		if said := o.skiff(c1, "token", "list"); strings.Contains(said, strings.Split(line[3], ".")[0]) {
			t.Errorf("still listed:\n%s", said)
		}
	})
	t.Run("a control machine leaves and comes back", func(t *testing.T) {
		o.skiff(c3, "reset", "--yes")
		o.untouched(c3)
		o.healthy(c1, 2)
		o.skiff(c3, o.line(c2, c3, "control")...)
		o.healthy(c1, 3)
	})
	t.Run("certificates are checked and renewed", func(t *testing.T) { o.renews(t, c1) })
	t.Run("a damaged store comes back by itself", func(t *testing.T) { o.repairs(t, c2, c1) })
	t.Run("a removed member serves no more", func(t *testing.T) {
		o.removes(t, c3, c1)
		o.skiff(c3, "reset", "--yes")
		o.skiff(c3, o.line(c1, c3, "control")...)
		o.healthy(c1, 3)
	})
	t.Run("a follower's address changes", func(t *testing.T) {
		o.skiff(c2, "down")
		o.moves(t, c2, c1, true)
	})
	t.Run("the leader's address changes", func(t *testing.T) {
		o.skiff(c2, "leader", "transfer", "c1")
		if err := errors.Join(c1.PowerOff(t.Context()), c1.Boot()); err != nil {
			t.Fatal(err)
		}
		o.moves(t, c1, c2, false)
	})
	t.Run("two of three are lost and the third goes on", func(t *testing.T) {
		o.skiff(c1, "kubectl", "create", "configmap", "kept", "--from-literal=a=b")
		for _, h := range []*host.Host{c1, c2} {
			if err := h.PowerOff(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := o.try(c3, "status"); err == nil {
			t.Error("status calls a store without a majority healthy")
		}
		o.skiff(c3, "recover", "--yes")
		testenv.Eventually(t, 30*time.Second, func() bool {
			_, err := o.try(c3, "kubectl", "get", "configmap", "kept")
			return err == nil
		}, "the recovered store does not serve")
		if ids := o.members(c3); len(ids) != 1 {
			t.Errorf("members %v", ids)
		}
		if _, err := o.try(c3, "recover", "--yes"); err == nil || !strings.Contains(err.Error(), "has a leader") {
			t.Errorf("recover on a store that works: %v", err)
		}
	})
	t.Run("a snapshot takes the place of a store", func(t *testing.T) {
		o.skiff(c3, "snapshot", "save", "/var/lib/now.snap")
		o.skiff(c3, "kubectl", "delete", "configmap", "kept")
		if _, err := o.try(c3, "snapshot", "restore", "/var/lib/now.snap"); err == nil || !strings.Contains(err.Error(), "--replace") {
			t.Errorf("restored over a store: %v", err)
		}
		o.skiff(c3, "snapshot", "restore", "--replace", "/var/lib/now.snap")
		testenv.Eventually(t, 30*time.Second, func() bool {
			_, err := o.try(c3, "kubectl", "get", "configmap", "kept")
			return err == nil
		}, "the restored store does not serve what the snapshot held")
	})
}

// TestAJoinThatFailsLeavesNothing breaks a join at each of its steps.
func TestAJoinThatFailsLeavesNothing(t *testing.T) {
	o := newOperated(t, "skiff-joinfail", "c1", "c2")
	c1, c2 := o.Hosts[0], o.Hosts[1]
	o.skiff(c1, "init", "--cgroup-root", c1.CgroupRoot)
	founders := o.members(c1)
	checkUndone := func(t *testing.T) {
		t.Helper()
		if now := o.members(c1); !slices.Equal(now, founders) {
			t.Errorf("members were %v, are %v", founders, now)
		}
		o.untouched(c2)
		if said := o.skiff(c1, "kubectl", "get", "nodes", "-o", "name"); strings.TrimSpace(said) != "node/c1" {
			t.Errorf("nodes: %s", said)
		}
	}
	fails := func(t *testing.T, want string, arguments ...string) {
		t.Helper()
		_, err := o.try(c2, append(o.line(c1, c2, "control"), arguments...)...)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q", err, want)
		}
		checkUndone(t)
	}
	t.Run("a port is taken", func(t *testing.T) {
		listener := c2.Command(t.Context(), "busybox", "nc", "-l", "-p", "6444")
		if err := listener.Start(); err != nil {
			t.Fatal(err)
		}
		testenv.Eventually(t, 10*time.Second, func() bool {
			said, err := c2.Run(t.Context(), "ss", "-ltn")
			return err == nil && strings.Contains(said, ":6444")
		}, "nobody took the port")
		fails(t, "port 6444 (--peer-port) is taken")
		_ = listener.Cancel()
		_ = listener.Wait()
	})
	t.Run("the daemon ends", func(t *testing.T) {
		if _, err := c2.Run(t.Context(), "sh", "-c", `mkdir -p /var/broken && cd /var/broken && ln -sf "$1"/skiff-agent "$1"/skiff-proxy . &&
			printf '#!/bin/sh\necho it is broken >&2; exit 1\n' >skiff-control && chmod 755 skiff-control`, "sh", o.bin); err != nil {
			t.Fatal(err)
		}
		fails(t, "it is broken", "--binaries", "/var/broken")
	})
	t.Run("containerd ends", func(t *testing.T) { fails(t, "ends instead of running", "--containerd", "/bin/false") })
	t.Run("the others do not reach the new member", func(t *testing.T) {
		nft := func(script string) {
			t.Helper()
			if _, err := c2.Run(t.Context(), "nft", script); err != nil {
				t.Fatal(err)
			}
		}
		nft("add table inet wall; add chain inet wall in { type filter hook input priority 0; }; add rule inet wall in tcp dport 6444 drop")
		fails(t, "let TCP port 6444 through")
		nft("delete table inet wall")
	})
	t.Run("the operator changes his mind", func(t *testing.T) {
		command := c2.Command(t.Context(), filepath.Join(o.bin, "skiff"), o.line(c1, c2, "control")...)
		command.Cancel = nil
		if err := command.Start(); err != nil {
			t.Fatal(err)
		}
		testenv.Eventually(t, 30*time.Second, func() bool { return len(o.members(c1)) == 2 }, "the member is not added")
		pids, err := c2.Processes("skiff")
		if err != nil || len(pids) == 0 {
			t.Fatalf("no command to interrupt: %v %v", pids, err)
		}
		for _, pid := range pids {
			if arguments, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/cmdline"); err == nil && strings.Contains(string(arguments), "\x00join\x00") {
				if err := unix.Kill(pid, syscall.SIGINT); err != nil {
					t.Fatal(err)
				}
			}
		}
		var exit *exec.ExitError
		if err := command.Wait(); err != nil && !errors.As(err, &exit) {
			t.Fatal(err)
		}
		// A join that had just finished is complete instead.
		if _, err := c2.Run(t.Context(), "test", "-e", "/etc/skiff/machine.yaml"); err == nil {
			t.Skip("it was faster than the change of mind")
		}
		checkUndone(t)
	})
	t.Run("the command is killed and typed again", func(t *testing.T) {
		line := o.line(c1, c2, "control")
		command := c2.Command(t.Context(), filepath.Join(o.bin, "skiff"), line...)
		if err := command.Start(); err != nil {
			t.Fatal(err)
		}
		testenv.Eventually(t, 30*time.Second, func() bool {
			_, err := c2.Run(t.Context(), "test", "-e", "/etc/skiff/pki/ca.key")
			return err == nil
		}, "the join does not get far")
		_ = command.Cancel()
		_ = command.Wait() // killed
		o.skiff(c2, line...)
		o.healthy(c1, 2)
	})
}
