// Package cgroup keeps the tree of cgroups in which the pods of a machine run.
package cgroup

import (
	"context"

	corev1 "k8s.io/api/core/v1"
)

// Resources are the limits of one cgroup; a zero field is left alone.
type Resources struct {
	CPUShares     uint64            // relative weight in the units of cgroup v1 (2 to 262144)
	CPUQuota      int64             // microseconds per period, -1 for none
	CPUPeriod     uint64            // microseconds
	MemoryLimit   int64             // bytes, -1 for none
	PidsLimit     int64             // -1 for none
	HugepageLimit map[string]uint64 // bytes by page size such as "2MB"
	Unified       map[string]string // cgroup v2 files
}

// Stats is what a cgroup has used.
type Stats struct {
	CPUNanoseconds  uint64
	MemoryUsage     uint64
	MemoryLimit     uint64 // 0 for none
	WorkingSet      uint64 // usage without inactive file pages
	RSS             uint64
	PageFaults      uint64
	MajorPageFaults uint64
	SwapUsage       uint64
	Processes       uint64
}

// Manager makes, changes and removes cgroups.
type Manager struct{}

// Driver is "cgroupfs" or "systemd".
func (m *Manager) Driver() string { return "" }

// PodParent is the cgroup of a pod in cgroupfs syntax, as PodSandboxConfig.Linux.CgroupParent wants it.
func (m *Manager) PodParent(uid string, qos corev1.PodQOSClass) string { return "" }

// SetupRoot makes kubepods, burstable and besteffort; root limits kubepods as a whole.
func (m *Manager) SetupRoot(ctx context.Context, root Resources) error { return nil }

// SetQOS changes the limits of the burstable or besteffort tier.
func (m *Manager) SetQOS(ctx context.Context, qos corev1.PodQOSClass, r Resources) error { return nil }

// SetPod makes the cgroup of a pod or changes its limits.
func (m *Manager) SetPod(ctx context.Context, uid string, qos corev1.PodQOSClass, r Resources) error {
	return nil
}

// RemovePod kills what is left in a pod's cgroup and removes it in every tier. No error if there is none.
func (m *Manager) RemovePod(ctx context.Context, uid string) error { return nil }

// Pods lists the UIDs of the pods that have a cgroup.
func (m *Manager) Pods() ([]string, error) { return nil, nil }

// PodStats reads what a pod has used.
func (m *Manager) PodStats(uid string) (Stats, error) { return Stats{}, nil }

// RootStats reads what all pods together have used.
func (m *Manager) RootStats() (Stats, error) { return Stats{}, nil }
