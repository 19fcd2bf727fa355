package host

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// Host is a test machine. Its methods may be called from several goroutines;
// Boot, PowerOff and SetAddress by one at a time.
type Host struct {
	// Name is its host name.
	Name string `json:"name"`
	// Address is its address on the network.
	Address netip.Addr `json:"address"`
	// Files is the folder it keeps its files in: Files/etc and Files/var hold
	// what the host's /etc and /var have that the machine's have not.
	Files string `json:"files"`
	// CgroupRoot is the cgroup, the same in every hierarchy, that the host has to
	// itself: hosts have no cgroup namespaces.
	CgroupRoot string `json:"cgroupRoot"`

	mu sync.Mutex // guards Machine
	// Machine is what runs while the host is on.
	Machine Machine `json:"machine"`
	network *Network
	// ended is closed when the init of a machine that lives with us has been reaped.
	ended chan struct{}
}

// On says whether the host is running.
func (h *Host) On() bool { return h.machine().on() }

func (h *Host) machine() Machine {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.Machine
}

func (h *Host) setMachine(m Machine) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.Machine = m
}

// Boot switches the host on, with the files it had, and plugs it into the switch.
func (h *Host) Boot() error {
	if h.On() {
		return fmt.Errorf("host %s is on", h.Name)
	}
	m, wait, err := boot(h.Name, h.Files, h.network.lives)
	if err != nil {
		return err
	}
	h.setMachine(m)
	h.ended = nil
	if wait != nil {
		ended := make(chan struct{})
		h.ended = ended
		go func() {
			_ = wait() // killed, in the end
			close(ended)
		}()
	}
	return errors.Join(h.network.plug(h), h.network.save())
}

// PowerOff ends everything on the host at once, without a word to anybody.
// What was written stays, whether synced or not: the machine's kernel lives on.
func (h *Host) PowerOff(ctx context.Context) error {
	// Whoever entered the host and waits for a process there must be able to see
	// its end: the kernel waits for that.
	if err := h.signalWaiting(unix.SIGCONT); err != nil {
		return err
	}
	if err := h.machine().off(ctx); err != nil {
		return fmt.Errorf("power off host %s: %w", h.Name, err)
	}
	if h.ended != nil {
		<-h.ended
	}
	h.setMachine(Machine{})
	return errors.Join(removeCgroups(h.CgroupRoot), h.network.save())
}

// Path is where a file of the host's /etc or /var lies for us. Only what the
// host has written itself is there.
func (h *Host) Path(path string) string { return filepath.Join(h.Files, path) }

// Hide makes folders of /etc or /var empty on the host, whatever the machine
// has there. It is for hosts that have not booted yet.
func (h *Host) Hide(folders ...string) error {
	for _, folder := range folders {
		path := h.Path(folder)
		if err := os.MkdirAll(path, 0o755); err != nil {
			return fmt.Errorf("hide %s from host %s: %w", folder, h.Name, err)
		}
		// What overlayfs makes of a folder that was removed and made anew.
		if err := unix.Setxattr(path, "trusted.overlay.opaque", []byte("y"), 0); err != nil {
			return fmt.Errorf("hide %s from host %s: %w", folder, h.Name, err)
		}
	}
	return nil
}

// WriteFile writes a file below the host's /etc or /var before its first boot
// or while it runs.
func (h *Host) WriteFile(path string, data []byte) error {
	if !h.On() {
		// An overlay's upper folder may be changed freely while nothing is mounted on it.
		if err := os.MkdirAll(filepath.Dir(h.Path(path)), 0o755); err != nil {
			return fmt.Errorf("write %s on host %s: %w", path, h.Name, err)
		}
		return os.WriteFile(h.Path(path), data, 0o600)
	}
	command := h.Command(context.Background(), "sh", "-c", `umask 077; mkdir -p "$(dirname "$1")" && cat >"$1"`, "sh", path)
	command.Stdin = bytes.NewReader(data)
	if output, err := command.CombinedOutput(); err != nil {
		return fmt.Errorf("write %s on host %s: %w\n%s", path, h.Name, err, output)
	}
	return nil
}

