package resilience

import (
	"context"
	"flag"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/skiff-run/skiff/internal/testenv"
	"github.com/skiff-run/skiff/test/cluster"
	"github.com/skiff-run/skiff/test/host"
)

var (
	length = flag.Duration("length", 75*time.Second, "how long the cluster is mistreated")
	pauses = flag.Duration("longest-pause", 2*time.Second, "how long a daemon is paused at most")
	seed   = flag.Uint64("seed", uint64(time.Now().UnixNano()), "what decides the faults and the clients' requests")
	limit  = flag.Float64("rate", 700, "requests per second of all clients together")
)

func TestMain(m *testing.M) {
	flag.Parse()
	code := m.Run()
	if err := cluster.Clean(); err != nil {
		slog.Error("clean up", "error", err)
		code = max(code, 1)
	}
	os.Exit(code)
}

// TestThreeControlMachinesAreMistreated is the tier of real processes: three
// daemons on three hosts over mutual TLS, clients at HTTP level.
func TestThreeControlMachinesAreMistreated(t *testing.T) {
	testenv.RequireRoot(t)
	testenv.RequireProgram(t, "bash", "ip", "nsenter", "nft")
	binaries := cluster.Build(t)
	traces := func(name string) testenv.Traces {
		return testenv.Traces{Dir: filepath.Join(os.TempDir(), "skiff-test-"+name), Cgroup: "/" + name}
	}
	name := testenv.Claim(t, "skiff-mistreated", traces)
	network, err := host.New(name, traces(name).Dir, host.DefaultSubnet, host.WithUs)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		// The test's context is over by now.
		if err := network.Close(context.Background()); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(func() {
		logs, _ := filepath.Glob(filepath.Join(network.Folder, "*.log"))
		for _, log := range logs {
			if data, err := os.ReadFile(log); err == nil && t.Failed() {
				t.Logf("%s:\n%s", filepath.Base(log), data[max(0, len(data)-5000):])
			}
		}
	})
	c, err := Found(t.Context(), network, filepath.Join(binaries, "skiff-control"), "control1", "control2", "control3")
	if err != nil {
		t.Fatal(err)
	}
	c.LongestPause = *pauses
	record := NewRecord()
	t.Logf("seed %d", *seed)
	m := &Mistreatment{
		Cluster: c, Faults: Faults, Length: *length, Seed: *seed, Record: record,
		Logger: slog.New(slog.NewTextHandler(t.Output(), nil)),
	}
	w := &Workload{
		Servers: c.Servers, Namespace: "mistreated", Keys: 40, Clients: 24, Watchers: 6, Rate: *limit,
		ShortestTimeout: 300 * time.Millisecond, LongestTimeout: 3 * time.Second, Seed: *seed, Record: record, During: m.During,
	}
	err = w.Run(t.Context(), m.Run)
	m.Print(t.Output())
	if err != nil {
		t.Error(err)
	}
	begin := time.Now()
	if err := record.Judge(); err != nil {
		t.Error(err)
	}
	t.Logf("%d operations under %d faults, checked within %s", record.Operations(), m.FaultsDone(), time.Since(begin).Round(time.Millisecond))
}
