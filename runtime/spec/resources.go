package spec

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"

	"github.com/containerd/containerd/v2/core/containers"
	"github.com/containerd/containerd/v2/pkg/cdi"
	"github.com/containerd/containerd/v2/pkg/oci"
	"github.com/opencontainers/runtime-spec/specs-go"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// Resources translates limits for the spec, or for a change while the container runs.
func Resources(r *runtimeapi.LinuxContainerResources, m Machine) *specs.LinuxResources {
	out := &specs.LinuxResources{}
	if r == nil {
		return out
	}
	out.CPU = &specs.LinuxCPU{Cpus: r.GetCpusetCpus(), Mems: r.GetCpusetMems()}
	if v := r.GetCpuShares(); v > 0 {
		out.CPU.Shares = pointer(uint64(v))
	}
	if v := r.GetCpuQuota(); v != 0 {
		out.CPU.Quota = pointer(v)
	}
	if v := r.GetCpuPeriod(); v > 0 {
		out.CPU.Period = pointer(uint64(v))
	}
	if limit := r.GetMemoryLimitInBytes(); limit != 0 {
		out.Memory = &specs.LinuxMemory{Limit: pointer(limit)}
		if m.Swap {
			// Memory and swap together: the same figure means no swap.
			swap := limit
			if v := r.GetMemorySwapLimitInBytes(); v != 0 {
				swap = v
			}
			out.Memory.Swap = pointer(swap)
		}
	}
	if m.Hugetlb {
		for _, l := range r.GetHugepageLimits() {
			out.HugepageLimits = append(out.HugepageLimits, specs.LinuxHugepageLimit{Pagesize: l.GetPageSize(), Limit: l.GetLimit()})
		}
	}
	for file, value := range r.GetUnified() {
		if !m.Unified || (!m.Swap && strings.HasPrefix(file, "memory.swap.")) {
			continue // the kernel has no such file
		}
		if out.Unified == nil {
			out.Unified = map[string]string{}
		}
		out.Unified[file] = value
	}
	return out
}

// withCDIDevices adds devices by the names that files of the Container Device Interface on this machine give them.
func withCDIDevices(devices []*runtimeapi.CDIDevice) oci.SpecOpts {
	var names []string
	for _, d := range devices {
		names = append(names, d.GetName())
	}
	return cdi.WithCDIDevices(names...)
}

func pointer[T any](v T) *T { return &v }

func withResources(r *runtimeapi.LinuxContainerResources, m Machine) oci.SpecOpts {
	return func(_ context.Context, _ oci.Client, _ *containers.Container, s *specs.Spec) error {
		resources := Resources(r, m)
		resources.Devices = s.Linux.Resources.Devices
		s.Linux.Resources = resources
		return nil
	}
}

// withDevices gives the configured device nodes, or all of the host's to a privileged container.
func withDevices(devices []*runtimeapi.Device, privileged bool) oci.SpecOpts {
	return func(ctx context.Context, c oci.Client, r *containers.Container, s *specs.Spec) error {
		if privileged {
			if err := oci.WithHostDevices(ctx, c, r, s); err != nil {
				return fmt.Errorf("devices of the host: %w", err)
			}
			if err := oci.WithAllDevicesAllowed(ctx, c, r, s); err != nil {
				return err
			}
		}
		for _, d := range devices {
			path, err := filepath.EvalSymlinks(d.GetHostPath())
			if err != nil {
				return fmt.Errorf("device: %w", err)
			}
			if err := oci.WithDevices(path, d.GetContainerPath(), d.GetPermissions())(ctx, c, r, s); err != nil {
				return fmt.Errorf("device %s: %w", d.GetHostPath(), err)
			}
		}
		return nil
	}
}
