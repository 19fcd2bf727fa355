package usage

import (
	"context"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/skiff-run/skiff/runtime"
	"github.com/skiff-run/skiff/runtime/cgroup"
)

// CAdvisor is the content of /metrics/cadvisor: what dashboards draw, under
// cAdvisor's names and labels. A pod's own series have an empty container label,
// those of the groups above no pod either.
func (c *Collector) CAdvisor(ctx context.Context) prometheus.Collector {
	return cadvisorMetrics{ctx, c}
}

type cadvisorMetrics struct {
	ctx context.Context
	*Collector
}

// Describe sends nothing: what is collected is known only then.
func (cadvisorMetrics) Describe(chan<- *prometheus.Desc) {}

// subject is what a series is about.
type subject struct{ container, id, image, name, namespace, pod string }

func (s subject) values(more ...string) []string {
	return append([]string{s.container, s.id, s.image, s.name, s.namespace, s.pod}, more...)
}

// described are cAdvisor's labels, then those of one metric.
func described(more ...string) []string {
	return append([]string{"container", "id", "image", "name", "namespace", "pod"}, more...)
}

// Collect implements prometheus.Collector.
func (m cadvisorMetrics) Collect(out chan<- prometheus.Metric) {
	f := newFamilies()
	m.machine(out)
	m.node(f, out)
	for _, tier := range m.Cgroups.Tiers() {
		if used, err := m.tierUsage(tier); err == nil {
			f.cgroup(out, subject{id: m.Cgroups.Path(tier)}, &used, time.Time{})
		}
	}
	disks := m.disks(m.ctx, false)
	for _, pod := range m.Runtime.Usage(m.ctx, true) {
		whole := subject{id: pod.Cgroup, namespace: pod.Namespace, pod: pod.Name}
		if pod.Cgroup != "" {
			f.cgroup(out, whole, &pod.Usage, pod.StartedAt)
		}
		if t := pod.Traffic; t != nil {
			f.network(out, whole, pod.At, link{"eth0", t.RxBytes, t.RxPackets, t.RxErrors, t.RxDropped, t.TxBytes, t.TxPackets, t.TxErrors, t.TxDropped})
		}
		for i := range pod.Containers {
			used := &pod.Containers[i]
			one := subject{used.Name, used.Cgroup, used.Image, used.ID, pod.Namespace, pod.Name}
			f.cgroup(out, one, &used.Usage, used.StartedAt)
			if disks.image != nil && !used.Layer.At.IsZero() {
				f.disk(out, one, used.Layer.At, used.Layer.Bytes, *disks.image)
			}
		}
	}
}

// machine tells what the machine has.
func (m cadvisorMetrics) machine(out chan<- prometheus.Metric) {
	info := meminfo("/proc/meminfo")
	cores, physical, sockets := processors("/proc/cpuinfo")
	const labels = 3
	ids := [labels]string{firstLine("/proc/sys/kernel/random/boot_id"), firstLine("/etc/machine-id"), strings.ToLower(firstLine("/sys/class/dmi/id/product_uuid"))}
	for _, v := range []struct {
		name, help string
		value      float64
	}{
		{"machine_cpu_cores", "Number of logical CPU cores.", float64(cores)},
		{"machine_cpu_physical_cores", "Number of physical CPU cores.", float64(physical)},
		{"machine_cpu_sockets", "Number of CPU sockets.", float64(sockets)},
		{"machine_memory_bytes", "Amount of memory installed on the machine.", float64(info["MemTotal"])},
		{"machine_swap_bytes", "Amount of swap memory available on the machine.", float64(info["SwapTotal"])},
	} {
		out <- gauge(v.name, v.help, "boot_id", "machine_id", "system_uuid").at(time.Time{}, v.value, ids[:]...)
	}
	out <- gauge("machine_scrape_error", "1 if there was an error while getting machine metrics, 0 otherwise.").at(time.Time{}, 0)
	out <- gauge("container_scrape_error", "1 if there was an error while getting container metrics, 0 otherwise").at(time.Time{}, 0)
}

