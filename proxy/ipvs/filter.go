package ipvs

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
)

// filter is iptables of one family.
type filter struct {
	family  corev1.IPFamily
	command string
}

// filters are the variants of iptables that are installed for a family, first
// what the machine calls iptables.
func filters(family corev1.IPFamily) []filter {
	name := "iptables"
	if family == corev1.IPv6Protocol {
		name = "ip6tables"
	}
	var out []filter
	for _, command := range []string{name, name + "-nft", name + "-legacy"} {
		if _, err := exec.LookPath(command + "-restore"); err == nil {
			out = append(out, filter{family, command})
		}
	}
	return out
}

// lockWait is for how many seconds the programs wait while another holds the
// lock of iptables.
const lockWait = "5"

// restore makes chains, and inserts jumps. Each table is one change.
func (f filter) restore(ctx context.Context, text string) error {
	return feed(ctx, text, f.command+"-restore", "--noflush", "--wait", lockWait)
}

// save lists our chains, their rules and the jumps to them, as iptables-save
// prints them, each after its table's name.
func (f filter) save(ctx context.Context) ([]string, error) {
	output, err := exec.CommandContext(ctx, f.command+"-save").Output()
	if err != nil {
		return nil, fmt.Errorf("%s-save: %w", f.command, explain(err))
	}
	var lines []string
	table := ""
	for _, line := range strings.Split(string(output), "\n") {
		switch {
		case strings.HasPrefix(line, "*"):
			table = line[1:]
		case strings.HasPrefix(line, ":"+chainPrefix):
			// The counters after the name change by themselves.
			name, _, _ := strings.Cut(line, " ")
			lines = append(lines, table+" "+name)
		case strings.HasPrefix(line, "-A") && strings.Contains(line, " "+chainPrefix):
			lines = append(lines, table+" "+line)
		}
	}
	return lines, nil
}

// missing are the jumps that are not among what save listed.
func missing(saved []string) []jump {
	return slices.DeleteFunc(slices.Clone(jumps), func(j jump) bool {
		return slices.Contains(saved, j.table+" -A "+j.from+" "+j.rule)
	})
}

// remove removes our chains and the jumps to them.
func (f filter) remove(ctx context.Context) error {
	saved, err := f.save(ctx)
	if err != nil || len(saved) == 0 {
		return err
	}
	return f.restore(ctx, removalText(saved))
}

// removalText is what iptables-restore --noflush removes with what save listed.
func removalText(saved []string) string {
	var b strings.Builder
	for _, name := range []string{"mangle", "nat", "filter"} {
		var named, deleted, last []string
		for _, line := range saved {
			table, rest, _ := strings.Cut(line, " ")
			switch chain, isChain := strings.CutPrefix(rest, ":"); {
			case table != name:
			case isChain:
				// Naming a chain empties it.
				named, last = append(named, ":"+chain+" - [0:0]"), append(last, "-X "+chain)
			case !strings.HasPrefix(rest, "-A "+chainPrefix):
				deleted = append(deleted, "-D"+strings.TrimPrefix(rest, "-A"))
			}
		}
		if all := slices.Concat(named, deleted, last); len(all) > 0 {
			fmt.Fprintf(&b, "*%s\n%s\nCOMMIT\n", name, strings.Join(all, "\n"))
		}
	}
	return b.String()
}

// feed runs a program with its input.
func feed(ctx context.Context, input, name string, args ...string) error {
	command := exec.CommandContext(ctx, name, args...)
	command.Stdin = strings.NewReader(input)
	if output, err := command.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w: %s", name, err, bytes.TrimSpace(output))
	}
	return nil
}

// explain adds what a program complained of.
func explain(err error) error {
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return fmt.Errorf("%w: %s", err, bytes.TrimSpace(exit.Stderr))
	}
	return err
}
