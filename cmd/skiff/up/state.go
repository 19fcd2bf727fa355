package up

import (
	"fmt"
	"os"
	"os/exec"
	"strings"

	"github.com/skiff-run/skiff/internal/operator"
)

// Daemon is one daemon of this machine and whether it runs.
type Daemon struct{ Name, State string }

// Daemons lists the daemons this machine should run.
func (l Layout) Daemons() []Daemon {
	role, err := l.role()
	if err != nil {
		role = operator.Control
	}
	o := &Options{Layout: l}
	var found []Daemon
	for _, name := range daemonsOf(role) {
		state := "does not run; its log: " + l.Log(name)
		if o.systemd() {
			// Its exit code says no more than the word it prints.
			output, _ := exec.Command("systemctl", "is-active", unit(name)).Output()
			state = fmt.Sprintf("%s; its log: journalctl --unit %s", strings.TrimSpace(string(output)), unit(name))
		} else if pid := running(l.PIDFile(name), "skiff-"+name); pid != 0 {
			state = fmt.Sprintf("runs as process %d; its log: %s", pid, l.Log(name))
		}
		found = append(found, Daemon{name, state})
	}
	return found
}

// NodeName is the name of this machine's Node, as its configuration has it.
func (l Layout) NodeName() (string, error) {
	if name := l.agent().NodeName; name != "" {
		return name, nil
	}
	name, err := os.Hostname()
	return strings.ToLower(name), err
}
