package simulation

import (
	"flag"
	"os"
	"testing"
	"testing/synctest"
	"time"
)

var (
	seedFlag  = flag.Uint64("seed", 0, "run only this seed (from 1)")
	repeat    = flag.Int("repeat", 1, "run the seed so often")
	logFlag   = flag.Bool("log", false, "print what the stores log")
	seedsFlag = flag.Int("seeds", 40, "how many seeds TestSimulation runs")
	firstFlag = flag.Uint64("first", 1, "the first of them")

	virtualFlag    = flag.Duration("virtual", time.Hour, "the least virtual time the seeds must come to")
	faultsFlag     = flag.Int("faults", 500, "the fewest faults")
	operationsFlag = flag.Int("operations", 150_000, "the fewest operations checked")
)

// run lives through one run in a bubble of its own and judges it outside.
func run(t *testing.T, config Config) (*Result, error) {
	t.Helper()
	if *logFlag {
		config.Log = os.Stderr
	}
	var result *Result
	var verdict func() error
	synctest.Test(t, func(*testing.T) { result, verdict = Run(config) })
	return result, verdict()
}

// TestSimulation lives through an hour of trouble and more, in runs of 90
// seconds that each come from a seed.
func TestSimulation(t *testing.T) {
	t.Parallel()
	began := time.Now()
	summary := &Summary{}
	t.Run("seeds", func(t *testing.T) {
		seeds := make([]uint64, 0, *seedsFlag)
		for i := range *seedsFlag {
			seeds = append(seeds, *firstFlag+uint64(i))
		}
		if *seedFlag != 0 {
			seeds = seeds[:0]
			for range *repeat {
				seeds = append(seeds, *seedFlag)
			}
		}
		for _, seed := range seeds {
			t.Run("", func(t *testing.T) {
				t.Parallel()
				r, err := run(t, FromSeed(seed))
				summary.Add(r, err)
				if err != nil {
					t.Errorf("seed %d (replay: go test ./raftstore/simulation -run TestSimulation -seed %d -repeat 10): %v", seed, seed, err)
				}
			})
		}
	})
	if *seedFlag == 0 && (summary.Virtual() < *virtualFlag || summary.Faults() < *faultsFlag || summary.Operations() < *operationsFlag) {
		t.Errorf("%d seeds are too few for %s of virtual time, %d faults and %d operations", *seedsFlag, *virtualFlag, *faultsFlag, *operationsFlag)
	}
	t.Logf("in %s:\n%s", time.Since(began).Round(time.Millisecond), summary)
}
