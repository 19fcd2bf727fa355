package usage

import (
	"bufio"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	stats "k8s.io/kubelet/pkg/apis/stats/v1alpha1"

	"github.com/skiff-run/skiff/runtime/cgroup"
)

// nodeUsage is what the whole machine uses.
type nodeUsage struct {
	at        time.Time
	cpu       uint64 // nanoseconds
	nanoCores uint64
	window    time.Duration // 0: no rate is known
	// In bytes, from /proc/meminfo.
	memory, used, workingSet, rss, cache, mapped, swap, swapUsed uint64
}

// nodeCPU is how long all processors together have computed, in nanoseconds: what
// the cgroup at the top counts, or where there is none to see, /proc/stat.
func (c *Collector) nodeCPU() (uint64, error) {
	if used, err := c.Cgroups.CPUTime("/"); err == nil {
		return used, nil
	}
	return procCPU("/proc/stat")
}

// procCPU reads the time all processors were busy from /proc/stat.
func procCPU(path string) (uint64, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return 0, err
	}
	line, _, _ := strings.Cut(string(data), "\n")
	var busy uint64
	for i, field := range strings.Fields(line) {
		// user, nice, system, then irq, softirq, steal; idle and iowait are 4 and 5.
		if i == 0 || i == 4 || i == 5 || i > 8 {
			continue
		}
		if n, err := strconv.ParseUint(field, 10, 64); err == nil {
			busy += n
		}
	}
	const nanosecondsPerTick = 1e9 / 100
	return busy * nanosecondsPerTick, nil
}

func (c *Collector) nodeUsage() nodeUsage {
	n := nodeUsage{at: time.Now()}
	if used, err := c.nodeCPU(); err == nil {
		n.cpu = used
		n.nanoCores, n.window = c.node.Since(n.at, used, time.Time{})
	}
	m := meminfo("/proc/meminfo")
	n.memory, n.used = m["MemTotal"], m["MemTotal"]-m["MemFree"]
	// What can be dropped at once is not counted, as with a container.
	n.workingSet = n.used - min(n.used, m["Inactive(file)"])
	n.rss, n.cache, n.mapped = m["AnonPages"], m["Cached"]+m["Buffers"], m["Mapped"]
	n.swap, n.swapUsed = m["SwapTotal"], m["SwapTotal"]-m["SwapFree"]
	return n
}

// meminfo reads a file such as /proc/meminfo, in bytes.
func meminfo(path string) map[string]uint64 {
	values := map[string]uint64{}
	f, err := os.Open(path)
	if err != nil {
		return values
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		name, rest, _ := strings.Cut(lines.Text(), ":")
		if fields := strings.Fields(rest); len(fields) > 0 {
			if n, err := strconv.ParseUint(fields[0], 10, 64); err == nil {
				values[name] = n << 10
			}
		}
	}
	return values
}

// bootTime is when the machine was started.
func bootTime() metav1.Time {
	data, err := os.ReadFile("/proc/stat")
	if err != nil {
		return metav1.Time{}
	}
	for line := range strings.Lines(string(data)) {
		if text, ok := strings.CutPrefix(line, "btime "); ok {
			if seconds, err := strconv.ParseInt(strings.TrimSpace(text), 10, 64); err == nil {
				return metav1.NewTime(time.Unix(seconds, 0))
			}
		}
	}
	return metav1.Time{}
}

// processIDs are how many there can be and how many there are.
func processIDs(now metav1.Time) *stats.RlimitStats {
	limit := int64(0)
	for _, file := range []string{"pid_max", "threads-max"} {
		if n, err := strconv.ParseInt(firstLine(filepath.Join("/proc/sys/kernel", file)), 10, 64); err == nil && (limit == 0 || n < limit) {
			limit = n
		}
	}
	r := &stats.RlimitStats{Time: now, MaxPID: &limit}
	// "0.20 0.18 0.12 1/80 11206": the fourth field's second number counts all threads.
	if fields := strings.Fields(firstLine("/proc/loadavg")); len(fields) > 3 {
		_, all, _ := strings.Cut(fields[3], "/")
		if n, err := strconv.ParseInt(all, 10, 64); err == nil {
			r.NumOfRunningProcesses = &n
		}
	}
	return r
}

