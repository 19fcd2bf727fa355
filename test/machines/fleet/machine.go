package fleet

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// bootLimit is how long a machine may take until it is up: one that emulates its
// processor needs a part of it.
const bootLimit = 4 * time.Minute

// Machine is one of a fleet's.
type Machine struct {
	// Name is its host name too.
	Name string
	// Address in the fleet's network.
	Address netip.Addr

	fleet  *Fleet
	folder string
	power  Power
}

// Folder is where what belongs to the machine alone lies on this computer.
func (m *Machine) Folder() string { return m.folder }

// Command returns a shell command line that runs in the machine as root, over ssh.
func (m *Machine) Command(ctx context.Context, line string) *exec.Cmd {
	return m.fleet.Command(ctx, "ssh", "-F", m.fleet.SSHConfig(), m.Name, line)
}

// Run runs a shell command line in the machine as root and returns its standard
// output. The error of one that fails holds all that it printed.
func (m *Machine) Run(ctx context.Context, line string) (string, error) {
	said, err := output(m.Command(ctx, line))
	if err != nil {
		err = fmt.Errorf("on %s: %w", m.Name, err)
	}
	return said, err
}

// Copy copies a file or folder of this computer into the machine.
func (m *Machine) Copy(ctx context.Context, from, to string) error {
	if err := run(m.fleet.Command(ctx, "scp", "-q", "-r", "-F", m.fleet.SSHConfig(), from, m.Name+":"+to)); err != nil {
		return fmt.Errorf("copy to %s: %w", m.Name, err)
	}
	return nil
}

// PowerOff pulls the plug.
func (m *Machine) PowerOff() error {
	if err := m.power.Off(); err != nil {
		return fmt.Errorf("power off %s: %w", m.Name, err)
	}
	return nil
}

// Start switches a machine on that is off, and waits until it has booted.
func (m *Machine) Start(ctx context.Context) error {
	if err := m.power.On(ctx); err != nil {
		return fmt.Errorf("start %s: %w", m.Name, err)
	}
	return m.wait(ctx, func(string) bool { return true })
}

// Reboot lets the machine's system restart itself, and waits until it has booted
// again.
func (m *Machine) Reboot(ctx context.Context) error {
	before, err := m.boot(ctx)
	if err != nil {
		return fmt.Errorf("reboot %s: %w", m.Name, err)
	}
	// The connection may break before the answer.
	_, _ = m.Run(ctx, "systemctl reboot")
	return m.wait(ctx, func(now string) bool { return now != before })
}

// Console returns the end of what the machine printed on its console.
func (m *Machine) Console() string { return m.power.Console() }

// boot tells one boot of the machine from another. A container has its kernel's
// boot id, a virtual machine's process 1 starts at the same time always.
func (m *Machine) boot(ctx context.Context) (string, error) {
	return m.Run(ctx, "cat /proc/sys/kernel/random/boot_id; cut -d' ' -f22 /proc/1/stat")
}

// wait waits until the machine answers, is one that is meant, and all of its
// services have started.
func (m *Machine) wait(ctx context.Context, meant func(boot string) bool) error {
	ctx, cancel := context.WithTimeout(ctx, bootLimit)
	defer cancel()
	for {
		boot, err := m.boot(ctx)
		if err == nil && meant(boot) {
			break
		}
		select {
		case <-time.After(50 * time.Millisecond):
		case <-ctx.Done():
			return fmt.Errorf("%s has not booted: %w", m.Name, errors.Join(context.Cause(ctx), err))
		}
	}
	// It says degraded, with an exit code, when a unit has failed.
	state, err := m.Run(ctx, "systemctl is-system-running --wait || systemctl --failed --no-legend --plain")
	if err != nil {
		return fmt.Errorf("%s has not booted: %w", m.Name, err)
	}
	if strings.TrimSpace(state) != "running" {
		return fmt.Errorf("%s has booted %s", m.Name, strings.TrimSpace(state))
	}
	return nil
}

// seed writes to a new disk what makes it this machine's.
func (m *Machine) seed(root string) error {
	key, err := os.ReadFile(m.fleet.key() + ".pub")
	if err != nil {
		return fmt.Errorf("seed %s: %w", m.Name, err)
	}
	hosts := "127.0.0.1 localhost\n::1 localhost\n"
	for _, each := range m.fleet.Machines {
		hosts += each.Address.String() + " " + each.Name + "\n"
	}
	network := fmt.Sprintf("[Match]\nName=host0 en*\n\n[Network]\nAddress=%s/%d\nGateway=%s\n", m.Address, subnet.Bits(), m.fleet.HostAddress)
	errs := []error{os.MkdirAll(filepath.Join(root, "root/.ssh"), 0o700)}
	// A machine id is made from it when it is there.
	if err := os.Remove(filepath.Join(root, "var/lib/dbus/machine-id")); !errors.Is(err, os.ErrNotExist) {
		errs = append(errs, err)
	}
	for _, file := range []struct {
		path    string
		content string
		mode    os.FileMode
	}{
		// Each makes its own when it boots for the first time.
		{"etc/machine-id", "", 0o444},
		{"etc/hostname", m.Name + "\n", 0o644},
		{"etc/hosts", hosts, 0o644},
		// Nobody answers there: names are those in /etc/hosts.
		{"etc/resolv.conf", "nameserver " + m.fleet.HostAddress.String() + "\n", 0o644},
		{"etc/systemd/network/10-fleet.network", network, 0o644},
		{"root/.ssh/authorized_keys", string(key), 0o600},
	} {
		errs = append(errs, os.WriteFile(filepath.Join(root, file.path), []byte(file.content), file.mode))
	}
	for _, suffix := range []string{"", ".pub"} {
		content, err := os.ReadFile(m.hostKey() + suffix)
		if err == nil {
			err = os.WriteFile(filepath.Join(root, "etc/ssh/ssh_host_ed25519_key"+suffix), content, 0o600)
		}
		errs = append(errs, err)
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("seed %s: %w", m.Name, err)
	}
	return nil
}
