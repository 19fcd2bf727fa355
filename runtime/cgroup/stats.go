package cgroup

import (
	"bufio"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// Stats is what a cgroup has used.
type Stats struct {
	CPUNanoseconds  uint64
	MemoryUsage     uint64
	MemoryLimit     uint64 // 0 for none
	WorkingSet      uint64 // usage without inactive file pages, what eviction looks at
	RSS             uint64
	PageFaults      uint64
	MajorPageFaults uint64
	SwapUsage       uint64
	Processes       uint64
}

// unlimited is what cgroup v1 shows for no limit: the largest page-aligned int64.
const unlimited = 1 << 62

// PodStats reads what a pod has used.
func (m *Manager) PodStats(uid string) (Stats, error) {
	var err error
	for _, parent := range []string{m.PodParent(uid, "Burstable"), m.PodParent(uid, "Guaranteed"), m.PodParent(uid, "BestEffort")} {
		var s Stats
		if s, err = m.tree.stats(m.path(parent)); err == nil {
			return s, nil
		}
	}
	return Stats{}, err
}

// RootStats reads what all pods together have used.
func (m *Manager) RootStats() (Stats, error) { return m.tree.stats(m.path(m.tier(""))) }

// ContainerStats reads what the container with this OCI cgroupsPath has used.
func (m *Manager) ContainerStats(cgroupsPath string) (Stats, error) {
	return m.tree.stats(m.FilePath(cgroupsPath))
}

// OOMKills counts the processes the kernel killed in that container for want of memory.
func (m *Manager) OOMKills(cgroupsPath string) (uint64, error) {
	return m.tree.oomKills(m.FilePath(cgroupsPath))
}

func (t treeV1) stats(dir string) (Stats, error) {
	memory := filepath.Join(t["memory"], dir)
	usage, err := number(filepath.Join(memory, "memory.usage_in_bytes"))
	if err != nil {
		return Stats{}, err
	}
	s := Stats{MemoryUsage: usage}
	s.CPUNanoseconds, _ = number(filepath.Join(t["cpuacct"], dir, "cpuacct.usage"))
	if limit, err := number(filepath.Join(memory, "memory.limit_in_bytes")); err == nil && limit < unlimited {
		s.MemoryLimit = limit
	}
	fields, err := table(filepath.Join(memory, "memory.stat"))
	if err != nil {
		return Stats{}, err
	}
	s.RSS = fields["total_rss"]
	s.PageFaults = fields["total_pgfault"]
	s.MajorPageFaults = fields["total_pgmajfault"]
	s.SwapUsage = fields["total_swap"]
	s.WorkingSet = usage - min(usage, fields["total_inactive_file"])
	s.Processes, _ = number(filepath.Join(t["pids"], dir, "pids.current"))
	return s, nil
}

func (t treeV1) oomKills(dir string) (uint64, error) {
	fields, err := table(filepath.Join(t["memory"], dir, "memory.oom_control"))
	return fields["oom_kill"], err
}

func (treeV2) stats(dir string) (Stats, error) {
	dir = filepath.Join(mountPoint, dir)
	usage, err := number(filepath.Join(dir, "memory.current"))
	if err != nil {
		return Stats{}, err
	}
	s := Stats{MemoryUsage: usage}
	cpu, err := table(filepath.Join(dir, "cpu.stat"))
	if err != nil {
		return Stats{}, err
	}
	s.CPUNanoseconds = cpu["usage_usec"] * 1000
	s.MemoryLimit, _ = number(filepath.Join(dir, "memory.max")) // "max" is no number: no limit
	fields, err := table(filepath.Join(dir, "memory.stat"))
	if err != nil {
		return Stats{}, err
	}
	s.RSS = fields["anon"]
	s.PageFaults = fields["pgfault"]
	s.MajorPageFaults = fields["pgmajfault"]
	s.WorkingSet = usage - min(usage, fields["inactive_file"])
	s.SwapUsage, _ = number(filepath.Join(dir, "memory.swap.current"))
	s.Processes, _ = number(filepath.Join(dir, "pids.current"))
	return s, nil
}

func (treeV2) oomKills(dir string) (uint64, error) {
	fields, err := table(filepath.Join(mountPoint, dir, "memory.events"))
	return fields["oom_kill"], err
}

func number(name string) (uint64, error) {
	b, err := os.ReadFile(name)
	if err != nil {
		return 0, err
	}
	return strconv.ParseUint(strings.TrimSpace(string(b)), 10, 64)
}

// table reads a file of "name value" lines.
func table(name string) (map[string]uint64, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	fields := map[string]uint64{}
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		key, value, _ := strings.Cut(lines.Text(), " ")
		if n, err := strconv.ParseUint(value, 10, 64); err == nil {
			fields[key] = n
		}
	}
	return fields, lines.Err()
}