// processors counts threads, cores and sockets.
func processors(path string) (cores, physical, sockets int) {
	data, err := os.ReadFile(path)
	if err != nil {
		return 0, 0, 0
	}
	chips, chipCores := map[string]bool{}, map[string]bool{}
	chip := ""
	for line := range strings.Lines(string(data)) {
		name, value, _ := strings.Cut(line, ":")
		value = strings.TrimSpace(value)
		switch strings.TrimSpace(name) {
		case "processor":
			cores++
		case "physical id":
			chip = value
			chips[chip] = true
		case "core id":
			chipCores[chip+"/"+value] = true
		}
	}
	// Some virtual machines do not tell.
	return cores, max(len(chipCores), min(cores, 1)), max(len(chips), min(cores, 1))
}

// node tells of the whole machine, under the id "/".
func (m cadvisorMetrics) node(f families, out chan<- prometheus.Metric) {
	n := m.nodeUsage()
	root := subject{id: "/"}
	used := runtime.Usage{At: n.at}
	used.CPUNanoseconds, used.MemoryUsage, used.WorkingSet, used.RSS = n.cpu, n.used, n.workingSet, n.rss
	used.Cache, used.MappedFile, used.SwapUsage, used.MemoryLimit = n.cache, n.mapped, n.swapUsed, n.memory
	used.CPUPressure, used.MemoryPressure, used.IOPressure = cgroup.ReadPressure("/proc/pressure/cpu"), cgroup.ReadPressure("/proc/pressure/memory"), cgroup.ReadPressure("/proc/pressure/io")
	f.cgroup(out, root, &used, bootTime().Time)
	for _, l := range links("/proc/self/net/dev") {
		f.network(out, root, n.at, l)
	}
	seen := map[string]bool{}
	disks := m.disks(m.ctx, false)
	for _, d := range []*disk{disks.node, disks.image} {
		if d != nil && !seen[d.device] {
			seen[d.device] = true
			f.disk(out, root, n.at, d.size-d.free, *d)
		}
	}
}

// families are the metrics of cgroups, links and disks.
type families struct {
	cpu, cpuUser, cpuSystem, periods, throttled, throttledTime                       family
	usage, workingSet, rss, cache, mapped, swap, kernel, maximum, failures, faults   family
	activeFile, inactiveFile, ooms                                                   family
	reads, readBytes, writes, writeBytes, blkio                                      family
	fsUsage, fsLimit, inodes, inodesFree                                             family
	rxBytes, rxPackets, rxErrors, rxDropped, txBytes, txPackets, txErrors, txDropped family
	lastSeen, started, processes, threads, maxThreads                                family
	shares, quota, period, memoryLimit, memoryReservation, swapLimit                 family
	cpuWaiting, cpuStalled, memoryWaiting, memoryStalled, ioWaiting, ioStalled       family
}