func firstLine(path string) string {
	data, err := os.ReadFile(path)
	if err != nil {
		return ""
	}
	line, _, _ := strings.Cut(string(data), "\n")
	return strings.TrimSpace(line)
}

// link is what a network interface of the node has moved.
type link struct {
	name                                    string
	rxBytes, rxPackets, rxErrors, rxDropped uint64
	txBytes, txPackets, txErrors, txDropped uint64
}

// links of the node that lead somewhere: not loopback and not to pods.
func links(path string) []link {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil
	}
	var list []link
	for line := range strings.Lines(string(data)) {
		name, rest, ok := strings.Cut(line, ":")
		name = strings.TrimSpace(name)
		f := strings.Fields(rest)
		if !ok || len(f) < 16 || name == "lo" || toPod(name) {
			continue
		}
		n := func(i int) uint64 { v, _ := strconv.ParseUint(f[i], 10, 64); return v }
		list = append(list, link{name, n(0), n(1), n(2), n(3), n(8), n(9), n(10), n(11)})
	}
	return list
}

// toPod recognizes the node's ends of the links to pods: those of the built-in
// pod network, and those that most others make.
func toPod(name string) bool {
	return strings.HasPrefix(name, "veth") || (strings.HasPrefix(name, "sk") && len(name) == len("sk")+11)
}

// defaultLink is the interface of the default route, eth0 where there is none.
func defaultLink(path string) string {
	data, err := os.ReadFile(path)
	if err != nil {
		return "eth0"
	}
	for line := range strings.Lines(string(data)) {
		if f := strings.Fields(line); len(f) > 7 && f[1] == "00000000" && f[7] == "00000000" {
			return f[0]
		}
	}
	return "eth0"
}

// disk is the state of a file system.
type disk struct {
	size, available, free, inodes, inodesFree uint64
	// device it is on, such as /dev/vda1.
	device string
}

func statfs(dir string) (disk, error) {
	var fs unix.Statfs_t
	if err := unix.Statfs(dir, &fs); err != nil {
		return disk{}, err
	}
	block := uint64(fs.Bsize)
	return disk{fs.Blocks * block, fs.Bavail * block, fs.Bfree * block, fs.Files, fs.Ffree, deviceOf(dir)}, nil
}

// deviceOf is the block device a folder is on; empty when it is on none.
func deviceOf(dir string) string {
	var s unix.Stat_t
	if err := unix.Stat(dir, &s); err != nil {
		return ""
	}
	return deviceName(uint64(unix.Major(s.Dev)), uint64(unix.Minor(s.Dev)))
}

// stats are the figures of the whole file system.
func (d disk) stats(now metav1.Time) *stats.FsStats {
	used, inodesUsed := d.size-d.free, d.inodes-d.inodesFree
	return &stats.FsStats{
		Time: now, AvailableBytes: &d.available, CapacityBytes: &d.size, UsedBytes: &used, Inodes: &d.inodes, InodesFree: &d.inodesFree, InodesUsed: &inodesUsed,
	}
}

// part are the figures of something that takes a part of the file system.
func (d disk) part(now metav1.Time, bytes, inodes uint64) *stats.FsStats {
	s := d.stats(now)
	s.UsedBytes, s.InodesUsed = &bytes, &inodes
	return s
}

// selfCPU is how long this process has computed, in nanoseconds.
func selfCPU() uint64 {
	var usage unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &usage); err != nil {
		return 0
	}
	return uint64(usage.Utime.Nano() + usage.Stime.Nano())
}

// selfMemory is what this process has in memory, and the part of it that is no file's.
func selfMemory() (resident, anonymous uint64) {
	m := meminfo("/proc/self/status")
	return m["VmRSS"], m["RssAnon"]
}

func pressure(p *cgroup.Pressure) *stats.PSIStats {
	if p == nil {
		return nil
	}
	data := func(s cgroup.Stall) stats.PSIData {
		// The kernel counts microseconds, the API nanoseconds.
		return stats.PSIData{Total: s.Total * 1000, Avg10: s.Avg10, Avg60: s.Avg60, Avg300: s.Avg300}
	}
	return &stats.PSIStats{Some: data(p.Some), Full: data(p.Full)}
}
