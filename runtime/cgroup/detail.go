package cgroup

import (
	"bufio"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// Detail is everything a cgroup tells about itself, for whoever draws graphs of
// it. Counters begin with the cgroup.
type Detail struct {
	Stats
	CPUUserNanoseconds, CPUSystemNanoseconds uint64
	// Periods in which a quota was in force, those that used it up, and how long
	// tasks waited for the next.
	Periods, ThrottledPeriods, ThrottledNanoseconds uint64

	Cache, MappedFile, Kernel, MaxMemoryUsage uint64
	ActiveFile, InactiveFile                  uint64
	// MemoryFailures counts how often the limit was hit.
	MemoryFailures uint64
	OOMKills       uint64

	// What is allowed. A quota of 0 is none, in microseconds as the period is.
	CPUShares, CPUQuota, CPUPeriod uint64
	// SwapLimit in bytes, without memory; 0 for none. MemoryReservation likewise.
	SwapLimit, MemoryReservation uint64
	// MaxThreads is 0 for no limit.
	MaxThreads uint64
	Threads    uint64

	Devices []DeviceIO
	// CPUPressure, MemoryPressure and IOPressure are nil where the kernel has none.
	CPUPressure, MemoryPressure, IOPressure *Pressure
}

// DeviceIO is what a cgroup read from and wrote to a block device.
type DeviceIO struct {
	Major, Minor                                 uint64
	ReadBytes, WriteBytes, ReadCount, WriteCount uint64
}

// Pressure is what the kernel measures of tasks that waited for a resource.
type Pressure struct{ Some, Full Stall }

// Stall is how long tasks waited: in the whole in microseconds, and as a share
// of the last 10, 60 and 300 seconds in percent.
type Stall struct {
	Total                uint64
	Avg10, Avg60, Avg300 float64
}

// ContainerDetail reads everything about the container with this OCI cgroupsPath.
func (m *Manager) ContainerDetail(cgroupsPath string) (Detail, error) {
	return m.tree.detail(m.FilePath(cgroupsPath))
}

// Detail reads everything about the cgroup of that name in cgroupfs syntax.
func (m *Manager) Detail(name string) (Detail, error) { return m.tree.detail(m.path(name)) }

// Path is where the cgroup of that name in cgroupfs syntax stands below a controller's mount.
func (m *Manager) Path(name string) string { return m.path(name) }

// Tiers are the cgroups above those of pods, in cgroupfs syntax.
func (m *Manager) Tiers() []string {
	return []string{m.tier(""), m.tier("Burstable"), m.tier("BestEffort")}
}

// CPUTime reads how long the cgroup of that path below a controller's mount has computed, in nanoseconds.
func (m *Manager) CPUTime(path string) (uint64, error) { return m.tree.cpuTime(path) }

func (t treeV1) cpuTime(dir string) (uint64, error) {
	return number(filepath.Join(t["cpuacct"], dir, "cpuacct.usage"))
}

func (treeV2) cpuTime(dir string) (uint64, error) {
	cpu, err := table(filepath.Join(mountPoint, dir, "cpu.stat"))
	return cpu["usage_usec"] * 1000, err
}

func (t treeV1) detail(dir string) (Detail, error) {
	stats, err := t.stats(dir)
	if err != nil {
		return Detail{}, err
	}
	d := Detail{Stats: stats, Threads: stats.Processes}
	memory := filepath.Join(t["memory"], dir)
	fields, err := table(filepath.Join(memory, "memory.stat"))
	if err != nil {
		return Detail{}, err
	}
	d.Cache, d.MappedFile = fields["total_cache"], fields["total_mapped_file"]
	d.ActiveFile, d.InactiveFile = fields["total_active_file"], fields["total_inactive_file"]
	// What a kernel does not have stays zero.
	d.Kernel, _ = number(filepath.Join(memory, "memory.kmem.usage_in_bytes"))
	d.MaxMemoryUsage, _ = number(filepath.Join(memory, "memory.max_usage_in_bytes"))
	d.MemoryFailures, _ = number(filepath.Join(memory, "memory.failcnt"))
	if soft, err := number(filepath.Join(memory, "memory.soft_limit_in_bytes")); err == nil && soft < unlimited {
		d.MemoryReservation = soft
	}
	if both, err := number(filepath.Join(memory, "memory.memsw.limit_in_bytes")); err == nil && both < unlimited {
		d.SwapLimit = both - min(both, stats.MemoryLimit)
	}
	d.OOMKills, _ = t.oomKills(dir)
	ticks, _ := table(filepath.Join(t["cpuacct"], dir, "cpuacct.stat"))
	d.CPUUserNanoseconds, d.CPUSystemNanoseconds = ticks["user"]*nanosecondsPerTick, ticks["system"]*nanosecondsPerTick
	cpu := filepath.Join(t["cpu"], dir)
	quota, _ := table(filepath.Join(cpu, "cpu.stat"))
	d.Periods, d.ThrottledPeriods, d.ThrottledNanoseconds = quota["nr_periods"], quota["nr_throttled"], quota["throttled_time"]
	d.CPUShares, _ = number(filepath.Join(cpu, "cpu.shares"))
	d.CPUQuota, _ = number(filepath.Join(cpu, "cpu.cfs_quota_us")) // -1 is no number: no quota
	d.CPUPeriod, _ = number(filepath.Join(cpu, "cpu.cfs_period_us"))
	d.MaxThreads, _ = number(filepath.Join(t["pids"], dir, "pids.max")) // "max" is no number: no limit
	d.Devices = blkio(filepath.Join(t["blkio"], dir))
	return d, nil
}

// nanosecondsPerTick: the kernel shows the times of processes in hundredths of a second.
const nanosecondsPerTick = 1e9 / 100

func (t treeV2) detail(dir string) (Detail, error) {
	stats, err := t.stats(dir)
	if err != nil {
		return Detail{}, err
	}
	d := Detail{Stats: stats, Threads: stats.Processes}
	dir = filepath.Join(mountPoint, dir)
	fields, err := table(filepath.Join(dir, "memory.stat"))
	if err != nil {
		return Detail{}, err
	}
	d.Cache, d.MappedFile, d.Kernel = fields["file"], fields["file_mapped"], fields["kernel"]
	d.ActiveFile, d.InactiveFile = fields["active_file"], fields["inactive_file"]
	// What a kernel does not have, and what is "max", stays zero.
	d.MaxMemoryUsage, _ = number(filepath.Join(dir, "memory.peak"))
	d.MemoryReservation, _ = number(filepath.Join(dir, "memory.low"))
	d.SwapLimit, _ = number(filepath.Join(dir, "memory.swap.max"))
	d.MaxThreads, _ = number(filepath.Join(dir, "pids.max"))
	happened, _ := table(filepath.Join(dir, "memory.events"))
	d.MemoryFailures, d.OOMKills = happened["max"], happened["oom_kill"]
	cpu, _ := table(filepath.Join(dir, "cpu.stat"))
	d.CPUUserNanoseconds, d.CPUSystemNanoseconds = cpu["user_usec"]*1000, cpu["system_usec"]*1000
	d.Periods, d.ThrottledPeriods, d.ThrottledNanoseconds = cpu["nr_periods"], cpu["nr_throttled"], cpu["throttled_usec"]*1000
	if weight, err := number(filepath.Join(dir, "cpu.weight")); err == nil {
		d.CPUShares = sharesOf(weight)
	}
	if raw, err := os.ReadFile(filepath.Join(dir, "cpu.max")); err == nil {
		quota, period, _ := strings.Cut(strings.TrimSpace(string(raw)), " ")
		d.CPUQuota, _ = strconv.ParseUint(quota, 10, 64)
		d.CPUPeriod, _ = strconv.ParseUint(period, 10, 64)
	}
	d.Devices = ioStat(filepath.Join(dir, "io.stat"))
	d.CPUPressure, d.MemoryPressure, d.IOPressure = pressures(dir)
	return d, nil
}

func pressures(dir string) (cpu, memory, io *Pressure) {
	return ReadPressure(filepath.Join(dir, "cpu.pressure")), ReadPressure(filepath.Join(dir, "memory.pressure")), ReadPressure(filepath.Join(dir, "io.pressure"))
}

// ReadPressure reads a file such as /proc/pressure/cpu; nil when there is none.
func ReadPressure(path string) *Pressure {
	raw, err := os.ReadFile(path)
	if err != nil {
		return nil
	}
	p := &Pressure{}
	for line := range strings.Lines(string(raw)) {
		fields := strings.Fields(line)
		if len(fields) < 5 {
			continue
		}
		stall := &p.Some
		if fields[0] == "full" {
			stall = &p.Full
		}
		for _, field := range fields[1:] {
			name, value, _ := strings.Cut(field, "=")
			switch name {
			case "total":
				stall.Total, _ = strconv.ParseUint(value, 10, 64)
			case "avg10":
				stall.Avg10, _ = strconv.ParseFloat(value, 64)
			case "avg60":
				stall.Avg60, _ = strconv.ParseFloat(value, 64)
			case "avg300":
				stall.Avg300, _ = strconv.ParseFloat(value, 64)
			}
		}
	}
	return p
}

// blkio reads cgroup v1's two files of lines such as "8:0 Read 4096".
func blkio(dir string) []DeviceIO {
	var order []string
	devices := map[string]*DeviceIO{}
	read := func(file string, read, write func(*DeviceIO) *uint64) {
		f, err := os.Open(filepath.Join(dir, file))
		if err != nil {
			return
		}
		defer f.Close()
		lines := bufio.NewScanner(f)
		for lines.Scan() {
			fields := strings.Fields(lines.Text())
			if len(fields) != 3 {
				continue
			}
			d := devices[fields[0]]
			if d == nil {
				major, minor, ok := device(fields[0])
				if !ok {
					continue
				}
				d = &DeviceIO{Major: major, Minor: minor}
				devices[fields[0]] = d
				order = append(order, fields[0])
			}
			value, _ := strconv.ParseUint(fields[2], 10, 64)
			switch fields[1] {
			case "Read":
				*read(d) = value
			case "Write":
				*write(d) = value
			}
		}
	}
	read("blkio.throttle.io_service_bytes_recursive", func(d *DeviceIO) *uint64 { return &d.ReadBytes }, func(d *DeviceIO) *uint64 { return &d.WriteBytes })
	read("blkio.throttle.io_serviced_recursive", func(d *DeviceIO) *uint64 { return &d.ReadCount }, func(d *DeviceIO) *uint64 { return &d.WriteCount })
	list := make([]DeviceIO, 0, len(order))
	for _, name := range order {
		list = append(list, *devices[name])
	}
	return list
}

// ioStat reads cgroup v2's lines such as "8:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=0 dios=0".
func ioStat(file string) []DeviceIO {
	raw, err := os.ReadFile(file)
	if err != nil {
		return nil
	}
	var list []DeviceIO
	for line := range strings.Lines(string(raw)) {
		fields := strings.Fields(line)
		if len(fields) < 2 {
			continue
		}
		major, minor, ok := device(fields[0])
		if !ok {
			continue
		}
		d := DeviceIO{Major: major, Minor: minor}
		for _, field := range fields[1:] {
			name, value, _ := strings.Cut(field, "=")
			n, _ := strconv.ParseUint(value, 10, 64)
			switch name {
			case "rbytes":
				d.ReadBytes = n
			case "wbytes":
				d.WriteBytes = n
			case "rios":
				d.ReadCount = n
			case "wios":
				d.WriteCount = n
			}
		}
		list = append(list, d)
	}
	return list
}

func device(name string) (major, minor uint64, ok bool) {
	a, b, found := strings.Cut(name, ":")
	major, err1 := strconv.ParseUint(a, 10, 32)
	minor, err2 := strconv.ParseUint(b, 10, 32)
	return major, minor, found && err1 == nil && err2 == nil
}