func newFamilies() families {
	count := func(name, help string, more ...string) family {
		return counter("container_"+name, help, described(more...)...)
	}
	value := func(name, help string, more ...string) family {
		return gauge("container_"+name, help, described(more...)...)
	}
	return families{
		cpu:               count("cpu_usage_seconds_total", "Cumulative cpu time consumed in seconds.", "cpu"),
		cpuUser:           count("cpu_user_seconds_total", "Cumulative user cpu time consumed in seconds."),
		cpuSystem:         count("cpu_system_seconds_total", "Cumulative system cpu time consumed in seconds."),
		periods:           count("cpu_cfs_periods_total", "Number of elapsed enforcement period intervals."),
		throttled:         count("cpu_cfs_throttled_periods_total", "Number of throttled period intervals."),
		throttledTime:     count("cpu_cfs_throttled_seconds_total", "Total time duration the container has been throttled."),
		usage:             value("memory_usage_bytes", "Current memory usage in bytes, including all memory regardless of when it was accessed"),
		workingSet:        value("memory_working_set_bytes", "Current working set in bytes."),
		rss:               value("memory_rss", "Size of RSS in bytes."),
		cache:             value("memory_cache", "Number of bytes of page cache memory."),
		mapped:            value("memory_mapped_file", "Size of memory mapped files in bytes."),
		swap:              value("memory_swap", "Container swap usage in bytes."),
		kernel:            value("memory_kernel_usage", "Size of kernel memory allocated in bytes."),
		maximum:           value("memory_max_usage_bytes", "Maximum memory usage recorded in bytes"),
		failures:          count("memory_failcnt", "Number of memory usage hits limits"),
		faults:            count("memory_failures_total", "Cumulative count of memory allocation failures.", "failure_type", "scope"),
		activeFile:        value("memory_total_active_file_bytes", "Current total active file in bytes."),
		inactiveFile:      value("memory_total_inactive_file_bytes", "Current total inactive file in bytes."),
		ooms:              count("oom_events_total", "Count of out of memory events observed for the container"),
		reads:             count("fs_reads_total", "Cumulative count of reads completed", "device"),
		readBytes:         count("fs_reads_bytes_total", "Cumulative count of bytes read", "device"),
		writes:            count("fs_writes_total", "Cumulative count of writes completed", "device"),
		writeBytes:        count("fs_writes_bytes_total", "Cumulative count of bytes written", "device"),
		blkio:             count("blkio_device_usage_total", "Blkio Device bytes usage", "device", "major", "minor", "operation"),
		fsUsage:           value("fs_usage_bytes", "Number of bytes that are consumed by the container on this filesystem.", "device"),
		fsLimit:           value("fs_limit_bytes", "Number of bytes that can be consumed by the container on this filesystem.", "device"),
		inodes:            value("fs_inodes_total", "Number of Inodes", "device"),
		inodesFree:        value("fs_inodes_free", "Number of available Inodes", "device"),
		rxBytes:           count("network_receive_bytes_total", "Cumulative count of bytes received", "interface"),
		rxPackets:         count("network_receive_packets_total", "Cumulative count of packets received", "interface"),
		rxErrors:          count("network_receive_errors_total", "Cumulative count of errors encountered while receiving", "interface"),
		rxDropped:         count("network_receive_packets_dropped_total", "Cumulative count of packets dropped while receiving", "interface"),
		txBytes:           count("network_transmit_bytes_total", "Cumulative count of bytes transmitted", "interface"),
		txPackets:         count("network_transmit_packets_total", "Cumulative count of packets transmitted", "interface"),
		txErrors:          count("network_transmit_errors_total", "Cumulative count of errors encountered while transmitting", "interface"),
		txDropped:         count("network_transmit_packets_dropped_total", "Cumulative count of packets dropped while transmitting", "interface"),
		lastSeen:          value("last_seen", "Last time a container was seen by the exporter"),
		started:           value("start_time_seconds", "Start time of the container since unix epoch in seconds."),
		processes:         value("processes", "Number of processes running inside the container."),
		threads:           value("threads", "Number of threads running inside the container"),
		maxThreads:        value("threads_max", "Maximum number of threads allowed inside the container, infinity if value is zero"),
		shares:            value("spec_cpu_shares", "CPU share of the container."),
		quota:             value("spec_cpu_quota", "CPU quota of the container."),
		period:            value("spec_cpu_period", "CPU period of the container."),
		memoryLimit:       value("spec_memory_limit_bytes", "Memory limit for the container."),
		memoryReservation: value("spec_memory_reservation_limit_bytes", "Memory reservation limit for the container."),
		swapLimit:         value("spec_memory_swap_limit_bytes", "Memory swap limit for the container."),
		cpuWaiting:        count("pressure_cpu_waiting_seconds_total", "Total time duration tasks in the container have waited due to CPU congestion."),
		cpuStalled:        count("pressure_cpu_stalled_seconds_total", "Total time duration no tasks in the container could make progress due to CPU congestion."),
		memoryWaiting:     count("pressure_memory_waiting_seconds_total", "Total time duration tasks in the container have waited due to memory congestion."),
		memoryStalled:     count("pressure_memory_stalled_seconds_total", "Total time duration no tasks in the container could make progress due to memory congestion."),
		ioWaiting:         count("pressure_io_waiting_seconds_total", "Total time duration tasks in the container have waited due to IO congestion."),
		ioStalled:         count("pressure_io_stalled_seconds_total", "Total time duration no tasks in the container could make progress due to IO congestion."),
	}
}

