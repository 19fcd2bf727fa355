package up

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/skiff-run/skiff/internal/config"
	"github.com/skiff-run/skiff/internal/operator"
)

// MachineKind is the kind of the file that says what a machine is.
const MachineKind = "Machine"

// Machine says what this machine is in its cluster. "skiff init" and "skiff
// join" write it; a machine without it is a control machine of its own.
type Machine struct {
	config.TypeMeta `yaml:",inline"`

	Role operator.Role `yaml:"role"`
	// Joining is true from the first change a join makes until its last.
	Joining bool `yaml:"joining"`
	// CAHash names the cluster's authority, as in --ca-hash.
	CAHash string `yaml:"caHash"`
	// MemberID is a control machine's name in the store, if a join gave it.
	MemberID string `yaml:"memberID"`
	// ControlAddresses are host:port of the API servers known when it joined.
	ControlAddresses []string `yaml:"controlAddresses"`
}

// Validate implements config.Validator.
func (m *Machine) Validate() field.ErrorList {
	if m.Role == operator.Control || m.Role == operator.Worker {
		return nil
	}
	return field.ErrorList{field.NotSupported(field.NewPath("role"), m.Role, []operator.Role{operator.Control, operator.Worker})}
}

// machineFile holds the Machine.
func (l Layout) machineFile() string { return l.path("etc/skiff/machine.yaml") }

// Machine reads what this machine is; nil when neither init nor join has run here.
func (l Layout) Machine() (*Machine, error) {
	m := &Machine{}
	if _, err := os.Stat(l.machineFile()); errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err := config.Load(l.machineFile(), MachineKind, m); err != nil {
		return nil, err
	}
	if errs := m.Validate(); len(errs) > 0 {
		return nil, fmt.Errorf("%s: %w", l.machineFile(), errs.ToAggregate())
	}
	return m, nil
}

// SaveMachine records what this machine is.
func (l Layout) SaveMachine(m Machine) error {
	m.TypeMeta = config.TypeMeta{APIVersion: config.APIVersion, Kind: MachineKind}
	return config.Write(l.machineFile(), &m)
}

// serversFile holds the API servers this machine's agent has learnt of.
func (l Layout) serversFile() string { return l.path("etc/skiff/servers") }

// Servers are host:port of the API servers this machine knows of from when it
// joined and from what its agent has learnt since: for when the own one is down.
func (l Layout) Servers() []string {
	var known []string
	if machine, err := l.Machine(); err == nil && machine != nil {
		known = machine.ControlAddresses
	}
	// Without the file there is nothing more to know.
	learnt, _ := os.ReadFile(l.serversFile())
	return append(known, strings.Fields(string(learnt))...)
}

// role is what this machine is; a control machine when nothing says otherwise.
func (l Layout) role() (operator.Role, error) {
	m, err := l.Machine()
	if m == nil {
		return operator.Control, err
	}
	return m.Role, nil
}

// daemonsOf are the daemons of a role in the order they are started.
func daemonsOf(role operator.Role) []string {
	if role == operator.Worker {
		return []string{"agent", "proxy"}
	}
	return daemons
}
