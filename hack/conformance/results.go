package main

import (
	"regexp"
	"slices"
	"strings"
	"time"
)

// suiteReport is what we read of ginkgo's JSON report.
type suiteReport struct {
	SpecReports []specReport
}

// specReport is one test of a report, or a step that is none.
type specReport struct {
	ContainerHierarchyTexts []string
	LeafNodeType            string
	LeafNodeText            string
	State                   string
	RunTime                 time.Duration
	Failure                 struct {
		Message string
	}
}

// Outcomes of a test.
const (
	passed  = "passed"
	failed  = "failed"
	skipped = "skipped"
)

// result is how one test went.
type result struct {
	outcome string
	// reason of what did not pass: the first line of what the test said.
	reason string
	took   time.Duration
	// attempts before it went so.
	attempts int
}

// results by the name of the test, as in the suite's list of conformance tests.
type results map[string]result

// resultsOf leaves out tests that were not asked for.
func resultsOf(reports []suiteReport) results {
	found := results{}
	for _, report := range reports {
		for _, spec := range report.SpecReports {
			if spec.LeafNodeType != "It" {
				continue
			}
			r := result{took: spec.RunTime, reason: reason(spec.Failure.Message), attempts: 1}
			switch spec.State {
			case "passed":
				r.outcome = passed
			case "skipped", "pending":
				// Skipped without a word by a filter, with a reason by the test itself.
				if r.outcome = skipped; r.reason == "" {
					continue
				}
			default: // failed, panicked, timedout, interrupted, aborted
				if r.outcome = failed; r.reason == "" {
					r.reason = spec.State
				}
			}
			found[strings.Join(append(slices.Clone(spec.ContainerHierarchyTexts), spec.LeafNodeText), " ")] = r
		}
	}
	return found
}

// reason is the first line of what a test said when it failed, and the line
// after it where that is only a heading.
func reason(message string) string {
	var lines []string
	for line := range strings.Lines(message) {
		if line = strings.TrimSpace(line); line != "" {
			lines = append(lines, line)
		}
		if len(lines) > 0 && !strings.HasSuffix(lines[len(lines)-1], ":") || len(lines) == 3 {
			break
		}
	}
	const most = 300
	text := strings.Join(lines, " ")
	if len(text) > most {
		text = strings.ToValidUTF8(text[:most], "") + " ..."
	}
	return text
}

// area is the part of the project a test belongs to: sig-node, ...
func area(name string) string {
	if end := strings.IndexByte(name, ']'); strings.HasPrefix(name, "[") && end > 0 {
		return name[1:end]
	}
	return "other"
}

// count of the tests with an outcome in an area, "" for all.
func (r results) count(in, outcome string) int {
	n := 0
	for name, each := range r {
		if each.outcome == outcome && (in == "" || area(name) == in) {
			n++
		}
	}
	return n
}

// names of the tests with an outcome, sorted.
func (r results) names(outcome string) []string {
	var names []string
	for name, each := range r {
		if each.outcome == outcome {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// regressed are the tests that passed before, ran now and did not pass.
func (r results) regressed(before []string) []string {
	var names []string
	for _, name := range before {
		if now, ran := r[name]; ran && now.outcome != passed {
			names = append(names, name)
		}
	}
	return names
}

// improvedBy is the same with the outcomes of a second attempt.
func (r results) improvedBy(second results) results {
	for name, each := range second {
		each.attempts = r[name].attempts + 1
		r[name] = each
	}
	return r
}

// exactly are regular expressions that match tests with these names and no
// others. Ginkgo matches against the name behind that of the suite.
func exactly(names []string) []string {
	var expressions []string
	for _, name := range names {
		expressions = append(expressions, regexp.QuoteMeta(name)+"$")
	}
	return expressions
}
