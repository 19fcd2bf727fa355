package fleet

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"golang.org/x/sync/errgroup"

	"github.com/skiff-run/skiff/internal/testenv"
)

// Prefix begins the name of every fleet, and so of its network namespace and of
// its cgroup.
const Prefix = "skm-"

// nameLength of a fleet's name: the name of a machine's network card, vb-FLEET-m1,
// has 15 characters at most.
const nameLength = 9

// subnet is the network of every fleet: each has its own namespace. The first
// address is the host's, machine 1 has the eleventh.
var subnet = netip.MustParsePrefix("192.168.56.1/21")

// Fleet is a network of machines. Its methods are for one goroutine at a time,
// the machines' for one goroutine per machine.
type Fleet struct {
	// Name, beginning with Prefix, tells it from other fleets of this computer.
	Name string
	// Folder holds everything that the fleet consists of.
	Folder string
	// Machines are named m1, m2 and so on.
	Machines []*Machine
	// Namespace is the file of the network namespace where the host's end is.
	Namespace string
	// HostAddress is the host's address in the network.
	HostAddress netip.Addr
}

// Kind makes machines of one kind.
type Kind interface {
	// Install makes the machine's disk and keeps what power over it needs. seed
	// writes what is the machine's own to the disk, mounted at a folder.
	Install(ctx context.Context, f *Fleet, m *Machine, seed func(root string) error) error
	// Power returns the switch of a machine that is installed.
	Power(f *Fleet, m *Machine) Power
}

// Power is the switch of a machine.
type Power interface {
	// On starts the machine with the disk it has and returns without waiting
	// until it has booted.
	On(ctx context.Context) error
	// Off pulls the plug: nothing in the machine hears of it.
	Off() error
	// Console is the end of what the machine printed on its console.
	Console() string
}

// propagate is where systemd-nspawn has a folder for every machine, which it
// removes itself unless it is killed.
const propagate = "/run/systemd/nspawn/propagate"

// Traces are where a fleet leaves what outlives it if it is not taken down.
func Traces(folder string) testenv.Traces {
	name := filepath.Base(folder)
	return testenv.Traces{Dir: folder, Cgroup: "/" + name, Namespace: name, Others: filepath.Join(propagate, name+"-m*")}
}

// Cache is the folder of what is made once for all fleets.
func Cache() (string, error) {
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("find the cache of test machines: %w", err)
	}
	return filepath.Join(cache, "skiff", "machines"), nil
}

// Boot makes a fleet in a folder whose name begins with Prefix, and returns when
// its machines have booted and answer ssh. A fleet that could not be booted is
// gone altogether.
func Boot(ctx context.Context, folder string, kind Kind, machines int) (*Fleet, error) {
	if name := filepath.Base(folder); !strings.HasPrefix(name, Prefix) || len(name) > nameLength {
		return nil, fmt.Errorf("boot fleet: the folder %s must be named %s and up to %d characters", folder, Prefix, nameLength-len(Prefix))
	}
	if err := os.MkdirAll(folder, 0o700); err != nil {
		return nil, fmt.Errorf("boot fleet: %w", err)
	}
	f := describe(folder, kind, machines)
	if err := f.boot(ctx, kind); err != nil {
		for _, m := range f.Machines {
			err = fmt.Errorf("%w\nconsole of %s:\n%s", err, m.Name, m.Console())
		}
		return nil, errors.Join(fmt.Errorf("boot fleet %s: %w", f.Name, err), f.Down())
	}
	return f, nil
}

// Open returns a fleet that another process booted.
func Open(folder string, kind Kind) (*Fleet, error) {
	found, err := filepath.Glob(filepath.Join(folder, "m*", "disk.*"))
	if err != nil || len(found) == 0 {
		return nil, fmt.Errorf("there is no fleet in %s: hack/machines.sh up boots one", folder)
	}
	return describe(folder, kind, len(found)), nil
}

func describe(folder string, kind Kind, machines int) *Fleet {
	f := &Fleet{Name: filepath.Base(folder), Folder: folder, Namespace: "/run/netns/" + filepath.Base(folder), HostAddress: subnet.Addr()}
	address := f.HostAddress.As4()
	for i := range machines {
		address[3] = byte(11 + i)
		m := &Machine{Name: fmt.Sprintf("m%d", i+1), Address: netip.AddrFrom4(address), fleet: f}
		m.folder = filepath.Join(folder, m.Name)
		m.power = kind.Power(f, m)
		f.Machines = append(f.Machines, m)
	}
	return f
}

func (f *Fleet) boot(ctx context.Context, kind Kind) error {
	if err := f.makeNetwork(ctx); err != nil {
		return err
	}
	if err := f.makeKeys(ctx); err != nil {
		return err
	}
	if err := f.writeInventory(); err != nil {
		return err
	}
	if err := f.serve(ctx); err != nil {
		return err
	}
	group, ctx := errgroup.WithContext(ctx)
	for _, m := range f.Machines {
		group.Go(func() error {
			if err := os.MkdirAll(m.folder, 0o700); err != nil {
				return err
			}
			if err := kind.Install(ctx, f, m, m.seed); err != nil {
				return fmt.Errorf("install %s: %w", m.Name, err)
			}
			return m.Start(ctx)
		})
	}
	return group.Wait()
}

// makeNetwork makes the namespace with the bridge that machines are joined to.
func (f *Fleet) makeNetwork(ctx context.Context) error {
	if err := run(exec.CommandContext(ctx, "ip", "netns", "add", f.Name)); err != nil {
		return fmt.Errorf("make the fleet's network: %w", err)
	}
	for _, line := range []string{
		"link set lo up",
		"link add br0 type bridge",
		"address add " + subnet.String() + " dev br0",
		"link set br0 up",
	} {
		if err := run(f.Command(ctx, "ip", strings.Fields(line)...)); err != nil {
			return fmt.Errorf("make the fleet's network: %w", err)
		}
	}
	return nil
}

// Command returns a program of this computer that runs at the host's end of the
// network: it reaches the machines by their addresses.
func (f *Fleet) Command(ctx context.Context, program string, arguments ...string) *exec.Cmd {
	// Not by `ip netns exec`, which hides the cgroups.
	return exec.CommandContext(ctx, "nsenter", append([]string{"--net=" + f.Namespace, "--", program}, arguments...)...)
}

// Down takes the fleet away with all that was on it.
func (f *Fleet) Down() error { return Down(f.Folder) }

// Down takes away the fleet in a folder, or what is left of it.
func Down(folder string) error {
	if err := Traces(folder).Remove(); err != nil {
		return fmt.Errorf("take fleet %s down: %w", filepath.Base(folder), err)
	}
	return nil
}

// run runs a program; the error of one that fails holds what it printed.
func run(command *exec.Cmd) error {
	_, err := output(command)
	return err
}

// output is run for a program whose standard output is wanted.
func output(command *exec.Cmd) (string, error) {
	var said, complaints bytes.Buffer
	command.Stdout, command.Stderr = &said, &complaints
	if err := command.Run(); err != nil {
		return said.String(), fmt.Errorf("%s: %w\n%s%s", strings.Join(command.Args, " "), err, said.String(), complaints.String())
	}
	return said.String(), nil
}
