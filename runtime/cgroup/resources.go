package cgroup

import (
	"math"
	"sort"
	"strconv"
)

// Resources are the limits of one cgroup; a zero field is left alone.
type Resources struct {
	// CPUShares is the relative weight in the units of cgroup v1, 2 to 262144.
	CPUShares uint64
	// CPUQuota is in microseconds per period, -1 for none.
	CPUQuota int64
	// CPUPeriod is in microseconds; 100000 when a quota is given without it.
	CPUPeriod uint64
	// MemoryLimit is in bytes, -1 for none.
	MemoryLimit int64
	// PidsLimit is a number of processes, -1 for none.
	PidsLimit int64
	// HugepageLimit is in bytes by page size such as "2MB".
	HugepageLimit map[string]uint64
	// Unified are files of cgroup v2 with what to write into them.
	Unified map[string]string
}

const defaultPeriod = 100000

// write is one file of a cgroup and what belongs in it.
type write struct {
	controller, file, value string
}

// filesV1 returns the writes that put r into force on cgroup v1.
func (r Resources) filesV1() []write {
	var w []write
	if r.CPUShares > 0 {
		w = append(w, write{"cpu", "cpu.shares", strconv.FormatUint(r.CPUShares, 10)})
	}
	if r.CPUQuota != 0 || r.CPUPeriod != 0 {
		w = append(w, write{"cpu", "cpu.cfs_period_us", strconv.FormatUint(r.period(), 10)})
	}
	if r.CPUQuota != 0 {
		w = append(w, write{"cpu", "cpu.cfs_quota_us", strconv.FormatInt(r.CPUQuota, 10)})
	}
	if r.MemoryLimit != 0 {
		w = append(w, write{"memory", "memory.limit_in_bytes", strconv.FormatInt(r.MemoryLimit, 10)})
	}
	if r.PidsLimit != 0 {
		w = append(w, write{"pids", "pids.max", orMax(r.PidsLimit)})
	}
	for size, limit := range r.HugepageLimit {
		w = append(w, write{"hugetlb", "hugetlb." + size + ".limit_in_bytes", strconv.FormatUint(limit, 10)})
	}
	return w
}

// filesV2 returns the writes that put r into force on cgroup v2.
func (r Resources) filesV2() []write {
	var w []write
	if r.CPUShares > 0 {
		w = append(w, write{"cpu", "cpu.weight", strconv.FormatUint(Weight(r.CPUShares), 10)})
	}
	if r.CPUQuota != 0 {
		w = append(w, write{"cpu", "cpu.max", orMax(r.CPUQuota) + " " + strconv.FormatUint(r.period(), 10)})
	}
	if r.MemoryLimit != 0 {
		w = append(w, write{"memory", "memory.max", orMax(r.MemoryLimit)})
	}
	if r.PidsLimit != 0 {
		w = append(w, write{"pids", "pids.max", orMax(r.PidsLimit)})
	}
	for size, limit := range r.HugepageLimit {
		w = append(w, write{"hugetlb", "hugetlb." + size + ".max", strconv.FormatUint(limit, 10)})
	}
	for file, value := range r.Unified {
		w = append(w, write{"", file, value})
	}
	return w
}

func (r Resources) period() uint64 {
	if r.CPUPeriod == 0 {
		return defaultPeriod
	}
	return r.CPUPeriod
}

func orMax(n int64) string {
	if n < 0 {
		return "max"
	}
	return strconv.FormatInt(n, 10)
}

// Weight converts CPU shares (2 to 262144, default 1024) to a cgroup v2 weight
// (1 to 10000, default 100) by the curve Kubernetes uses since 1.35, on which the
// minimum, the default and the maximum of both scales meet.
func Weight(shares uint64) uint64 {
	switch {
	case shares == 0:
		return 0
	case shares <= 2:
		return 1
	case shares >= 262144:
		return 10000
	}
	l := math.Log2(float64(shares))
	return uint64(math.Ceil(math.Pow(10, (l*l+125*l)/612-7.0/34.0)))
}

// sharesOf are the most shares that Weight makes this weight of.
func sharesOf(weight uint64) uint64 {
	return minShares + uint64(sort.Search(maxShares-minShares, func(i int) bool { return Weight(minShares+uint64(i)+1) > weight }))
}

// minShares and maxShares are the kernel's bounds.
const minShares, maxShares = 2, 262144
