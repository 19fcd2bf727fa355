package main

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/skiff-run/skiff/test/fleet"
	"github.com/skiff-run/skiff/test/host"
)

// execute runs a command on a host with our terminal.
func execute(_ context.Context, f *fleet.Fleet, arguments []string) error {
	h, err := find(f, arguments[0])
	if err != nil {
		return err
	}
	command := h.Command(context.Background(), arguments[1], arguments[2:]...)
	// In our own process group, so that it may read from the terminal.
	command.SysProcAttr = &syscall.SysProcAttr{}
	command.Stdin, command.Stdout, command.Stderr = os.Stdin, os.Stdout, os.Stderr
	return command.Run()
}

// program is the process name of a daemon.
func program(daemon string) string {
	switch daemon {
	case "control", "agent", "proxy":
		return "skiff-" + daemon
	}
	return daemon
}

func kill(_ context.Context, f *fleet.Fleet, arguments []string) error {
	h, err := find(f, arguments[0])
	if err != nil {
		return err
	}
	n, err := h.Signal(program(arguments[1]), unix.SIGKILL)
	if err == nil && n == 0 {
		err = fmt.Errorf("%s does not run on %s", arguments[1], h.Name)
	}
	return err
}

// signalHost sends a signal to one daemon of a host, or to everything on it.
func signalHost(signal unix.Signal) func(context.Context, *fleet.Fleet, []string) error {
	return func(_ context.Context, f *fleet.Fleet, arguments []string) error {
		h, err := find(f, arguments[0])
		if err != nil {
			return err
		}
		name := ""
		if len(arguments) > 1 {
			name = program(arguments[1])
		}
		_, err = h.Signal(name, signal)
		return err
	}
}

func onHost(do func(*host.Network, *host.Host) error) func(context.Context, *fleet.Fleet, []string) error {
	return func(_ context.Context, f *fleet.Fleet, arguments []string) error {
		h, err := find(f, arguments[0])
		if err != nil {
			return err
		}
		return do(f.Network, h)
	}
}

func direction(f *fleet.Fleet, from, to string) (host.Direction, error) {
	a, err := find(f, from)
	if err != nil {
		return host.Direction{}, err
	}
	b, err := find(f, to)
	return host.Direction{From: a, To: b}, err
}

func cut(_ context.Context, f *fleet.Fleet, arguments []string) error {
	d, err := direction(f, arguments[0], arguments[1])
	if err != nil {
		return err
	}
	return f.Cut(d)
}

func lose(_ context.Context, f *fleet.Fleet, arguments []string) error {
	d, err := direction(f, arguments[0], arguments[1])
	if err != nil {
		return err
	}
	percent, err := strconv.Atoi(arguments[2])
	if err != nil || percent < 1 || percent > 100 {
		return fmt.Errorf("percent: %q is no number from 1 to 100", arguments[2])
	}
	return f.Lose(percent, d)
}

func off(ctx context.Context, f *fleet.Fleet, arguments []string) error {
	h, err := find(f, arguments[0])
	if err != nil {
		return err
	}
	return h.PowerOff(ctx)
}

func on(ctx context.Context, f *fleet.Fleet, arguments []string) error {
	h, err := find(f, arguments[0])
	if err != nil {
		return err
	}
	if err := h.Boot(); err != nil {
		return err
	}
	said, err := f.Up(ctx, h)
	fmt.Print(said)
	return err
}

func move(_ context.Context, f *fleet.Fleet, arguments []string) error {
	h, err := find(f, arguments[0])
	if err != nil {
		return err
	}
	address, err := netip.ParseAddr(arguments[1])
	if err != nil || !f.Subnet.Contains(address) {
		return fmt.Errorf("address %q: must be one of %s", arguments[1], f.Subnet)
	}
	return h.SetAddress(address)
}

func add(ctx context.Context, f *fleet.Fleet, arguments []string) error {
	if role := arguments[1]; role != fleet.Control && role != fleet.Worker {
		return fmt.Errorf("role %q: must be %s or %s", role, fleet.Control, fleet.Worker)
	}
	return start(ctx, f, arguments[0], arguments[1])
}

func list(_ context.Context, f *fleet.Fleet, _ []string) error {
	for _, h := range f.Hosts {
		state := "off"
		if h.On() {
			state = fmt.Sprintf("on, process %d", h.Machine.PID)
		}
		fmt.Printf("%-10s %-16s %-20s %s\n", h.Name, h.Address, state, h.Files)
	}
	return nil
}