// Command is a program to be run on the host. When ctx ends, it and its
// children in its process group are killed.
func (h *Host) Command(ctx context.Context, program string, arguments ...string) *exec.Cmd {
	enter := []string{"--target", strconv.Itoa(h.machine().PID), "--mount", "--uts", "--ipc", "--net", "--pid", "--", program}
	command := exec.CommandContext(ctx, "nsenter", append(enter, arguments...)...)
	command.Dir = "/"
	command.Env = append(os.Environ(), "KUBECONFIG=/etc/skiff/admin.conf", "HOME=/root", "HOSTNAME="+h.Name)
	command.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	// nsenter forks, so that the program is in the process table: end both.
	command.Cancel = func() error { return syscall.Kill(-command.Process.Pid, syscall.SIGKILL) }
	return command
}

// Run runs a program on the host and returns what it printed.
func (h *Host) Run(ctx context.Context, program string, arguments ...string) (string, error) {
	var output, problem bytes.Buffer
	command := h.Command(ctx, program, arguments...)
	command.Stdout, command.Stderr = &output, &problem
	if err := command.Run(); err != nil {
		return output.String(), fmt.Errorf("%s: %s %s: %w\n%s%s", h.Name, filepath.Base(program), strings.Join(arguments, " "),
			errors.Join(err, ctx.Err()), output.String(), problem.String())
	}
	return output.String(), nil
}

// Processes are the ids, in our process table, of the host's processes that
// run the program of this name ("" for all but init).
func (h *Host) Processes(program string) ([]int, error) {
	initPID := h.machine().PID
	table, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/pid", initPID))
	if err != nil {
		return nil, fmt.Errorf("find processes of host %s: %w", h.Name, err)
	}
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, fmt.Errorf("find processes of host %s: %w", h.Name, err)
	}
	var found []int
	for _, entry := range entries {
		pid, err := strconv.Atoi(entry.Name())
		if err != nil || pid == initPID {
			continue
		}
		// Processes end while we look: what cannot be read is not there.
		if of, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/pid", pid)); err != nil || of != table {
			continue
		}
		if program != "" {
			target, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", pid))
			if err != nil || filepath.Base(strings.TrimSuffix(target, " (deleted)")) != program {
				continue
			}
		}
		found = append(found, pid)
	}
	return found, nil
}

// Signal sends a signal to the host's processes that run the program ("" for
// all) and says how many there were.
func (h *Host) Signal(program string, signal unix.Signal) (int, error) {
	pids, err := h.Processes(program)
	if err != nil {
		return 0, err
	}
	sent := 0
	for _, pid := range pids {
		switch err := unix.Kill(pid, signal); {
		case err == nil:
			sent++
		case !errors.Is(err, unix.ESRCH):
			return sent, fmt.Errorf("signal %s of host %s: %w", program, h.Name, err)
		}
	}
	if signal == unix.SIGCONT {
		return sent, h.signalWaiting(signal)
	}
	return sent, nil
}

// signalWaiting signals the parents, outside of the host, of its processes: the
// nsenters. One stops itself when its child is stopped.
func (h *Host) signalWaiting(signal unix.Signal) error {
	pids, err := h.Processes("")
	if err != nil {
		return err
	}
	inside := map[int]bool{h.machine().PID: true}
	for _, pid := range pids {
		inside[pid] = true
	}
	for _, pid := range pids {
		parent, err := parentOf(pid)
		if err != nil || inside[parent] || parent == os.Getpid() {
			continue // gone already, or none of the nsenters
		}
		if err := unix.Kill(parent, signal); err != nil && !errors.Is(err, unix.ESRCH) {
			return fmt.Errorf("signal the parent of process %d of host %s: %w", pid, h.Name, err)
		}
	}
	return nil
}

// Freeze stops every process of the host as if its virtual machine were
// paused; Thaw lets them go on.
func (h *Host) Freeze() error {
	_, err := h.Signal("", unix.SIGSTOP)
	return err
}

// Thaw lets a frozen host go on.
func (h *Host) Thaw() error {
	_, err := h.Signal("", unix.SIGCONT)
	return err
}

// SetAddress gives the host another address at once, while it runs.
func (h *Host) SetAddress(address netip.Addr) error {
	for _, command := range []string{
		fmt.Sprintf("ip addr del %s/%d dev eth0", h.Address, h.network.Subnet.Bits()),
		fmt.Sprintf("ip addr add %s/%d dev eth0", address, h.network.Subnet.Bits()),
		// The kernel dropped the route with the address it leaned on.
		fmt.Sprintf("ip route replace default via %s", h.network.Gateway()),
	} {
		if err := h.network.run(h.Name, strings.Fields(command)); err != nil {
			return err
		}
	}
	h.Address = address
	return h.network.save()
}
