package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"
)

// report gathers the rows that are printed at the end.
type report struct{ rows []string }

func (r *report) compared(what string, ours, floor time.Duration) {
	r.add(fmt.Sprintf("| %s | %.0f ms | raw containers %.0f ms | %.2f |", what, milliseconds(ours), milliseconds(floor), ours.Seconds()/floor.Seconds()))
}

// add prints a row to standard error at once, so that a long run shows where it is.
func (r *report) add(row string) {
	fmt.Fprintln(os.Stderr, row)
	r.rows = append(r.rows, row)
}

func (r *report) print(to io.Writer) {
	fmt.Fprintln(to, "| what | Skiff | beside it | ratio |\n|---|---|---|---|")
	for _, row := range r.rows {
		fmt.Fprintln(to, row)
	}
}

func milliseconds(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

func median(samples []time.Duration) time.Duration {
	slices.Sort(samples)
	return samples[len(samples)/2]
}

// atRest watches the daemons for a while in which nobody asks anything.
func (o options) atRest(ctx context.Context, report *report, when string) error {
	type process struct {
		name   string
		pid    int
		before time.Duration
	}
	var watched []process
	for _, text := range o.daemons {
		name, number, found := strings.Cut(text, "=")
		pid, err := strconv.Atoi(number)
		if !found || err != nil {
			return fmt.Errorf("--daemons: %q is not name=pid", text)
		}
		used, err := processorTime(pid)
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		watched = append(watched, process{name, pid, used})
	}
	if len(watched) == 0 {
		return nil
	}
	select {
	case <-time.After(o.rest): // the time at rest is what is measured
	case <-ctx.Done():
		return ctx.Err()
	}
	for _, p := range watched {
		used, err := processorTime(p.pid)
		if err != nil {
			return fmt.Errorf("%s: %w", p.name, err)
		}
		anonymous, resident, err := memory(p.pid)
		if err != nil {
			return fmt.Errorf("%s: %w", p.name, err)
		}
		report.add(fmt.Sprintf("| %s at rest, %s | %.1f MB anonymous, %.1f MB resident | %.2f %% of a core | |",
			p.name, when, float64(anonymous)/1e6, float64(resident)/1e6, 100*(used-p.before).Seconds()/o.rest.Seconds()))
	}
	return nil
}

func processorTime(pid int) (time.Duration, error) {
	// A process's own schedstat is of its main thread only.
	tasks, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid))
	if err != nil {
		return 0, err
	}
	var sum time.Duration
	for _, task := range tasks {
		data, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%s/schedstat", pid, task.Name()))
		if errors.Is(err, os.ErrNotExist) {
			continue // the thread ended
		}
		if err != nil {
			return 0, err
		}
		nanoseconds, err := strconv.ParseInt(strings.Fields(string(data))[0], 10, 64)
		if err != nil {
			return 0, err
		}
		sum += time.Duration(nanoseconds)
	}
	return sum, nil
}

func memory(pid int) (anonymous, resident int64, err error) {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
	if err != nil {
		return 0, 0, err
	}
	for _, line := range strings.Split(string(data), "\n") {
		fields := strings.Fields(line)
		if len(fields) < 2 {
			continue
		}
		n, err := strconv.ParseInt(fields[1], 10, 64)
		if err != nil {
			continue // the header
		}
		switch fields[0] {
		case "Anonymous:":
			anonymous = n << 10
		case "Rss:":
			resident = n << 10
		}
	}
	return anonymous, resident, nil
}
