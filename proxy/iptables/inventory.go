package iptables

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
)

// inventory is what the kernel holds of ours.
type inventory struct {
	// rules counts those of each chain of ours that exists.
	rules map[chainKey]int
	// jumps counts the rules in other chains that lead to ours.
	jumps map[jumpKey]int
}

// jumpKey is a rule as iptables-save writes it.
type jumpKey struct{ table, from, rule string }

func (i *inventory) empty() bool { return i == nil || len(i.rules) == 0 && len(i.jumps) == 0 }

// depth is how much of a table is read.
type depth bool

const (
	// chainsOnly reads the names of all chains and the rules of the kernel's own,
	// which come first: our rules may be many.
	chainsOnly depth = false
	everything depth = true
)

// inventory reads what there is. A table that does not exist is empty, and not
// made.
func (p *program) inventory(ctx context.Context, how depth) (*inventory, error) {
	found := &inventory{rules: map[chainKey]int{}, jumps: map[jumpKey]int{}}
	for _, table := range []string{mangle, filter, nat} {
		if err := p.read(ctx, found, table, how); err != nil {
			return nil, fmt.Errorf("read table %s: %w", table, err)
		}
	}
	return found, nil
}

func (p *program) read(ctx context.Context, found *inventory, table string, how depth) error {
	if p.variant == Legacy && !p.hasTable(table) {
		return nil
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	command := exec.CommandContext(ctx, p.save, "--table", table)
	var stderr bytes.Buffer
	command.Stderr = &stderr
	output, err := command.StdoutPipe()
	if err != nil {
		return fmt.Errorf("start %s: %w", p.save, err)
	}
	if err := command.Start(); err != nil {
		return fmt.Errorf("start %s: %w", p.save, err)
	}
	enough, err := found.parse(output, table, how)
	if enough {
		cancel() // it has more to say, and nobody listens
		_ = command.Wait()
		return nil
	}
	if waited := command.Wait(); waited != nil {
		if missing(stderr.String()) {
			return nil
		}
		return p.explain(waited, p.save, stderr.Bytes())
	}
	return err
}

// hasTable says whether a legacy table exists: to ask for it would make it.
func (p *program) hasTable(table string) bool {
	names := "/proc/thread-self/net/ip_tables_names"
	if p.kind == corev1.IPv6Protocol {
		names = "/proc/thread-self/net/ip6_tables_names"
	}
	tables, err := os.ReadFile(names)
	return err == nil && slices.Contains(strings.Fields(string(tables)), table)
}

// missing says whether a program complained that the kernel has no such table.
func missing(complaint string) bool {
	return strings.Contains(complaint, "Table does not exist") || strings.Contains(complaint, "does not exist (do you need to insmod?)")
}

// parse reads the lines of iptables-save, and says whether it stopped early.
func (i *inventory) parse(output io.Reader, table string, how depth) (enough bool, err error) {
	lines := bufio.NewReaderSize(output, 1<<16)
	for {
		line, err := lines.ReadSlice('\n')
		switch {
		case errors.Is(err, io.EOF):
			return false, nil
		case err != nil:
			return false, fmt.Errorf("read rules: %w", err)
		}
		if i.line(string(bytes.TrimRight(line, "\n")), table) && how == chainsOnly {
			return true, nil
		}
	}
}

// line takes one line and says whether it was a rule of ours.
func (i *inventory) line(line, table string) bool {
	if name, declared := strings.CutPrefix(line, ":"); declared {
		name, _, _ = strings.Cut(name, " ")
		if ours(name) {
			i.rules[chainKey{table, name}] += 0
		}
		return false
	}
	rest, rule := strings.CutPrefix(line, "-A ")
	if !rule {
		return false
	}
	name, text, _ := strings.Cut(rest, " ")
	if ours(name) {
		i.rules[chainKey{table, name}]++
		return true
	}
	if _, target, jumps := cutLast(text, " -j "); jumps && ours(target) {
		i.jumps[jumpKey{table, name, text}]++
	} else if target, jumps := strings.CutPrefix(text, "-j "); jumps && ours(target) {
		i.jumps[jumpKey{table, name, text}]++
	}
	return false
}

func cutLast(text, separator string) (before, after string, found bool) {
	at := strings.LastIndex(text, separator)
	if at < 0 {
		return text, "", false
	}
	return text[:at], text[at+len(separator):], true
}
