// Package fleet runs Skiff on several test hosts by its own command line, as
// an operator would: found a cluster on the first, join the others. It knows
// the programs only by what they print.
package fleet

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/skiff-run/skiff/test/host"
)

// Roles a host can have.
const (
	Control = "control"
	Worker  = "worker"
)

// registryPort is where the switch serves images.
const registryPort = 5000

// Fleet is a network of hosts that run Skiff.
type Fleet struct {
	*host.Network
	// Binaries is the folder of the four programs.
	Binaries string
	// Mirrored are the registries that the switch's stands in for, docker.io
	// when there are none.
	Mirrored []string
}

// Add makes a host and boots it. It pulls images from the switch's registry.
func (f *Fleet) Add(name string) (*host.Host, error) {
	h, err := f.Network.Add(name)
	if err != nil {
		return nil, err
	}
	// Hosts have nothing of a cluster that the machine itself may be part of.
	err = h.Hide("/etc/skiff", "/etc/containerd", "/etc/cni", "/var/lib/skiff", "/var/lib/kubelet", "/var/log/skiff", "/var/log/pods", "/var/log/containers")
	if err != nil {
		return nil, err
	}
	mirrored := f.Mirrored
	if len(mirrored) == 0 {
		mirrored = []string{"docker.io"}
	}
	for _, registry := range mirrored {
		// It stands in for the whole registry: there is no way to the real one.
		mirror := fmt.Sprintf("server = \"http://%[1]s:%[2]d\"\n[host.\"http://%[1]s:%[2]d\"]\n  capabilities = [\"pull\", \"resolve\"]\n", f.Gateway(), registryPort)
		if err := h.WriteFile("/etc/containerd/certs.d/"+registry+"/hosts.toml", []byte(mirror)); err != nil {
			return nil, err
		}
	}
	return h, h.Boot()
}

// Skiff runs the command line on a host.
func (f *Fleet) Skiff(ctx context.Context, h *host.Host, arguments ...string) (string, error) {
	return h.Run(ctx, filepath.Join(f.Binaries, "skiff"), arguments...)
}

// Kubectl runs the built-in kubectl on a host.
func (f *Fleet) Kubectl(ctx context.Context, h *host.Host, arguments ...string) (string, error) {
	return f.Skiff(ctx, h, append([]string{"kubectl"}, arguments...)...)
}

// Found founds the cluster on a host and returns what was said.
func (f *Fleet) Found(ctx context.Context, h *host.Host, flags ...string) (string, error) {
	return f.Skiff(ctx, h, append([]string{"init", "--cgroup-root", h.CgroupRoot}, flags...)...)
}

// Join makes a host part of the cluster, with a token made on another.
func (f *Fleet) Join(ctx context.Context, h, through *host.Host, role string, flags ...string) (string, error) {
	line, err := f.Skiff(ctx, through, "token", "create", "--role", role)
	if err != nil {
		return "", err
	}
	words := strings.Fields(line)
	if len(words) < 3 || words[0] != "skiff" || words[1] != "join" {
		return "", fmt.Errorf("skiff token create says %q", line)
	}
	return f.Skiff(ctx, h, append(append(words[1:], "--cgroup-root", h.CgroupRoot), flags...)...)
}

// Up starts what a host was before it was switched off.
func (f *Fleet) Up(ctx context.Context, h *host.Host) (string, error) {
	return f.Skiff(ctx, h, "up", "--detach")
}

// Registry serves a docker-registry's folder to all hosts until the switch is
// off. What it says goes to a file in that folder.
func (f *Fleet) Registry(ctx context.Context, data string) error {
	address := fmt.Sprintf("%s:%d", f.Gateway(), registryPort)
	config := filepath.Join(f.Folder, "registry.yml")
	text := fmt.Sprintf("version: 0.1\nlog: {level: warn}\nstorage: {filesystem: {rootdirectory: %s}}\nhttp: {addr: %q}\n", filepath.Join(data, "data"), address)
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		return fmt.Errorf("configure registry: %w", err)
	}
	log, err := os.Create(filepath.Join(f.Folder, "registry.log"))
	if err != nil {
		return fmt.Errorf("start registry: %w", err)
	}
	defer log.Close()
	command := f.Switch.Command(context.WithoutCancel(ctx), "docker-registry", "serve", config)
	command.Stdout, command.Stderr = log, log
	command.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := command.Start(); err != nil {
		return fmt.Errorf("start registry: %w", err)
	}
	ended := make(chan error, 1)
	go func() { ended <- command.Wait() }()
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	for {
		connection, err := f.Dial(ctx, "tcp", address)
		if err == nil {
			return connection.Close()
		}
		select {
		case err := <-ended:
			said, _ := os.ReadFile(log.Name())
			return fmt.Errorf("the registry ended: %w\n%s", err, said)
		case <-ctx.Done():
			return fmt.Errorf("the registry does not answer at %s: %w", address, err)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// Uplink gives this machine itself an address in the hosts' network, by a link
// of the given name, so that programs outside of all hosts reach them. It goes
// when the switch is off.
func (f *Fleet) Uplink(name string) error {
	outside := f.Gateway().Prev()
	for _, line := range []string{
		fmt.Sprintf("link add %s type veth peer name uplink netns %d", name, f.Switch.Machine.PID),
		fmt.Sprintf("addr add %s/%d dev %s", outside, f.Subnet.Bits(), name),
		"link set " + name + " up",
	} {
		if output, err := exec.Command("ip", strings.Fields(line)...).CombinedOutput(); err != nil {
			return fmt.Errorf("ip %s: %w\n%s", line, err, output)
		}
	}
	if output, err := f.Switch.Command(context.Background(), "ip", "link", "set", "uplink", "master", "br0", "up").CombinedOutput(); err != nil {
		return fmt.Errorf("plug the uplink in: %w\n%s", err, output)
	}
	return nil
}
