// Command testsummary reads `go test -json` and prints what a person needs:
// the output of what failed, what was skipped and why, and the count.
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strings"
)

// event is a line of go test -json.
type event struct {
	Action, Package, Test, Output string
	Elapsed                       float64
}

func main() {
	output := map[string][]string{}
	var failed, skipped []string
	counts := map[string]int{}
	scanner := bufio.NewScanner(os.Stdin)
	scanner.Buffer(nil, 64<<20)
	for scanner.Scan() {
		var e event
		if json.Unmarshal(scanner.Bytes(), &e) != nil {
			continue
		}
		key := strings.TrimPrefix(e.Package, "github.com/skiff-run/skiff/") + " " + e.Test
		switch e.Action {
		case "output", "build-output":
			output[key] = append(output[key], e.Output)
		case "pass":
			if e.Test != "" {
				counts["passed"]++
			} else {
				fmt.Printf("ok    %-60s %6.1f s\n", key, e.Elapsed)
			}
			delete(output, key)
		case "fail", "build-fail":
			failed = append(failed, key)
			if e.Test != "" {
				counts["failed"]++
			}
		case "skip":
			if e.Test != "" {
				counts["skipped"]++
				skipped = append(skipped, key+reason(output[key]))
			}
			delete(output, key)
		}
	}
	for _, line := range skipped {
		fmt.Println("skip ", line)
	}
	slices.Sort(failed)
	for _, key := range failed {
		fmt.Printf("FAIL  %s\n%s", key, strings.Join(output[key], ""))
	}
	if len(failed) > 0 && counts["failed"] == 0 {
		counts["failed"] = len(failed)
	}
	fmt.Printf("%d passed, %d failed, %d skipped\n", counts["passed"], counts["failed"], counts["skipped"])
	if counts["failed"] > 0 || counts["passed"] == 0 {
		os.Exit(1)
	}
}

// reason is what the test said when it skipped itself.
func reason(lines []string) string {
	for _, line := range lines {
		if _, text, found := strings.Cut(line, ".go:"); found {
			if _, text, found = strings.Cut(text, ": "); found {
				return ": " + strings.TrimSpace(text)
			}
		}
	}
	return ""
}