// cgroup sends what one cgroup tells.
func (f families) cgroup(out chan<- prometheus.Metric, s subject, u *runtime.Usage, started time.Time) {
	send := func(f family, value float64, more ...string) { out <- f.at(u.At, value, s.values(more...)...) }
	number := func(f family, value uint64, more ...string) { send(f, float64(value), more...) }
	send(f.cpu, seconds(u.CPUNanoseconds), "total")
	send(f.cpuUser, seconds(u.CPUUserNanoseconds))
	send(f.cpuSystem, seconds(u.CPUSystemNanoseconds))
	if u.CPUQuota > 0 {
		number(f.periods, u.Periods)
		number(f.throttled, u.ThrottledPeriods)
		send(f.throttledTime, seconds(u.ThrottledNanoseconds))
		number(f.quota, u.CPUQuota)
	}
	for family, value := range map[family]uint64{
		f.usage: u.MemoryUsage, f.workingSet: u.WorkingSet, f.rss: u.RSS, f.cache: u.Cache, f.mapped: u.MappedFile, f.swap: u.SwapUsage, f.kernel: u.Kernel,
		f.maximum: u.MaxMemoryUsage, f.failures: u.MemoryFailures, f.activeFile: u.ActiveFile, f.inactiveFile: u.InactiveFile, f.ooms: u.OOMKills,
		f.processes: u.Processes, f.threads: u.Threads, f.maxThreads: u.MaxThreads, f.shares: u.CPUShares, f.period: u.CPUPeriod,
		f.memoryLimit: u.MemoryLimit, f.memoryReservation: u.MemoryReservation, f.swapLimit: u.SwapLimit,
	} {
		number(family, value)
	}
	for _, scope := range []string{"container", "hierarchy"} {
		number(f.faults, u.PageFaults, "pgfault", scope)
		number(f.faults, u.MajorPageFaults, "pgmajfault", scope)
	}
	out <- f.lastSeen.at(u.At, float64(u.At.Unix()), s.values()...)
	if !started.IsZero() {
		send(f.started, float64(started.Unix()))
	}
	for _, d := range u.Devices {
		name := deviceName(d.Major, d.Minor)
		number(f.reads, d.ReadCount, name)
		number(f.readBytes, d.ReadBytes, name)
		number(f.writes, d.WriteCount, name)
		number(f.writeBytes, d.WriteBytes, name)
		major, minor := strconv.FormatUint(d.Major, 10), strconv.FormatUint(d.Minor, 10)
		number(f.blkio, d.ReadBytes, name, major, minor, "Read")
		number(f.blkio, d.WriteBytes, name, major, minor, "Write")
	}
	stalls := func(p *cgroup.Pressure, waiting, stalled family) {
		if p != nil {
			const perSecond = 1e6
			send(waiting, float64(p.Some.Total)/perSecond)
			send(stalled, float64(p.Full.Total)/perSecond)
		}
	}
	stalls(u.CPUPressure, f.cpuWaiting, f.cpuStalled)
	stalls(u.MemoryPressure, f.memoryWaiting, f.memoryStalled)
	stalls(u.IOPressure, f.ioWaiting, f.ioStalled)
}

// network sends what one link has moved.
func (f families) network(out chan<- prometheus.Metric, s subject, at time.Time, l link) {
	for family, value := range map[family]uint64{
		f.rxBytes: l.rxBytes, f.rxPackets: l.rxPackets, f.rxErrors: l.rxErrors, f.rxDropped: l.rxDropped,
		f.txBytes: l.txBytes, f.txPackets: l.txPackets, f.txErrors: l.txErrors, f.txDropped: l.txDropped,
	} {
		out <- family.at(at, float64(value), s.values(l.name)...)
	}
}

// disk sends what something takes of a file system.
func (f families) disk(out chan<- prometheus.Metric, s subject, at time.Time, used uint64, d disk) {
	for family, value := range map[family]uint64{f.fsUsage: used, f.fsLimit: d.size, f.inodes: d.inodes, f.inodesFree: d.inodesFree} {
		out <- family.at(at, float64(value), s.values(d.device)...)
	}
}

// deviceName is the path of a block device.
func deviceName(major, minor uint64) string {
	data, err := os.ReadFile(filepath.Join("/sys/dev/block", strconv.FormatUint(major, 10)+":"+strconv.FormatUint(minor, 10), "uevent"))
	if err != nil {
		return ""
	}
	for line := range strings.Lines(string(data)) {
		if name, ok := strings.CutPrefix(line, "DEVNAME="); ok {
			return "/dev/" + strings.TrimSpace(name)
		}
	}
	return ""
}
