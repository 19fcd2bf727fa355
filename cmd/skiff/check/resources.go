package check

import (
	"context"
	"fmt"
	"runtime"
	"strconv"
	"strings"

	"github.com/skiff-run/skiff/internal/operator"
)

const mebibyte = 1 << 20

// Memory in bytes below which a machine of a role cannot work, or only just.
// The daemons of an idle control machine take about 150 MiB and the operating
// system as much; the rest is for pods.
var memoryNeeds = map[operator.Role]struct{ least, good int64 }{
	operator.Control: {450 * mebibyte, 900 * mebibyte},
	operator.Worker:  {225 * mebibyte, 450 * mebibyte},
}

// memory is /proc/meminfo in bytes.
func (h *host) memory() map[string]int64 {
	values := map[string]int64{}
	for _, line := range h.lines("proc/meminfo") {
		if f := strings.Fields(line); len(f) >= 2 {
			if n, err := strconv.ParseInt(f[1], 10, 64); err == nil {
				values[strings.TrimSuffix(f[0], ":")] = n << 10
			}
		}
	}
	return values
}

func checkResources(_ context.Context, e *examination) {
	m := e.memory()
	total, available, needs := m["MemTotal"], m["MemAvailable"], memoryNeeds[e.role]
	found := fmt.Sprintf("%s, of which %s are available", size(total), size(available))
	switch {
	case total == 0:
		e.warn("memory", "/proc/meminfo does not say how much there is")
	case total < needs.least:
		e.fail("memory", fmt.Sprintf("%s: too little for a %s machine, which needs %s", found, e.role, size(needs.good)))
	case total < needs.good:
		e.warn("memory", fmt.Sprintf("%s: leaves little for pods; %s are good for a %s machine", found, size(needs.good), e.role))
	case available < 100*mebibyte:
		// The agent's default threshold.
		e.warn("memory", found+": the node is or will be under memory pressure, and pods are evicted", "ps -eo rss,comm --sort -rss | head   # what takes it")
	default:
		e.ok("memory", "%s", found)
	}
	e.processors()
	switch swap := m["SwapTotal"]; {
	case swap == 0:
		e.ok("swap", "none")
	case e.role == operator.Control:
		e.warn("swap", size(swap)+": a store that is swapped out answers too late, and leaders change", "swapoff --all && sed -i '/\\sswap\\s/s/^/#/' /etc/fstab")
	default:
		e.ok("swap", "%s; pods with limits of memory do not use it", size(swap))
	}
}

func (e *examination) processors() {
	count := 0
	for _, line := range e.lines("proc/cpuinfo") {
		if strings.HasPrefix(line, "processor") {
			count++
		}
	}
	switch {
	case count == 0:
		e.ok("processors", "%d", runtime.NumCPU())
	case count == 1:
		e.ok("processors", "1; what pods take is missing when they start")
	default:
		e.ok("processors", "%d", count)
	}
}

// size is a number of bytes as people read it.
func size(n int64) string {
	const units = "KMGTP"
	value, unit := float64(n)/1024, 0
	for value >= 1024 && unit < len(units)-1 {
		value /= 1024
		unit++
	}
	if value >= 100 {
		return fmt.Sprintf("%.0f %ciB", value, units[unit])
	}
	return fmt.Sprintf("%.1f %ciB", value, units[unit])
}
