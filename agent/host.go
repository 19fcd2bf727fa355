package agent

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/skiff-run/skiff/agent/node"
	"github.com/skiff-run/skiff/agent/resources"
	"github.com/skiff-run/skiff/agent/usage"
	"github.com/skiff-run/skiff/internal/config"
	"github.com/skiff-run/skiff/runtime"
	"github.com/skiff-run/skiff/runtime/cgroup"
	"github.com/skiff-run/skiff/runtime/network"
)

// RuntimeOptions translates the agent's settings into the runtime's.
func RuntimeOptions(s *config.Agent, logger *slog.Logger) (runtime.Options, error) {
	o := runtime.Options{
		ContainerdAddress: s.ContainerdAddress, Namespace: s.ContainerdNamespace, Snapshotter: s.Snapshotter, RegistryConfigDir: s.RegistryConfigDir,
		StateDir: s.StateDir, RunDir: s.RunDir, CgroupRoot: s.CgroupRoot, CgroupDriver: s.CgroupDriver, Logger: logger,
		SeccompProfileRoot: s.RootDir + "/seccomp", LogMaxBytes: s.LogMaxBytes(), LogMaxFiles: s.ContainerLogMaxFiles, Handlers: map[string]runtime.Handler{},
		Network: network.Options{Bridge: s.Bridge, Logger: logger},
	}
	for name, h := range s.RuntimeHandlers {
		o.Handlers[name] = runtime.Handler{Type: h.Type, Binary: h.Binary}
	}
	if s.ClusterCIDR != "" {
		prefix, err := netip.ParsePrefix(s.ClusterCIDR)
		if err != nil {
			return o, fmt.Errorf("clusterCIDR: %w", err)
		}
		o.Network.ClusterCIDRs = []netip.Prefix{prefix}
	}
	return o, nil
}

// Machine is the Host of a real machine.
type Machine struct {
	Runtime *runtime.Runtime
	// PodPidsLimit bounds the processes of each pod; -1 for no limit, 0 leaves it alone.
	PodPidsLimit int64
}

// CgroupParent names a pod's cgroup for the runtime.
func (m Machine) CgroupParent(uid types.UID, class v1.PodQOSClass) string {
	return m.Runtime.Cgroups().PodParent(string(uid), class)
}

// CgroupDriver is cgroupfs or systemd.
func (m Machine) CgroupDriver() string { return m.Runtime.Cgroups().Driver() }

// SetupCgroups makes the tree of all pods' cgroups.
func (m Machine) SetupCgroups(ctx context.Context) error {
	return m.Runtime.Cgroups().SetupRoot(ctx, cgroup.Resources{})
}

// SetPod makes the pod's cgroup or changes its limits.
func (m Machine) SetPod(ctx context.Context, pod *v1.Pod, r *runtimeapi.LinuxContainerResources) error {
	limits := cgroup.Resources{CPUShares: uint64(r.GetCpuShares()), CPUQuota: -1, CPUPeriod: uint64(r.GetCpuPeriod()), MemoryLimit: -1, PidsLimit: m.PodPidsLimit}
	if r.GetCpuQuota() > 0 {
		limits.CPUQuota = r.GetCpuQuota()
	}
	if r.GetMemoryLimitInBytes() > 0 {
		limits.MemoryLimit = r.GetMemoryLimitInBytes()
	}
	for _, l := range r.GetHugepageLimits() {
		if limits.HugepageLimit == nil {
			limits.HugepageLimit = map[string]uint64{}
		}
		limits.HugepageLimit[l.GetPageSize()] = l.GetLimit()
	}
	return m.Runtime.Cgroups().SetPod(ctx, string(pod.UID), resources.QOSClass(pod), limits)
}

// LimitPods holds all pods together to the amounts.
func (m Machine) LimitPods(ctx context.Context, amounts v1.ResourceList) error {
	return m.Runtime.Cgroups().LimitRoot(ctx, limitsOf(amounts))
}

// LimitCgroup holds a cgroup that somebody else has made to the amounts.
func (m Machine) LimitCgroup(ctx context.Context, name string, amounts v1.ResourceList) error {
	return m.Runtime.Cgroups().LimitExisting(ctx, name, limitsOf(amounts))
}

func limitsOf(amounts v1.ResourceList) cgroup.Resources {
	var r cgroup.Resources
	if q, ok := amounts[v1.ResourceCPU]; ok {
		r.CPUShares = resources.Shares(q.MilliValue())
	}
	if q, ok := amounts[v1.ResourceMemory]; ok {
		r.MemoryLimit = q.Value()
	}
	if q, ok := amounts[resources.PIDs]; ok {
		r.PidsLimit = q.Value()
	}
	return r
}

// SetBurstableShares weighs the burstable pods together against the guaranteed ones.
func (m Machine) SetBurstableShares(ctx context.Context, shares uint64) error {
	return m.Runtime.Cgroups().SetQOS(ctx, v1.PodQOSBurstable, cgroup.Resources{CPUShares: shares})
}

// PodsMemory is what all pods together use, and how much they may, 0 for no limit, in bytes.
func (m Machine) PodsMemory() (workingSet, limit uint64, err error) {
	s, err := m.Runtime.Cgroups().RootStats()
	return s.WorkingSet, s.MemoryLimit, err
}

// Unified: the machine has cgroup v2.
func (m Machine) Unified() bool { return m.Runtime.Cgroups().Unified() }

// MemoryUsage of one of the pod's containers, or of the whole pod when containerID is empty, in bytes.
func (m Machine) MemoryUsage(pod *v1.Pod, containerID string) (uint64, error) {
	groups := m.Runtime.Cgroups()
	if containerID == "" {
		used, err := groups.PodStats(string(pod.UID))
		return used.MemoryUsage, err
	}
	used, err := groups.ContainerStats(groups.ContainerPath(groups.PodParent(string(pod.UID), resources.QOSClass(pod)), containerID))
	return used.MemoryUsage, err
}

// RemovePod removes the pod's cgroup and what still runs in it.
func (m Machine) RemovePod(ctx context.Context, uid types.UID) error {
	return m.Runtime.Cgroups().RemovePod(ctx, string(uid))
}

// Pods lists the pods that have a cgroup.
func (m Machine) Pods() ([]types.UID, error) {
	names, err := m.Runtime.Cgroups().Pods()
	uids := make([]types.UID, 0, len(names))
	for _, name := range names {
		uids = append(uids, types.UID(name))
	}
	return uids, err
}

// Usage tells what groups of pods and the machine use.
func (m Machine) Usage() usage.Cgroups { return m.Runtime.Cgroups() }

// SetPodCIDRs sets the ranges this node's pods get addresses from.
func (m Machine) SetPodCIDRs(ctx context.Context, ranges []netip.Prefix) error {
	return m.Runtime.SetPodCIDRs(ctx, ranges)
}

// SetPeers sets the routes to the other nodes' pods.
func (m Machine) SetPeers(ctx context.Context, peers []node.Peer) error {
	list := make([]network.Peer, 0, len(peers))
	for _, p := range peers {
		if p.Address.IsValid() && len(p.PodCIDRs) > 0 {
			list = append(list, network.Peer{Name: p.Name, Address: p.Address, PodCIDRs: p.PodCIDRs})
		}
	}
	return m.Runtime.SetPeers(ctx, list)
}
