package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// cluster is three members as three processes, whoever's they are.
type cluster interface {
	name() string
	start(member int) error
	process(member int) *exec.Cmd
	// run has a workload run by a client of one member.
	run(ctx context.Context, member int, w Workload) (Outcome, error)
	leader(ctx context.Context) (int, error)
	// healthy returns nil when the member answers a linearizable read.
	healthy(ctx context.Context, member int) error
	// transfer hands leadership to another member in an orderly way.
	transfer(ctx context.Context) error
}

const members = 3

// patience bounds every wait for a condition.
const patience = 60 * time.Second

func startAll(ctx context.Context, c cluster) error {
	for i := range members {
		if err := c.start(i); err != nil {
			return err
		}
	}
	return allHealthy(ctx, c)
}

func allHealthy(ctx context.Context, c cluster) error {
	for i := range members {
		if err := until(ctx, func(ctx context.Context) error { return c.healthy(ctx, i) }); err != nil {
			return fmt.Errorf("%s: member %d: %w", c.name(), i, err)
		}
	}
	return nil
}

// until repeats a check until it succeeds.
func until(ctx context.Context, check func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for {
		err := check(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return errors.Join(ctx.Err(), err)
		case <-time.After(10 * time.Millisecond):
		}
	}
}

func stopAll(c cluster) {
	for i := range members {
		kill(c, i)
	}
}

func kill(c cluster, i int) {
	if p := c.process(i); p != nil && p.ProcessState == nil {
		_ = p.Process.Signal(syscall.SIGKILL)
		_ = p.Wait() // killed on purpose
	}
}

// memory is the anonymous and resident memory of a process in bytes.
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
			continue
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

// written is how many bytes a process has caused to be written to disk.
func written(pid int) (int64, error) {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/io", pid))
	if err != nil {
		return 0, err
	}
	for _, line := range strings.Split(string(data), "\n") {
		if rest, ok := strings.CutPrefix(line, "write_bytes: "); ok {
			return strconv.ParseInt(strings.TrimSpace(rest), 10, 64)
		}
	}
	return 0, errors.New("no write_bytes")
}

// cpu is the processor time a process has used.
func cpu(pid int) (time.Duration, error) {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	fields := strings.Fields(string(data[strings.LastIndexByte(string(data), ')')+1:]))
	if len(fields) < 13 {
		return 0, errors.New("short stat")
	}
	var ticks int64
	for _, field := range fields[11:13] {
		n, err := strconv.ParseInt(field, 10, 64)
		if err != nil {
			return 0, err
		}
		ticks += n
	}
	return time.Duration(ticks) * 10 * time.Millisecond, nil // USER_HZ is 100 on every Linux
}
