package resilience

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"text/tabwriter"
	"time"
)

// Operations is how many requests clients made, watches not counted.
func (r *Record) Operations() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	n := 0
	for what, counts := range r.counts {
		if what == "watch" {
			continue
		}
		for _, count := range counts {
			n += count
		}
	}
	return n
}

// FaultsDone is how many faults were done.
func (m *Mistreatment) FaultsDone() int {
	n := 0
	for _, count := range m.done {
		n += count
	}
	return n
}

// Print writes what was done and what clients saw as tables.
func (m *Mistreatment) Print(out io.Writer) {
	r := m.Record
	r.mu.Lock()
	defer r.mu.Unlock()
	table := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(table, "request\tdone\trefused\tnot made\tunknown\t")
	for _, what := range slices.Sorted(maps.Keys(r.counts)) {
		c := r.counts[what]
		fmt.Fprintf(table, "%s\t%d\t%d\t%d\t%d\t\n", what, c[done], c[refused], c[notMade], c[unknown])
	}
	_ = table.Flush()
	fmt.Fprintf(out, "watch events %d of %d mutations, watches resumed on another server %d, begun anew %d\n\n",
		r.received, len(r.events), r.resumed, len(r.expired))
	table = tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "fault\ttimes\tlongest time without an acknowledged write")
	for _, fault := range m.Faults {
		fmt.Fprintf(table, "%s\t%d\t%s\n", fault.Name, m.done[fault.Name], r.longest[fault.Name].Round(time.Millisecond))
	}
	fmt.Fprintf(table, "%s\t\t%s\n", calm, r.longest[calm].Round(time.Millisecond))
	_ = table.Flush()
	for _, why := range r.expired {
		fmt.Fprintln(out, "begun anew:", why)
	}
	for _, member := range m.Cluster.Members {
		for _, why := range member.OwnEnds() {
			fmt.Fprintf(out, "%s ended by itself: %s\n", member.Name, why)
		}
	}
}
