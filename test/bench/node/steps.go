package main

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"k8s.io/client-go/kubernetes"
)

// operations are the steps of a pod's start that the agent measures.
var operations = []struct{ name, what string }{
	{"run_podsandbox", "namespaces, network and address"},
	{"create_container", "snapshot and container record"},
	{"start_container", "shim, runc, the program's start"},
}

// spent is how often an operation was done and how long that took in all.
type spent struct {
	count int
	took  time.Duration
}

// operationsOf asks the agent of a node what it has spent on its operations.
func operationsOf(ctx context.Context, client kubernetes.Interface, node string) (map[string]spent, error) {
	data, err := client.CoreV1().RESTClient().Get().AbsPath("/api/v1/nodes", node, "proxy/metrics").DoRaw(ctx)
	if err != nil {
		return nil, fmt.Errorf("metrics of node %s: %w", node, err)
	}
	all := map[string]spent{}
	lines := bufio.NewScanner(bytes.NewReader(data))
	for lines.Scan() {
		rest, ours := strings.CutPrefix(lines.Text(), "kubelet_runtime_operations_duration_seconds_")
		if !ours {
			continue
		}
		kind, rest, _ := strings.Cut(rest, `{operation_type="`)
		operation, rest, found := strings.Cut(rest, `"} `)
		if !found {
			continue // a bucket
		}
		value, err := strconv.ParseFloat(rest, 64)
		if err != nil {
			return nil, fmt.Errorf("metrics of node %s: %q: %w", node, lines.Text(), err)
		}
		s := all[operation]
		switch kind {
		case "sum":
			s.took = time.Duration(value * float64(time.Second))
		case "count":
			s.count = int(value)
		}
		all[operation] = s
	}
	return all, lines.Err()
}

// steps reports where the time of single pods went, between two looks at the agent.
func (r *report) steps(whole time.Duration, before, after map[string]spent) {
	rest := whole
	for _, o := range operations {
		count := after[o.name].count - before[o.name].count
		if count == 0 {
			continue
		}
		each := (after[o.name].took - before[o.name].took) / time.Duration(count)
		rest -= each
		r.add(fmt.Sprintf("| of that, in the agent: %s (%s) | %.1f ms | | |", o.name, o.what, milliseconds(each)))
	}
	r.add(fmt.Sprintf("| of that: API, scheduler, volumes, status, watches | %.1f ms | | |", milliseconds(rest)))
}
