package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/skiff-run/skiff/internal/testenv"
	"github.com/skiff-run/skiff/test/fleet"
	"github.com/skiff-run/skiff/test/host"
)

// startLimit bounds each step of bringing a host up.
const startLimit = 3 * time.Minute

// registries are those the suite's images come from. One stands in for all.
var registries = []string{"docker.io", "registry.k8s.io", "gcr.io", "quay.io"}

// agentConfig keeps hosts, which share the machine's disk, from judging how
// full that is.
const agentConfig = `apiVersion: skiff.dev/v1
kind: AgentConfiguration
evictionHard: {memory.available: 100Mi}
imageGCHighThresholdPercent: 100
`

// cluster is Skiff on test hosts, and the way to it.
type cluster struct {
	*fleet.Fleet
	kubeconfig, kubectl string
	release             func()
}

func traces(name string) testenv.Traces {
	return testenv.Traces{Dir: filepath.Join(os.TempDir(), "skiff-test-"+name), Cgroup: "/" + name}
}

// start makes the hosts and the cluster on them.
func start(ctx context.Context, o options) (c *cluster, err error) {
	name, release, err := testenv.Hold(o.name, traces)
	if err != nil {
		return nil, err
	}
	network, err := host.New(name, traces(name).Dir, host.DefaultSubnet, host.WithUs)
	if err != nil {
		release()
		return nil, err
	}
	c = &cluster{Fleet: &fleet.Fleet{Network: network, Binaries: o.binaries, Mirrored: registries}, release: release}
	defer func() {
		if err != nil {
			err = errors.Join(err, c.stop(o))
		}
	}()
	if err := c.Registry(ctx, o.images); err != nil {
		return c, err
	}
	for i := range o.nodes {
		if err := c.add(ctx, fmt.Sprintf("node%d", i+1)); err != nil {
			return c, err
		}
	}
	c.kubeconfig = c.Hosts[0].Path("/etc/skiff/admin.conf")
	// skiff is kubectl under that name.
	c.kubectl = filepath.Join(o.output, "kubectl")
	return c, os.Symlink(filepath.Join(o.binaries, "skiff"), c.kubectl)
}

func (c *cluster) add(ctx context.Context, name string) error {
	ctx, cancel := context.WithTimeout(ctx, startLimit)
	defer cancel()
	h, err := c.Add(name)
	if err != nil {
		return err
	}
	if err := h.WriteFile("/etc/skiff/agent.yaml", []byte(agentConfig)); err != nil {
		return err
	}
	if len(c.Hosts) == 1 {
		_, err = c.Found(ctx, h)
	} else {
		_, err = c.Join(ctx, h, c.Hosts[0], fleet.Worker)
	}
	return err
}

// stop takes everything away but the daemons' logs.
func (c *cluster) stop(o options) error {
	defer c.release()
	for _, h := range c.Hosts {
		files, _ := filepath.Glob(h.Path("/var/log/skiff/*.log")) // the pattern is right
		for _, file := range files {
			data, err := os.ReadFile(file)
			if err == nil {
				err = os.WriteFile(filepath.Join(o.output, h.Name+"-"+filepath.Base(file)), data, 0o600)
			}
			if err != nil {
				fmt.Fprintln(os.Stderr, "keep log:", err)
			}
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), startLimit)
	defer cancel()
	return c.Close(ctx)
}

// procsFor is how many tests run at a time: not more than there are.
func (c *cluster) procsFor(o options) int {
	if o.list != "" {
		return min(o.procs, len(o.focus))
	}
	return o.procs
}

// tests runs the suite, as a program on the switch, which reaches all hosts and
// is none of them. What it says, and the report with the given name, go to the
// output folder.
func (c *cluster) tests(ctx context.Context, o options, report string, procs int) (results, error) {
	labels := []string{"Conformance"}
	if len(o.areas) > 0 {
		labels = append(labels, "(sig-"+strings.Join(o.areas, " || sig-")+")")
	}
	arguments := []string{
		"--procs=" + strconv.Itoa(procs), "--label-filter=" + strings.Join(labels, " && "), "--timeout=" + o.limit.String(), "--no-color",
		"--output-dir=" + o.output, "--json-report=" + report + ".json", "--silence-skips",
	}
	for _, each := range o.focus {
		arguments = append(arguments, "--focus="+each)
	}
	for _, each := range o.skip {
		arguments = append(arguments, "--skip="+each)
	}
	arguments = append(arguments, filepath.Join(o.suite, "e2e.test"), "--",
		"--kubeconfig="+c.kubeconfig, "--kubectl-path="+c.kubectl, "--provider=skeleton", "--num-nodes="+strconv.Itoa(o.nodes))
	path := filepath.Join(o.output, report+".log")
	log, err := os.Create(path)
	if err != nil {
		return nil, err
	}
	defer log.Close()
	fmt.Printf("The suite runs on %d nodes, %d tests at a time; see %s\n", o.nodes, procs, path)
	command := c.Switch.Command(ctx, filepath.Join(o.suite, "ginkgo"), arguments...)
	command.Dir = o.output
	command.Stdout, command.Stderr = log, log
	ran := command.Run()
	// Its exit code says that a test failed, which the report says better.
	var exit *exec.ExitError
	if ran != nil && (!errors.As(ran, &exit) || ctx.Err() != nil) {
		return nil, fmt.Errorf("run the suite: %w", errors.Join(ran, ctx.Err()))
	}
	data, err := os.ReadFile(filepath.Join(o.output, report+".json"))
	if err != nil {
		return nil, fmt.Errorf("the suite left no report, see %s: %w", path, errors.Join(err, ran))
	}
	var reports []suiteReport
	if err := json.Unmarshal(data, &reports); err != nil {
		return nil, fmt.Errorf("read the suite's report: %w", err)
	}
	found := resultsOf(reports)
	if len(found) == 0 {
		return nil, fmt.Errorf("no test ran, see %s", path)
	}
	return found, nil
}
