package eviction

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
	"k8s.io/apimachinery/pkg/api/resource"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// ImageFs tells where images are.
type ImageFs interface {
	ImageFsInfo(ctx context.Context) (*runtimeapi.ImageFsInfoResponse, error)
}

// PodsMemory tells of the cgroup of all pods: what they use, in bytes, and how much they may, 0 for no limit.
type PodsMemory func() (workingSet, limit uint64, err error)

// Machine reads the signals of this machine.
type Machine struct {
	// RootDir is on the node's file system.
	RootDir string
	Images  ImageFs
	Pods    PodsMemory

	imageDir string
}

// Observe reads everything; what cannot be read is left out and named in the error.
func (m *Machine) Observe(ctx context.Context) (Observations, error) {
	found := Observations{}
	var failed error
	note := func(what string, err error) {
		if err != nil && failed == nil {
			failed = fmt.Errorf("%s: %w", what, err)
		}
	}
	note("memory", memory(found))
	if used, limit, err := m.Pods(); err != nil {
		note("memory of the pods", err)
	} else if limit > 0 {
		found[allocatableMemory] = Observation{int64(limit) - int64(used), int64(limit), resource.BinarySI}
	}
	note("file system of the pods", fileSystem(found, m.RootDir, nodefsAvailable, nodefsInodes))
	if dir, err := m.imageDirectory(ctx); err != nil {
		note("file system of the images", err)
	} else {
		note("file system of the images", fileSystem(found, dir, imagefsAvailable, imagefsInodes))
	}
	note("process ids", processIDs(found))
	return found, failed
}

// imageDirectory is asked for once: it does not move while the agent runs.
func (m *Machine) imageDirectory(ctx context.Context) (string, error) {
	if m.imageDir != "" {
		return m.imageDir, nil
	}
	info, err := m.Images.ImageFsInfo(ctx)
	if err != nil {
		return "", err
	}
	if len(info.GetImageFilesystems()) == 0 {
		return "", fmt.Errorf("the runtime names none")
	}
	m.imageDir = info.GetImageFilesystems()[0].GetFsId().GetMountpoint()
	return m.imageDir, nil
}

// DedicatedImageFs reports whether images are on another file system than volumes.
func (m *Machine) DedicatedImageFs(ctx context.Context) (bool, error) {
	dir, err := m.imageDirectory(ctx)
	if err != nil {
		return false, fmt.Errorf("find the file system of the images: %w", err)
	}
	var a, b unix.Stat_t
	if err := unix.Stat(m.RootDir, &a); err != nil {
		return false, fmt.Errorf("find the file system of the pods: %w", err)
	}
	if err := unix.Stat(dir, &b); err != nil {
		return false, fmt.Errorf("find the file system of the images: %w", err)
	}
	return a.Dev != b.Dev, nil
}

func fileSystem(found Observations, dir, bytes, inodes string) error {
	var fs unix.Statfs_t
	if err := unix.Statfs(dir, &fs); err != nil {
		return err
	}
	found[bytes] = Observation{int64(fs.Bavail) * fs.Bsize, int64(fs.Blocks) * fs.Bsize, resource.BinarySI}
	if fs.Files > 0 { // some file systems make inodes as they need them
		found[inodes] = Observation{int64(fs.Ffree), int64(fs.Files), resource.DecimalSI}
	}
	return nil
}

// memory that is not in use: inactive file pages can be dropped at once and count as free.
func memory(found Observations) error {
	f, err := os.Open("/proc/meminfo")
	if err != nil {
		return err
	}
	defer f.Close()
	values := map[string]int64{}
	for lines := bufio.NewScanner(f); lines.Scan(); {
		if fields := strings.Fields(lines.Text()); len(fields) >= 2 {
			if kib, err := strconv.ParseInt(fields[1], 10, 64); err == nil {
				values[fields[0]] = kib << 10
			}
		}
	}
	total := values["MemTotal:"]
	if total == 0 {
		return fmt.Errorf("/proc/meminfo has no line MemTotal")
	}
	found[memoryAvailable] = Observation{values["MemFree:"] + values["Inactive(file):"], total, resource.BinarySI}
	return nil
}

func processIDs(found Observations) error {
	most := int64(0)
	for _, file := range []string{"pid_max", "threads-max"} {
		data, err := os.ReadFile("/proc/sys/kernel/" + file)
		if err != nil {
			return err
		}
		n, err := strconv.ParseInt(strings.TrimSpace(string(data)), 10, 64)
		if err != nil {
			return err
		}
		if most == 0 || n < most {
			most = n
		}
	}
	// "0.20 0.18 0.12 1/80 11206": 80 threads.
	data, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return err
	}
	fields := strings.Fields(string(data))
	if len(fields) < 4 {
		return fmt.Errorf("/proc/loadavg says %q", data)
	}
	_, all, _ := strings.Cut(fields[3], "/")
	threads, err := strconv.ParseInt(all, 10, 64)
	if err != nil {
		return err
	}
	found[pidAvailable] = Observation{most - threads, most, resource.DecimalSI}
	return nil
}
