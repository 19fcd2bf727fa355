package fleet

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
)

// Inventory is the file that tells Ansible of the machines. Boot writes it: all
// of them are control machines, and packages come from the checkout's dist.
func (f *Fleet) Inventory() string { return filepath.Join(f.Folder, "inventory.yml") }

// Kubeconfig is the file where site.yml puts the administrator's kubeconfig.
func (f *Fleet) Kubeconfig() string { return filepath.Join(f.Folder, "kubeconfig") }

func (f *Fleet) writeInventory() error {
	var text strings.Builder
	fmt.Fprintf(&text, "all:\n  vars:\n    ansible_user: root\n    ansible_ssh_common_args: -F %s\n", f.SSHConfig())
	fmt.Fprintf(&text, "    skiff_kubeconfig_dest: %s\n    skiff_registry_mirrors: {docker.io: [%q]}\n", f.Kubeconfig(), f.Registry())
	text.WriteString("  children:\n    control:\n      hosts:\n")
	for _, m := range f.Machines {
		fmt.Fprintf(&text, "        %s: {ansible_host: %s}\n", m.Name, m.Address)
	}
	if err := os.WriteFile(f.Inventory(), []byte(text.String()), 0o600); err != nil {
		return fmt.Errorf("write the inventory: %w", err)
	}
	return nil
}

// Played is what a playbook says it did, by machine.
type Played map[string]Recap

// Recap counts the tasks of a playbook on one machine.
type Recap struct{ OK, Changed, Unreachable, Failed int }

// Changed is how many tasks changed something on any machine.
func (p Played) Changed() int {
	sum := 0
	for _, recap := range p {
		sum += recap.Changed
	}
	return sum
}

// Playbook runs one of ansible/playbooks, with more of Ansible's flags, and
// returns what it did and all that it printed.
func (f *Fleet) Playbook(ctx context.Context, name string, flags ...string) (Played, string, error) {
	module, err := output(exec.CommandContext(ctx, "go", "list", "-m", "-f", "{{.Dir}}"))
	if err != nil {
		return nil, "", fmt.Errorf("find the sources: %w", err)
	}
	folder := filepath.Join(strings.TrimSpace(module), "ansible")
	command := f.Command(ctx, "ansible-playbook", append([]string{"-i", f.Inventory(), filepath.Join(folder, "playbooks", name)}, flags...)...)
	command.Dir = folder
	command.Env = append(os.Environ(), "ANSIBLE_CONFIG="+filepath.Join(folder, "ansible.cfg"), "ANSIBLE_NOCOLOR=1",
		// Fleets have the same addresses: their connections must not be mistaken for another's.
		"ANSIBLE_SSH_CONTROL_PATH_DIR="+filepath.Join(f.Folder, "cp"))
	said, err := output(command)
	if err != nil {
		return nil, said, fmt.Errorf("playbook %s: %w", name, err)
	}
	played := recaps(said)
	if len(played) == 0 {
		return nil, said, fmt.Errorf("playbook %s ended without a recap:\n%s", name, said)
	}
	return played, said, nil
}

// m1 : ok=61 changed=0 unreachable=0 failed=0 skipped=12 rescued=0 ignored=0
var recapLine = regexp.MustCompile(`(?m)^(\S+)\s+: ok=(\d+)\s+changed=(\d+)\s+unreachable=(\d+)\s+failed=(\d+)`)

func recaps(said string) Played {
	played := Played{}
	for _, found := range recapLine.FindAllStringSubmatch(said, -1) {
		var counts [4]int
		for i := range counts {
			counts[i], _ = strconv.Atoi(found[i+2]) // digits, by the expression
		}
		played[found[1]] = Recap{OK: counts[0], Changed: counts[1], Unreachable: counts[2], Failed: counts[3]}
	}
	return played
}
