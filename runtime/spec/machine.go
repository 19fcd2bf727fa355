package spec

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/containerd/containerd/v2/pkg/apparmor"
	"github.com/containerd/containerd/v2/pkg/cap"
	"golang.org/x/sys/unix"
)

const cgroupMount = "/sys/fs/cgroup"

// Inspect finds out what the machine can do.
func Inspect(unified bool, seccompRoot string) (Machine, error) {
	m := Machine{Unified: unified, SeccompRoot: seccompRoot}
	var err error
	if m.Capabilities, err = cap.Current(); err != nil {
		return Machine{}, err
	}
	if !slices.Contains(m.Capabilities, "CAP_SYS_RESOURCE") {
		// Without it no process may have a lower score than its parent.
		own, _ := os.ReadFile("/proc/self/oom_score_adj")
		score, _ := strconv.Atoi(strings.TrimSpace(string(own)))
		m.OOMScoreFloor = pointer(min(score, 0))
	}
	m.AppArmor = AppArmor()
	m.RecursiveReadOnly = RecursiveReadOnly()
	if unified {
		m.Swap = anyExists(cgroupMount + "/*/memory.swap.max")
		controllers, _ := os.ReadFile(filepath.Join(cgroupMount, "cgroup.controllers"))
		m.Hugetlb = slices.Contains(strings.Fields(string(controllers)), "hugetlb")
	} else {
		m.Swap = anyExists(cgroupMount + "/memory/memory.memsw.limit_in_bytes")
		m.Hugetlb = anyExists(cgroupMount + "/hugetlb/cgroup.procs")
	}
	return m, nil
}

// AppArmor reports whether the kernel enforces profiles, and the program is there
// that loads them.
func AppArmor() bool { return apparmor.HostSupports() }

// AppArmorIdle reports whether the kernel would enforce profiles, but that
// program is missing: containers run without one then, as with containerd's own
// service for Kubernetes.
func AppArmorIdle() bool {
	enabled, _ := os.ReadFile("/sys/module/apparmor/parameters/enabled")
	return strings.HasPrefix(string(enabled), "Y") && !AppArmor()
}

// SELinux reports whether the kernel labels processes.
func SELinux() bool { return anyExists("/sys/fs/selinux/enforce") }

// RecursiveReadOnly reports whether the kernel, from 5.12 on, can make the mounts
// below a mount read-only with it.
func RecursiveReadOnly() bool {
	err := unix.MountSetattr(-1, "", unix.AT_EMPTY_PATH, &unix.MountAttr{})
	return !errors.Is(err, unix.ENOSYS)
}

func anyExists(pattern string) bool {
	found, err := filepath.Glob(pattern)
	return err == nil && len(found) > 0
}
