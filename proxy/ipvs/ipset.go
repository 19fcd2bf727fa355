package ipvs

import (
	"bufio"
	"context"
	"fmt"
	"os/exec"
	"slices"
	"strconv"
	"strings"
)

// restoreSets runs lines of ipset. What is there already may be made again, and
// what is not there removed.
func restoreSets(ctx context.Context, lines []string) error {
	if len(lines) == 0 {
		return nil
	}
	return feed(ctx, strings.Join(lines, "\n")+"\n", "ipset", "restore", "-exist")
}

// setHeader is what the kernel tells of a set without its elements.
type setHeader struct {
	kind string
	size int
}

// setHeaders reads the headers of all sets of this network namespace.
func setHeaders(ctx context.Context) (map[string]setHeader, error) {
	output, err := exec.CommandContext(ctx, "ipset", "list", "-terse").Output()
	if err != nil {
		return nil, fmt.Errorf("list ipsets: %w", explain(err))
	}
	return parseHeaders(string(output))
}

func parseHeaders(listed string) (map[string]setHeader, error) {
	headers := map[string]setHeader{}
	name := ""
	for lines := bufio.NewScanner(strings.NewReader(listed)); lines.Scan(); {
		field, value, _ := strings.Cut(lines.Text(), ": ")
		header := headers[name]
		switch field {
		case "Name":
			name = value
			header = setHeader{}
		case "Type":
			header.kind = value
		case "Number of entries":
			var err error
			if header.size, err = strconv.Atoi(value); err != nil {
				return nil, fmt.Errorf("list ipsets: size of %s: %w", name, err)
			}
		default:
			continue
		}
		headers[name] = header
	}
	return headers, nil
}

// readSets reads the elements of those of our sets that there are.
func readSets(ctx context.Context) (map[element]bool, error) {
	headers, err := setHeaders(ctx)
	if err != nil {
		return nil, err
	}
	found := map[element]bool{}
	for name := range setKinds() {
		if headers[name].size == 0 {
			continue
		}
		elements, err := readSet(ctx, name)
		if err != nil {
			return nil, err
		}
		for _, e := range elements {
			found[e] = true
		}
	}
	return found, nil
}

func readSet(ctx context.Context, name string) ([]element, error) {
	output, err := exec.CommandContext(ctx, "ipset", "save", name).Output()
	if err != nil {
		return nil, fmt.Errorf("read ipset %s: %w", name, explain(err))
	}
	elements, err := parseElements(string(output))
	if err != nil {
		return nil, fmt.Errorf("read ipset %s: %w", name, err)
	}
	return elements, nil
}

// removeSets removes our sets. No rule may use them any more.
func removeSets(ctx context.Context) error {
	if _, err := exec.LookPath("ipset"); err != nil {
		return nil // without the program no set of ours was ever made
	}
	headers, err := setHeaders(ctx)
	if err != nil {
		return err
	}
	var lines []string
	for name := range setKinds() {
		if _, there := headers[name]; there {
			lines = append(lines, "destroy "+name)
		}
	}
	slices.Sort(lines)
	return restoreSets(ctx, lines)
}
