package up

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"time"
)

// containerdConfig is for a containerd of our own: without its CRI plugins,
// which cost memory and which nobody here talks to. Version 2 of the format is
// understood by containerd 1.6, 1.7 and 2.x alike.
const containerdConfig = `version = 2
root = %q
state = %q
disabled_plugins = ["io.containerd.grpc.v1.cri", "io.containerd.cri.v1.images", "io.containerd.cri.v1.runtime", "io.containerd.internal.v1.opt"]

[grpc]
  address = %q

[debug]
  level = "warn"
`

// containerd describes the containerd we start when none answers, or returns
// false when there is one to use.
func (o *Options) containerd() (program, bool, error) {
	socket := o.ContainerdSocket()
	if o.ContainerdAddress != "" {
		if !answers(o.ContainerdAddress) {
			return program{}, false, fmt.Errorf("containerd does not answer at %s: start it, or leave --containerd-address away to have one started", o.ContainerdAddress)
		}
		return program{}, false, nil
	}
	if answers(socket) {
		return program{}, false, nil
	}
	path := filepath.Join(o.Run(), "up", "containerd.toml")
	data := fmt.Sprintf(containerdConfig, o.path("var/lib/containerd"), o.path("run/containerd"), socket)
	if err := os.WriteFile(path, []byte(data), 0o600); err != nil {
		return program{}, false, fmt.Errorf("write configuration of containerd: %w", err)
	}
	return program{
		name: "containerd", args: []string{o.ContainerdBinary, "--config", path},
		log: o.Log("containerd"), pidFile: o.PIDFile("containerd"), stop: 10 * time.Second,
	}, true, nil
}

// waitForSocket returns once somebody listens on the socket.
func waitForSocket(ctx context.Context, socket string) error {
	return poll(ctx, func() bool { return answers(socket) })
}

// poll asks condition every 10 ms until it holds or ctx ends. It serves where
// the other side offers nothing to wait on.
func poll(ctx context.Context, condition func() bool) error {
	ticker := time.NewTicker(10 * time.Millisecond)
	defer ticker.Stop()
	for !condition() {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-ticker.C:
		}
	}
	return nil
}
