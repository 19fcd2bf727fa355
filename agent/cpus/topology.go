package cpus

import (
	"cmp"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"k8s.io/utils/cpuset"
)

// cpu is one processor as the kernel counts them: a hardware thread.
type cpu struct{ id, core, socket int }

// Topology is which processors share a core, and which a socket.
type Topology []cpu

// ReadTopology reads the online processors of the machine; sysfs is /sys/devices/system/cpu.
func ReadTopology(sysfs string) (Topology, error) {
	data, err := os.ReadFile(filepath.Join(sysfs, "online"))
	if err != nil {
		return nil, fmt.Errorf("read which processors there are: %w", err)
	}
	online, err := cpuset.Parse(strings.TrimSpace(string(data)))
	if err != nil {
		return nil, fmt.Errorf("read which processors there are: %w", err)
	}
	var t Topology
	for _, id := range online.List() {
		number := func(file string) int {
			data, err := os.ReadFile(filepath.Join(sysfs, fmt.Sprintf("cpu%d", id), "topology", file))
			if err != nil {
				return -1
			}
			n, err := strconv.Atoi(strings.TrimSpace(string(data)))
			if err != nil {
				return -1
			}
			return n
		}
		one := cpu{id: id, core: number("core_id"), socket: number("physical_package_id")}
		if one.core < 0 {
			// A machine that does not tell has a core for every processor.
			one.core = id
		}
		t = append(t, one)
	}
	return t, nil
}

// All processors.
func (t Topology) All() cpuset.CPUSet {
	var ids []int
	for _, c := range t {
		ids = append(ids, c.id)
	}
	return cpuset.New(ids...)
}

// First returns the first n processors, core by core.
func (t Topology) First(n int) cpuset.CPUSet {
	set, _ := t.take(t.All(), min(n, len(t)))
	return set
}

type core struct{ socket, core int }

func (c cpu) of() core { return core{c.socket, c.core} }

// take picks n of the available processors: whole sockets, then whole cores, then single threads, of cores that are in use
// already before others. ok is false when there are too few.
func (t Topology) take(available cpuset.CPUSet, n int) (picked cpuset.CPUSet, ok bool) {
	if available.Size() < n {
		return cpuset.New(), false
	}
	size := func(same func(cpu) bool, from cpuset.CPUSet) (all int, free []int) {
		for _, c := range t {
			if same(c) {
				all++
				if from.Contains(c.id) {
					free = append(free, c.id)
				}
			}
		}
		return all, free
	}
	picked = cpuset.New()
	rest := available
	grab := func(ids []int) {
		set := cpuset.New(ids...)
		picked, rest = picked.Union(set), rest.Difference(set)
	}
	var sockets []int
	var cores []core
	for _, c := range t {
		if !slices.Contains(sockets, c.socket) {
			sockets = append(sockets, c.socket)
		}
		if !slices.Contains(cores, c.of()) {
			cores = append(cores, c.of())
		}
	}
	slices.Sort(sockets)
	for _, s := range sockets {
		if all, free := size(func(c cpu) bool { return c.socket == s }, rest); len(free) == all && all <= n-picked.Size() {
			grab(free)
		}
	}
	// Sockets with the least room first, so that others stay whole.
	slices.SortStableFunc(cores, func(a, b core) int {
		_, x := size(func(c cpu) bool { return c.socket == a.socket }, rest)
		_, y := size(func(c cpu) bool { return c.socket == b.socket }, rest)
		return cmp.Or(cmp.Compare(len(x), len(y)), cmp.Compare(a.socket, b.socket), cmp.Compare(a.core, b.core))
	})
	for _, k := range cores {
		if all, free := size(func(c cpu) bool { return c.of() == k }, rest); len(free) == all && all <= n-picked.Size() {
			grab(free)
		}
	}
	slices.SortStableFunc(cores, func(a, b core) int {
		_, x := size(func(c cpu) bool { return c.of() == a }, rest)
		_, y := size(func(c cpu) bool { return c.of() == b }, rest)
		return cmp.Compare(len(x), len(y))
	})
	for _, k := range cores {
		_, free := size(func(c cpu) bool { return c.of() == k }, rest)
		grab(free[:min(len(free), n-picked.Size())])
	}
	return picked, true
}
