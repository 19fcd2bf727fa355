package node

import (
	"bufio"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
)

// Facts are what the machine is. While it runs only the amounts change, by Offer.
type Facts struct {
	Info v1.NodeSystemInfo

	mu sync.RWMutex // guards Capacity and Offered once others have the facts
	// Capacity is what the machine has, Offered what of it pods may use.
	Capacity, Offered v1.ResourceList

	// Memory and Swap in bytes.
	Memory, Swap int64
}

// ReadFacts asks the kernel and the files of the machine.
func ReadFacts(rootDir string, maxPods int, version string) (*Facts, error) {
	memory, err := totalMemory()
	if err != nil {
		return nil, err
	}
	var disk unix.Statfs_t
	if err := unix.Statfs(rootDir, &disk); err != nil {
		return nil, fmt.Errorf("size of the file system of %s: %w", rootDir, err)
	}
	f := &Facts{Memory: memory, Capacity: v1.ResourceList{
		v1.ResourceCPU:              *resource.NewQuantity(int64(runtime.NumCPU()), resource.DecimalSI),
		v1.ResourceMemory:           *resource.NewQuantity(memory, resource.BinarySI),
		v1.ResourceEphemeralStorage: *resource.NewQuantity(int64(disk.Blocks)*disk.Bsize, resource.BinarySI),
		v1.ResourcePods:             *resource.NewQuantity(int64(maxPods), resource.DecimalSI),
	}}
	if kib, err := meminfo("SwapTotal:"); err == nil {
		f.Swap = kib << 10
	}
	hugePages(f.Capacity)
	var uts unix.Utsname
	if err := unix.Uname(&uts); err != nil {
		return nil, fmt.Errorf("uname: %w", err)
	}
	f.Info = v1.NodeSystemInfo{
		MachineID: firstLine("/etc/machine-id"), SystemUUID: strings.ToLower(firstLine("/sys/class/dmi/id/product_uuid")),
		BootID: firstLine("/proc/sys/kernel/random/boot_id"), KernelVersion: unix.ByteSliceToString(uts.Release[:]),
		OSImage: osImage(), KubeletVersion: version, OperatingSystem: runtime.GOOS, Architecture: runtime.GOARCH,
	}
	if swap, err := meminfo("SwapTotal:"); err == nil && swap > 0 {
		bytes := swap << 10
		f.Info.Swap = &v1.NodeSwapStatus{Capacity: &bytes}
	}
	if f.Info.SystemUUID == "" {
		f.Info.SystemUUID = f.Info.MachineID
	}
	return f, nil
}

// Allocatable is what pods may use of the machine.
func (f *Facts) Allocatable() v1.ResourceList {
	_, allocatable := f.Amounts()
	return allocatable
}

// Amounts are what the machine has and what of it pods may use.
func (f *Facts) Amounts() (capacity, allocatable v1.ResourceList) {
	f.mu.RLock()
	defer f.mu.RUnlock()
	return f.Capacity.DeepCopy(), f.Offered.DeepCopy()
}

// Offer changes how many pods the machine has place for, and what they may use.
func (f *Facts) Offer(maxPods int, allocatable func(capacity v1.ResourceList) v1.ResourceList) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.Capacity = f.Capacity.DeepCopy()
	f.Capacity[v1.ResourcePods] = *resource.NewQuantity(int64(maxPods), resource.DecimalSI)
	f.Offered = allocatable(f.Capacity)
}

func totalMemory() (int64, error) {
	kib, err := meminfo("MemTotal:")
	if err != nil {
		return 0, err
	}
	return kib << 10, nil
}

// meminfo returns one line of /proc/meminfo, in KiB.
func meminfo(name string) (int64, error) {
	f, err := os.Open("/proc/meminfo")
	if err != nil {
		return 0, fmt.Errorf("read the size of the memory: %w", err)
	}
	defer f.Close()
	scanner := bufio.NewScanner(f)
	for scanner.Scan() {
		fields := strings.Fields(scanner.Text())
		if len(fields) >= 2 && fields[0] == name {
			return strconv.ParseInt(fields[1], 10, 64)
		}
	}
	return 0, fmt.Errorf("/proc/meminfo has no line %s", name)
}

func hugePages(capacity v1.ResourceList) {
	dirs, err := filepath.Glob("/sys/kernel/mm/hugepages/hugepages-*kB")
	if err != nil {
		return
	}
	for _, dir := range dirs {
		kib, err := strconv.ParseInt(strings.TrimSuffix(strings.TrimPrefix(filepath.Base(dir), "hugepages-"), "kB"), 10, 64)
		if err != nil {
			continue
		}
		count, err := strconv.ParseInt(firstLine(filepath.Join(dir, "nr_hugepages")), 10, 64)
		if err != nil {
			continue
		}
		size := resource.NewQuantity(kib<<10, resource.BinarySI)
		capacity[v1.ResourceName(v1.ResourceHugePagesPrefix+size.String())] = *resource.NewQuantity(count*kib<<10, resource.BinarySI)
	}
}

func osImage() string {
	f, err := os.Open("/etc/os-release")
	if err != nil {
		return "Unknown"
	}
	defer f.Close()
	scanner := bufio.NewScanner(f)
	for scanner.Scan() {
		if value, ok := strings.CutPrefix(scanner.Text(), "PRETTY_NAME="); ok {
			return strings.Trim(value, `"`)
		}
	}
	return "Unknown"
}

func firstLine(path string) string {
	data, err := os.ReadFile(path)
	if err != nil {
		return ""
	}
	line, _, _ := strings.Cut(string(data), "\n")
	return strings.TrimSpace(line)
}

// RouteAddress is the address of this machine on the way to a server: the
// right one on machines with several network cards.
func RouteAddress(server string) (net.IP, error) {
	// Connecting a UDP socket sends nothing; the kernel picks the source address.
	conn, err := net.Dial("udp", server)
	if err != nil {
		return nil, fmt.Errorf("find the address of this node on the way to %s: %w", server, err)
	}
	defer conn.Close()
	ip := conn.LocalAddr().(*net.UDPAddr).IP
	if ip.IsLoopback() {
		return firstGlobal()
	}
	return ip, nil
}

// firstGlobal is the node's address when the server runs on the same machine.
func firstGlobal() (net.IP, error) {
	if conn, err := net.Dial("udp", "192.0.2.1:9"); err == nil {
		defer conn.Close()
		if ip := conn.LocalAddr().(*net.UDPAddr).IP; !ip.IsLoopback() {
			return ip, nil
		}
	}
	addresses, err := net.InterfaceAddrs()
	if err != nil {
		return nil, fmt.Errorf("list this node's addresses: %w", err)
	}
	for _, a := range addresses {
		if ipNet, ok := a.(*net.IPNet); ok && ipNet.IP.IsGlobalUnicast() && ipNet.IP.To4() != nil {
			return ipNet.IP, nil
		}
	}
	return nil, fmt.Errorf("this node has no address but loopback: set nodeIP")
}
