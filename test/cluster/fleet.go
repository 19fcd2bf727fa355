package cluster

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/skiff-run/skiff/internal/testenv"
	"github.com/skiff-run/skiff/test/fleet"
	"github.com/skiff-run/skiff/test/host"
)

// Fleet is several hosts that are one cluster, each with all daemons.
type Fleet struct {
	*fleet.Fleet
	t testing.TB
}

// NewFleet makes a network without hosts, whose switch serves the test images,
// and removes it after the test.
func NewFleet(t testing.TB, name string) *Fleet {
	t.Helper()
	testenv.RequireRoot(t)
	testenv.RequireProgram(t, "bash", "ip", "nsenter", "containerd", "runc", "nft", "conntrack")
	binaries, images := Build(t), Images(t)
	name = testenv.Claim(t, name, fleetTraces)
	network, err := host.New(name, filepath.Join(fleetTraces(name).Dir), host.DefaultSubnet, host.WithUs)
	if err != nil {
		t.Fatal(err)
	}
	f := &Fleet{Fleet: &fleet.Fleet{Network: network, Binaries: binaries}, t: t}
	t.Cleanup(func() {
		if t.Failed() {
			f.logs()
		}
		// The test's context is over by now.
		ctx, cancel := context.WithTimeout(context.Background(), commandLimit)
		defer cancel()
		if err := network.Close(ctx); err != nil {
			t.Error(err)
		}
	})
	if err := f.Registry(t.Context(), images); err != nil {
		t.Fatal(err)
	}
	return f
}

func fleetTraces(name string) testenv.Traces {
	return testenv.Traces{Dir: filepath.Join(os.TempDir(), "skiff-test-"+name), Cgroup: "/" + name}
}

// logs shows the ends of all daemons' logs.
func (f *Fleet) logs() {
	for _, h := range f.Hosts {
		files, _ := filepath.Glob(h.Path("/var/log/skiff/*.log"))
		for _, file := range files {
			if data, err := os.ReadFile(file); err == nil {
				f.t.Logf("%s:\n%s", file, data[max(0, len(data)-3000):])
			}
		}
	}
}

// with is the same fleet for a subtest.
func (f *Fleet) with(t testing.TB) *Fleet { return &Fleet{Fleet: f.Fleet, t: t} }

// must ends the test on an error and returns what was said otherwise.
func (f *Fleet) must(said string, err error) string {
	f.t.Helper()
	if err != nil {
		f.t.Fatal(err)
	}
	return said
}

// kubectl runs kubectl on a host.
func (f *Fleet) kubectl(h *host.Host, arguments ...string) string {
	f.t.Helper()
	return f.must(f.try(h, arguments...))
}

func (f *Fleet) try(h *host.Host, arguments ...string) (string, error) {
	ctx, cancel := context.WithTimeout(f.t.Context(), commandLimit)
	defer cancel()
	return f.Kubectl(ctx, h, arguments...)
}

// eventually waits until kubectl on a host says what is wanted.
func (f *Fleet) eventually(limit time.Duration, h *host.Host, want func(said string) bool, arguments ...string) string {
	f.t.Helper()
	var said string
	var err error
	defer func() {
		if f.t.Failed() {
			f.t.Logf("last answer: %s %v", said, err)
		}
	}()
	testenv.Eventually(f.t, limit, func() bool {
		said, err = f.try(h, arguments...)
		return err == nil && want(said)
	}, "kubectl %s on %s does not say what is wanted", strings.Join(arguments, " "), h.Name)
	return said
}

// traces are what a host has in its kernel besides its own cable: links, rules,
// routes, mounts and processes.
func (f *Fleet) traces(h *host.Host) string {
	f.t.Helper()
	return f.must(h.Run(f.t.Context(), "sh", "-c", `set -e
ip -o link | sed 's/^[0-9]*: //; s/ state .*//'
ip route
nft list ruleset
awk '{print "mount", $2}' /proc/self/mounts | sort
ps -eo comm= | sort | grep -E 'skiff|containerd|registry' || true`))
}

// added are the lines of after that are not in before.
func added(before, after string) string {
	known := map[string]int{}
	for line := range strings.Lines(before) {
		known[line]++
	}
	var more strings.Builder
	for line := range strings.Lines(after) {
		if known[line]--; known[line] < 0 {
			more.WriteString(line)
		}
	}
	return more.String()
}
