// Command conformance runs Kubernetes' own conformance suite against a cluster
// on test hosts, prints how it went, and fails when a test does not pass that
// passed before. `make conformance` calls it with what test/conformance/build.sh
// made.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"github.com/spf13/pflag"
)

// options are what is run, with what, and where the outcome goes.
type options struct {
	suite, images, binaries string
	output, baseline        string
	name                    string
	nodes, procs            int
	focus, skip             []string
	areas                   []string
	list                    string
	update, keep            bool
	limit                   time.Duration
}

func main() {
	o := options{}
	pflag.StringVar(&o.suite, "suite", "", "folder of e2e.test and ginkgo")
	pflag.StringVar(&o.images, "images", "", "folder of the registry that has the suite's images")
	pflag.StringVar(&o.binaries, "binaries", "bin", "folder of Skiff's programs")
	pflag.StringVar(&o.output, "output", ".build/conformance", "folder for reports and logs")
	pflag.StringVar(&o.baseline, "baseline", "test/conformance/passing.txt", "file of the tests that pass")
	pflag.StringVar(&o.name, "name", "conform", "name of the test network")
	pflag.IntVar(&o.nodes, "nodes", 2, "machines of the cluster; the first has its control plane, all run pods")
	pflag.IntVar(&o.procs, "procs", 4, "tests at a time, but for those that must be alone")
	pflag.StringArrayVar(&o.focus, "focus", nil, "regular expression: only tests with such names")
	pflag.StringArrayVar(&o.skip, "skip", nil, "regular expression: no tests with such names")
	pflag.StringSliceVar(&o.areas, "area", nil, "only tests of these areas: node, network, apps, api-machinery, storage, ...")
	pflag.StringVar(&o.list, "list", "", "file of test names: only these")
	pflag.BoolVar(&o.update, "update", false, "write what passed into the baseline, and take out what did not")
	pflag.BoolVar(&o.keep, "keep-going", false, "wait, with the cluster running, for an interrupt before taking it down")
	pflag.DurationVar(&o.limit, "limit", 4*time.Hour, "how long it may take")
	pflag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, o)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "conformance:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, o options) error {
	for _, path := range []*string{&o.suite, &o.images, &o.binaries, &o.output, &o.baseline} {
		absolute, err := filepath.Abs(*path)
		if err != nil {
			return err
		}
		*path = absolute
	}
	if os.Geteuid() != 0 {
		return errors.New("needs root: the hosts of the cluster are namespaces")
	}
	before, err := readNames(o.baseline)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("baseline: %w", err)
	}
	if o.list != "" {
		names, err := readNames(o.list)
		if err != nil {
			return fmt.Errorf("list of tests: %w", err)
		}
		o.focus = append(o.focus, exactly(names)...)
	}
	if err := os.RemoveAll(o.output); err != nil {
		return err
	}
	if err := os.MkdirAll(o.output, 0o755); err != nil {
		return err
	}
	c, err := start(ctx, o)
	if err != nil {
		return err
	}
	began := time.Now()
	results, err := c.judge(ctx, o, before)
	took := time.Since(began)
	if err == nil {
		err = report(os.Stdout, o, results, before, took)
	}
	if o.keep {
		fmt.Printf("The cluster runs until this ends: nsenter --target %d --all, KUBECONFIG=%s\n", c.Switch.Machine.PID, c.kubeconfig)
		<-ctx.Done()
	}
	return errors.Join(err, c.stop(o))
}

// judge runs the tests, and once more, one at a time, those that passed before
// and did not now: only what fails twice has got worse.
func (c *cluster) judge(ctx context.Context, o options, before []string) (results, error) {
	first, err := c.tests(ctx, o, "report", c.procsFor(o))
	if err != nil {
		return nil, err
	}
	again := first.regressed(before)
	if len(again) == 0 {
		return first, nil
	}
	fmt.Printf("%d tests that passed before failed; once more, one at a time\n", len(again))
	o.focus, o.skip, o.areas = exactly(again), nil, nil
	second, err := c.tests(ctx, o, "again", 1)
	if err != nil {
		return nil, err
	}
	return first.improvedBy(second), nil
}
