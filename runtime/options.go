package runtime

import (
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"

	"github.com/skiff-run/skiff/runtime/network"
)

// Options configures a Runtime.
type Options struct {
	// ContainerdAddress is containerd's socket.
	ContainerdAddress string
	// Namespace is the containerd namespace of the pods, "k8s.io" when empty.
	Namespace string
	// Snapshotter names the containerd snapshotter, "overlayfs" when empty.
	Snapshotter string
	// RegistryConfigDir is the folder of hosts.toml files, "/etc/containerd/certs.d" when empty.
	RegistryConfigDir string
	// StateDir holds what must survive a reboot: sandbox records, address leases.
	StateDir string
	// RunDir holds what must not: pinned namespaces, pipes, shared memory mounts.
	RunDir string
	// CgroupRoot is the cgroup below which kubepods is made, "/" when empty.
	CgroupRoot string
	// CgroupDriver is auto, cgroupfs or systemd; "auto" when empty.
	CgroupDriver string
	// LogMaxBytes is the size at which a container's log file is rotated, 10 MiB when zero.
	LogMaxBytes int64
	// LogMaxFiles is how many log files of a container are kept, 5 when zero.
	LogMaxFiles int
	// SeccompProfileRoot is where relative Localhost seccomp profiles are found.
	SeccompProfileRoot string
	// Handlers are the runtime handlers besides the default one, by RuntimeClass handler name.
	Handlers map[string]Handler
	// Network configures the built-in pod network.
	Network network.Options
	// Logger receives the decisions; slog.Default when nil.
	Logger *slog.Logger
}

// Handler says which containerd runtime and which OCI program serve a runtime handler.
type Handler struct {
	// Type is the containerd runtime, "io.containerd.runc.v2" when empty.
	Type string
	// Binary is the OCI program, found in the PATH of containerd; the shim's default when empty.
	Binary string
}

func (o *Options) complete() error {
	if o.ContainerdAddress == "" {
		return errors.New("runtime: containerd address is not set")
	}
	for name, dir := range map[string]string{"state folder": o.StateDir, "run folder": o.RunDir} {
		if !filepath.IsAbs(dir) {
			return fmt.Errorf("runtime: %s %q must be an absolute path", name, dir)
		}
	}
	set := func(field *string, value string) {
		if *field == "" {
			*field = value
		}
	}
	set(&o.Namespace, "k8s.io")
	set(&o.Snapshotter, "overlayfs")
	set(&o.RegistryConfigDir, "/etc/containerd/certs.d")
	set(&o.CgroupRoot, "/")
	set(&o.CgroupDriver, "auto")
	set(&o.SeccompProfileRoot, "/var/lib/kubelet/seccomp")
	if o.LogMaxBytes == 0 {
		o.LogMaxBytes = 10 << 20
	}
	if o.LogMaxFiles == 0 {
		o.LogMaxFiles = 5
	}
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
	set(&o.Network.StateDir, filepath.Join(o.StateDir, "network"))
	if o.Network.Logger == nil {
		o.Network.Logger = o.Logger
	}
	return nil
}
