package machines

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// Kernel unpacks the kernel if that has not been done and returns its folder.
func Kernel(ctx context.Context) (string, error) {
	return script(ctx, "kernel.sh")
}

// Debian makes the disk of a Debian machine for a kernel if there is none and
// returns its path. Nothing writes to it: see WithSystem.
func Debian(ctx context.Context, kernel string) (string, error) {
	return script(ctx, "debian.sh", kernel)
}

// script runs one of this package's and returns the path that it prints.
func script(ctx context.Context, name string, args ...string) (string, error) {
	root, err := exec.CommandContext(ctx, "go", "list", "-m", "-f", "{{.Dir}}").Output()
	if err != nil {
		return "", fmt.Errorf("find the sources: %w", err)
	}
	command := exec.CommandContext(ctx, filepath.Join(strings.TrimSpace(string(root)), "test/machines", name), args...)
	command.Stderr = os.Stderr
	output, err := command.Output()
	if err != nil {
		return "", fmt.Errorf("%s: %w", name, err)
	}
	return strings.TrimSpace(string(output)), nil
}

// WithSystem returns the configuration of a machine that starts the system on a
// disk, and writes to a new layer over it.
func (c Config) WithSystem(ctx context.Context, disk, layer string) (Config, error) {
	if output, err := exec.CommandContext(ctx, "qemu-img", "create", "-q", "-f", "qcow2", "-b", disk, "-F", "raw", layer).CombinedOutput(); err != nil {
		return c, fmt.Errorf("make a layer over %s: %w: %s: hack/deps.sh --machines installs qemu-img", disk, err, output)
	}
	c.Disks = append([]string{layer}, c.Disks...)
	c.Append = strings.TrimSpace("machine.root=/dev/vda systemd.show_status=0 " + c.Append)
	c.BootLimit = max(c.BootLimit, 3*time.Minute)
	return c, nil
}
