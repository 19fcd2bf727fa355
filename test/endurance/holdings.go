package endurance

import (
	"context"
	"fmt"
	"strconv"
	"strings"
)

// lists are commands that print, a line each, what a node holds for its pods.
// What differs from one look to the next without meaning anything is cut off.
var lists = []struct{ what, script string }{
	{"mount", `awk '{print $5, $9}' /proc/self/mountinfo | sort`},
	{"link", `ip -o link | sed 's/^[0-9]*: //; s/@.*//; s/:.*//' | sort`},
	{"route", `ip route | sort`},
	{"container", `ctr -n k8s.io containers ls -q | sort`},
	{"task", `ctr -n k8s.io tasks ls -q | sort`},
	{"snapshot", `ctr -n k8s.io snapshots ls | awk 'NR>1 {print $1, $3}' | sort`},
	{"lease of containerd", `ctr -n k8s.io leases ls -q | sort`},
	{"process", `ps -eo comm= | grep -v -E '^(ps|sh|sort|grep|ctr|awk|sed|nsenter)$' | sort`},
	{"folder of a pod", `ls /var/lib/kubelet/pods`},
	{"log folder", `ls /var/log/pods /var/log/containers`},
	{"state", `cd /var/lib/skiff/agent 2>/dev/null && find . -not -name '*.db*' | sort`},
	{"run folder", `cd /run/skiff && find . -not -path './up*' | sort`},
	{"pipe", `find /run /var/lib/skiff /var/lib/containerd -type p 2>/dev/null | sort`},
	{"rule", `nft list ruleset | grep -o 'elements.*' | sort`},
}

// holdings is everything a node holds, a line for each thing.
func (n *node) holdings(ctx context.Context) (map[string]bool, error) {
	held := map[string]bool{}
	for _, list := range lists {
		said, err := n.Run(ctx, "sh", "-c", list.script)
		if err != nil {
			return nil, fmt.Errorf("list every %s: %w", list.what, err)
		}
		counts := map[string]int{}
		for line := range strings.Lines(said) {
			line = strings.TrimSpace(line)
			counts[line]++
			held[fmt.Sprintf("%s %s #%d", list.what, line, counts[line])] = true
		}
	}
	// Cgroups of hosts share one tree with the machine's.
	said, err := n.Run(ctx, "sh", "-c", `for each in /sys/fs/cgroup/*`+n.CgroupRoot+` /sys/fs/cgroup`+n.CgroupRoot+`; do [ -d $each ] && find $each -type d; done | sort`)
	if err != nil {
		return nil, fmt.Errorf("list cgroups: %w", err)
	}
	for line := range strings.Lines(said) {
		held["cgroup "+strings.TrimSpace(line)] = true
	}
	return held, nil
}

// more are the lines of after that are not in before.
func more(before, after map[string]bool) []string {
	var lines []string
	for line := range after {
		if !before[line] {
			lines = append(lines, line)
		}
	}
	return lines
}

// goroutines is how many goroutines the agent has.
func (n *node) goroutines(ctx context.Context) (int, error) {
	data, err := n.api.CoreV1().RESTClient().Get().AbsPath("/api/v1/nodes", n.Name, "proxy/debug/pprof/goroutine").Param("debug", "1").DoRaw(ctx)
	if err != nil {
		return 0, fmt.Errorf("ask the agent for its goroutines: %w", err)
	}
	first, _, _ := strings.Cut(string(data), "\n")
	count, err := strconv.Atoi(first[strings.LastIndexByte(first, ' ')+1:])
	if err != nil {
		return 0, fmt.Errorf("read the agent's goroutines %q: %w", first, err)
	}
	return count, nil
}

// files is how many files the agent has open.
func (n *node) files() (int, error) {
	pids, err := n.Processes("skiff-agent")
	if err != nil || len(pids) != 1 {
		return 0, fmt.Errorf("find the agent among %v: %w", pids, err)
	}
	said, err := n.Run(context.Background(), "sh", "-c", "ls /proc/$(pidof skiff-agent)/fd | wc -l")
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(strings.TrimSpace(said))
}
