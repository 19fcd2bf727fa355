package fleet

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// SSHConfig is the file with which ssh -F reaches the machines by their names,
// from the host's end of the network.
func (f *Fleet) SSHConfig() string { return filepath.Join(f.Folder, "ssh_config") }

func (f *Fleet) key() string { return filepath.Join(f.Folder, "key") }

func (m *Machine) hostKey() string { return filepath.Join(m.fleet.Folder, "hostkey-"+m.Name) }

// makeKeys makes the keys of the administrator and of the machines, so that each
// knows the other from the start.
func (f *Fleet) makeKeys(ctx context.Context) error {
	generate := func(file string) error {
		return run(exec.CommandContext(ctx, "ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", f.Name, "-f", file))
	}
	if err := generate(f.key()); err != nil {
		return fmt.Errorf("make the fleet's keys: %w", err)
	}
	known := filepath.Join(f.Folder, "known_hosts")
	config := fmt.Sprintf("Host *\n  User root\n  IdentityFile %s\n  IdentitiesOnly yes\n  UserKnownHostsFile %s\n  StrictHostKeyChecking yes\n"+
		"  BatchMode yes\n  ConnectTimeout 5\n  ServerAliveInterval 5\n  ServerAliveCountMax 3\n  LogLevel ERROR\n", f.key(), known)
	var keys strings.Builder
	for _, m := range f.Machines {
		if err := generate(m.hostKey()); err != nil {
			return fmt.Errorf("make the fleet's keys: %w", err)
		}
		public, err := os.ReadFile(m.hostKey() + ".pub")
		if err != nil {
			return fmt.Errorf("make the fleet's keys: %w", err)
		}
		fmt.Fprintf(&keys, "%s,%s %s", m.Name, m.Address, public)
		config += fmt.Sprintf("Host %s\n  HostName %s\n", m.Name, m.Address)
	}
	for path, content := range map[string]string{known: keys.String(), f.SSHConfig(): config} {
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			return fmt.Errorf("make the fleet's keys: %w", err)
		}
	}
	return nil
}
