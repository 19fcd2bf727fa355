package main

import (
	"encoding/json"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// said is a report as ginkgo writes one.
const said = `[{"SpecReports": [
	{"LeafNodeType": "SynchronizedBeforeSuite", "State": "passed"},
	{"LeafNodeType": "It", "ContainerHierarchyTexts": ["[sig-node] Pods"], "LeafNodeText": "should run [Conformance]", "State": "passed", "RunTime": 1000000000},
	{"LeafNodeType": "It", "ContainerHierarchyTexts": ["[sig-node] Pods", "with (dots)"], "LeafNodeText": "should stop [Conformance]", "State": "failed",
		"Failure": {"Message": "wait for pod to stop:\n    Timed out after 300s.\nExpected"}},
	{"LeafNodeType": "It", "ContainerHierarchyTexts": ["[sig-apps] Job"], "LeafNodeText": "should finish", "State": "timedout"},
	{"LeafNodeType": "It", "ContainerHierarchyTexts": ["[sig-cli] Kubectl"], "LeafNodeText": "needs five nodes", "State": "skipped", "Failure": {"Message": "needs five nodes"}},
	{"LeafNodeType": "It", "ContainerHierarchyTexts": ["[sig-cli] Kubectl"], "LeafNodeText": "was not asked for", "State": "skipped"}
]}]`

const (
	runs  = "[sig-node] Pods should run [Conformance]"
	stops = "[sig-node] Pods with (dots) should stop [Conformance]"
)

func saidResults(t *testing.T) results {
	t.Helper()
	var reports []suiteReport
	if err := json.Unmarshal([]byte(said), &reports); err != nil {
		t.Fatal(err)
	}
	return resultsOf(reports)
}

func TestReportsBecomeResults(t *testing.T) {
	want := results{
		runs:                                 {outcome: passed, took: time.Second, attempts: 1},
		stops:                                {outcome: failed, reason: "wait for pod to stop: Timed out after 300s.", attempts: 1},
		"[sig-apps] Job should finish":       {outcome: failed, reason: "timedout", attempts: 1},
		"[sig-cli] Kubectl needs five nodes": {outcome: skipped, reason: "needs five nodes", attempts: 1},
	}
	if diff := cmp.Diff(want, saidResults(t), cmp.AllowUnexported(result{})); diff != "" {
		t.Error(diff)
	}
}

func TestTestsThatPassedBeforeMustPass(t *testing.T) {
	for name, c := range map[string]struct {
		before []string
		fails  bool
	}{
		"what passed before still does":         {[]string{runs}, false},
		"a test has got worse":                  {[]string{runs, stops}, true},
		"a test that did not run is not judged": {[]string{runs, "[sig-auth] else"}, false},
	} {
		t.Run(name, func(t *testing.T) {
			var text strings.Builder
			err := report(&text, options{output: t.TempDir()}, saidResults(t), c.before, time.Minute)
			if (err != nil) != c.fails {
				t.Errorf("error %v, report:\n%s", err, text.String())
			}
			if got := strings.Contains(text.String(), "passed before: "+stops); got != c.fails {
				t.Errorf("the report says what has got worse: %v, want %v:\n%s", got, c.fails, text.String())
			}
		})
	}
}

func TestTheReportCountsAreas(t *testing.T) {
	var text strings.Builder
	if err := report(&text, options{output: t.TempDir()}, saidResults(t), nil, time.Minute); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"sig-node       1       1        0", "sig-cli       0       0        1", "all       1       2        1", "4 tests in 1m0s",
		"failed: " + stops + "\n    wait for pod to stop: Timed out after 300s.",
	} {
		if !strings.Contains(text.String(), want) {
			t.Errorf("%q is not in the report:\n%s", want, text.String())
		}
	}
}

func TestAnUpdateKeepsWhatDidNotRun(t *testing.T) {
	path := filepath.Join(t.TempDir(), "passing.txt")
	before := []string{"[sig-auth] else", stops}
	if err := report(&strings.Builder{}, options{output: t.TempDir(), baseline: path, update: true}, saidResults(t), before, time.Minute); err != nil {
		t.Fatal(err)
	}
	after, err := readNames(path)
	if want := []string{"[sig-auth] else", runs}; err != nil || !slices.Equal(after, want) {
		t.Errorf("baseline %q, error %v, want %q", after, err, want)
	}
}

func TestASecondAttemptCounts(t *testing.T) {
	r := saidResults(t).improvedBy(results{stops: {outcome: passed, attempts: 1}})
	if got := r.regressed([]string{stops}); len(got) > 0 {
		t.Errorf("got worse: %q", got)
	}
	if r[stops].attempts != 2 {
		t.Errorf("%d attempts", r[stops].attempts)
	}
}

func TestTheSliceIsOfWhatPasses(t *testing.T) {
	passing, err := readNames("../../test/conformance/passing.txt")
	if err != nil {
		t.Fatal(err)
	}
	slice, err := readNames("../../test/conformance/slice.txt")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range slice {
		if !slices.Contains(passing, name) {
			t.Errorf("%s is in slice.txt and not in passing.txt", name)
		}
	}
}
