package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
)

// report writes the table, the failures and what changed to w and to
// report.txt, and brings the baseline up to date if that was asked for. It
// fails when something that passed before does not.
func report(w io.Writer, o options, r results, before []string, took time.Duration) error {
	var text strings.Builder
	if err := table(&text, r, took); err != nil {
		return err
	}
	for _, name := range r.names(failed) {
		fmt.Fprintf(&text, "\nfailed: %s\n    %s\n", name, r[name].reason)
	}
	for _, name := range r.names(skipped) {
		fmt.Fprintf(&text, "\nskipped: %s\n    %s\n", name, r[name].reason)
	}
	for _, name := range r.names(passed) {
		if r[name].attempts > 1 {
			fmt.Fprintf(&text, "\npassed at the second attempt only: %s\n", name)
		}
	}
	news := slices.DeleteFunc(r.names(passed), func(name string) bool { return slices.Contains(before, name) })
	if len(news) > 0 && !o.update {
		fmt.Fprintf(&text, "\n%d tests pass that are not in the baseline: UPDATE=1 adds them\n", len(news))
	}
	worse := r.regressed(before)
	for _, name := range worse {
		fmt.Fprintf(&text, "\npassed before: %s\n", name)
	}
	err := os.WriteFile(filepath.Join(o.output, "report.txt"), []byte(text.String()), 0o644)
	if _, writing := io.WriteString(w, text.String()); writing != nil {
		err = errors.Join(err, writing)
	}
	if o.update {
		return errors.Join(err, writeNames(o.baseline, updated(before, r)))
	}
	if len(worse) > 0 {
		err = errors.Join(err, fmt.Errorf("%d tests fail that passed before", len(worse)))
	}
	return err
}

func table(w io.Writer, r results, took time.Duration) error {
	var areas []string
	for name := range r {
		areas = append(areas, area(name))
	}
	slices.Sort(areas)
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(t, "area\tpassed\tfailed\tskipped\t")
	for _, each := range slices.Compact(areas) {
		fmt.Fprintf(t, "%s\t%d\t%d\t%d\t\n", each, r.count(each, passed), r.count(each, failed), r.count(each, skipped))
	}
	fmt.Fprintf(t, "all\t%d\t%d\t%d\t\n", r.count("", passed), r.count("", failed), r.count("", skipped))
	if err := t.Flush(); err != nil {
		return err
	}
	_, err := fmt.Fprintf(w, "%d tests in %s\n", len(r), took.Round(time.Second))
	return err
}

// updated is the baseline with the outcomes of a run: what did not run stays.
func updated(before []string, r results) []string {
	after := r.names(passed)
	for _, name := range before {
		if _, ran := r[name]; !ran {
			after = append(after, name)
		}
	}
	slices.Sort(after)
	return after
}

// readNames reads one name a line; empty lines and comments are none.
func readNames(path string) ([]string, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var names []string
	for line := range strings.Lines(string(data)) {
		if line = strings.TrimSpace(line); line != "" && !strings.HasPrefix(line, "#") {
			names = append(names, line)
		}
	}
	return names, nil
}

func writeNames(path string, names []string) error {
	return os.WriteFile(path, []byte(strings.Join(names, "\n")+"\n"), 0o644)
}
