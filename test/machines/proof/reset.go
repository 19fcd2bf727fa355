package proof

import (
	_ "embed"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/skiff-run/skiff/test/machines/fleet"
)

// inventoryScript prints what there is on a machine.
//
//go:embed inventory.sh
var inventoryScript string

// inventory is what there is on a machine, a line for each.
func inventory(t *testing.T, m *fleet.Machine) string {
	t.Helper()
	command := m.Command(t.Context(), "bash -s")
	command.Stdin = strings.NewReader(inventoryScript)
	said, err := command.Output()
	if err != nil {
		t.Fatalf("what there is on %s: %v\n%s", m.Name, err, said)
	}
	return string(said)
}

func inventoryFile(f *fleet.Fleet, m *fleet.Machine) string {
	return filepath.Join(f.Folder, m.Name, "inventory")
}

// stays are the differences that reset.yml may leave, each for a reason.
var stays = []struct {
	why  string
	line *regexp.Regexp
}{
	{"what apt and dpkg know of packages, and their logs", regexp.MustCompile(`^file /var/(lib/apt|cache/apt|cache/debconf|cache/ldconfig|log/apt|lib/dpkg)(/.*)?$|^file /var/log/(dpkg|alternatives)\.log$`)},
	{"the cache of kubectl, which Ansible ran as root", regexp.MustCompile(`^file /root/\.kube(/.*)?$`)},
	{"the lock that all users of iptables share, until the next boot", regexp.MustCompile(`^file /run/xtables\.lock$`)},
	{"the network was waited for when Skiff's units started; that stays so until the next boot", regexp.MustCompile(`^unit (network-online\.target|systemd-networkd-wait-online\.service)$`)},
	{"where containerd looks for network plug-ins, which it makes and leaves empty", regexp.MustCompile(`^file /etc/cni(/net\.d)?$`)},
	{"alternatives of programs that are gone, which dpkg keeps", regexp.MustCompile(`^file /var/lib/dpkg/alternatives(/.*)?$`)},
}

// testReset takes the cluster away by Ansible, with containerd and all that came
// with it, as nobody else uses it here. The machines have again what they
// had before, but for what is named in stays.
func testReset(t *testing.T, f *fleet.Fleet) {
	if _, err := os.Stat(inventoryFile(f, f.Machines[0])); err != nil {
		t.Skipf("nobody wrote down what this fleet's machines had before: %v", err)
	}
	if _, _, err := f.Playbook(t.Context(), "reset.yml", "-e", "skiff_reset_confirm=yes", "-e", "skiff_reset_containerd=true", "-e", "skiff_reset_backups=true"); err != nil {
		t.Fatal(err)
	}
	for _, m := range f.Machines {
		had, err := os.ReadFile(inventoryFile(f, m))
		if err != nil {
			t.Fatal(err)
		}
		before, after := lines(string(had)), lines(inventory(t, m))
		for line := range after {
			if !before[line] && !allowed(line) {
				t.Errorf("%s has now: %s", m.Name, line)
			}
		}
		for line := range before {
			if !after[line] {
				t.Errorf("%s has not any more: %s", m.Name, line)
			}
		}
	}
}

func allowed(line string) bool {
	for _, s := range stays {
		if s.line.MatchString(line) {
			return true
		}
	}
	return false
}

func lines(text string) map[string]bool {
	set := map[string]bool{}
	for line := range strings.Lines(text) {
		set[strings.TrimSuffix(line, "\n")] = true
	}
	return set
}
