package host

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Machine is a process in namespaces of its own, process 1 of its process
// table: while it lives, the machine is on.
type Machine struct {
	// PID in our process table, 0 when off.
	PID int `json:"pid"`
	// Started is the start time of that process in clock ticks since boot, which
	// tells it from a later one with the same id.
	Started string `json:"started"`
}

// Lives says how long machines stay on.
type Lives int

// The two lives of a machine.
const (
	// WithUs: a machine ends with the process that made it, however that ends.
	WithUs Lives = iota
	// ByItself: a machine stays on until it is switched off.
	ByItself
)

// bootScript becomes process 1. It prepares the file systems that are named by
// arguments, says that it is ready, and then does nothing but reap orphans
// (which bash does while it waits to read) until its input ends.
const bootScript = `set -e
name=$1 files=$2
mount --make-rprivate /
mount -t proc proc /proc
hostname "$name"
if [ -n "$files" ]; then
  for each in etc var; do
    mount -t overlay overlay -o "lowerdir=/$each,upperdir=$files/$each,workdir=$files/.work-$each" "/$each"
  done
  mount -t tmpfs -o mode=755 tmpfs /run
  mkdir -p /run/lock /var/lib/containerd
  mount --bind "$files/containerd" /var/lib/containerd
  echo "$name" >/etc/hostname
  mount --make-rshared /
fi
ip link set lo up
if [ "$3" = alone ]; then
  exec 0<> <(:) # a pipe that this process holds open itself: its end never comes
fi
echo ready
exec >/dev/null 2>&1
while read -r _; do :; done
`

// readyLimit is how long a machine may take to boot.
const readyLimit = 20 * time.Second

// boot switches a machine on. files is the folder of what it keeps, "" for
// none. The returned wait is nil for a machine that lives by itself.
func boot(name, files string, lives Lives) (Machine, func() error, error) {
	arguments := []string{"-c", bootScript, "init", name, files, "with-us"}
	if files != "" {
		for _, folder := range []string{"etc", "var", ".work-etc", ".work-var", "containerd"} {
			if err := os.MkdirAll(filepath.Join(files, folder), 0o755); err != nil {
				return Machine{}, nil, fmt.Errorf("make folder of host %s: %w", name, err)
			}
		}
	}
	if lives == ByItself {
		arguments[len(arguments)-1] = "alone"
	}
	command := exec.Command("bash", arguments...)
	command.SysProcAttr = &syscall.SysProcAttr{
		Setsid:     true,
		Cloneflags: unix.CLONE_NEWNET | unix.CLONE_NEWNS | unix.CLONE_NEWPID | unix.CLONE_NEWUTS | unix.CLONE_NEWIPC,
	}
	var problem strings.Builder
	command.Stderr = &problem
	input, err := command.StdinPipe()
	if err != nil {
		return Machine{}, nil, fmt.Errorf("boot host %s: %w", name, err)
	}
	output, err := command.StdoutPipe()
	if err != nil {
		return Machine{}, nil, fmt.Errorf("boot host %s: %w", name, err)
	}
	if err := command.Start(); err != nil {
		return Machine{}, nil, fmt.Errorf("boot host %s: %w", name, err)
	}
	if err := ready(output); err != nil {
		_ = command.Process.Kill()
		return Machine{}, nil, fmt.Errorf("boot host %s: %w", name, errors.Join(err, command.Wait(), errors.New(problem.String())))
	}
	m := Machine{PID: command.Process.Pid}
	if m.Started, err = startTime(m.PID); err != nil {
		_ = command.Process.Kill()
		return Machine{}, nil, errors.Join(err, command.Wait())
	}
	if lives == ByItself {
		return m, nil, errors.Join(input.Close(), command.Process.Release())
	}
	return m, command.Wait, nil
}

// ready waits for the init's word that the machine is prepared.
func ready(output io.Reader) error {
	said := make(chan error, 1)
	go func() {
		line, err := bufio.NewReader(output).ReadString('\n')
		if err == nil && strings.TrimSpace(line) != "ready" {
			err = fmt.Errorf("init says %q", line)
		}
		said <- err
	}()
	select {
	case err := <-said:
		return err
	case <-time.After(readyLimit):
		return fmt.Errorf("init is not ready within %s", readyLimit)
	}
}

// on says whether the machine is running.
func (m Machine) on() bool {
	if m.PID == 0 {
		return false
	}
	started, err := startTime(m.PID)
	return err == nil && started == m.Started
}

// off ends the machine at once, as pulling its plug would, and returns when
// every process of it has ended.
func (m Machine) off(ctx context.Context) error {
	fd, err := unix.PidfdOpen(m.PID, 0)
	if errors.Is(err, unix.ESRCH) || err == nil && !m.on() {
		if err == nil {
			unix.Close(fd)
		}
		return nil
	}
	if err != nil {
		return fmt.Errorf("find process %d: %w", m.PID, err)
	}
	defer unix.Close(fd)
	if err := unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0); err != nil && !errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("end process %d: %w", m.PID, err)
	}
	for ctx.Err() == nil {
		poll := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
		if n, err := unix.Poll(poll, 100); err == nil && n > 0 {
			return nil
		}
	}
	return fmt.Errorf("process %d does not end: %w", m.PID, ctx.Err())
}

// startTime is field 22 of /proc/PID/stat.
func startTime(pid int) (string, error) {
	fields, err := stat(pid)
	if err != nil {
		return "", err
	}
	if fields[0] == "Z" {
		return "", fmt.Errorf("process %d has ended", pid)
	}
	return fields[22-3], nil
}

// parentOf is field 4 of /proc/PID/stat.
func parentOf(pid int) (int, error) {
	fields, err := stat(pid)
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(fields[4-3])
}

// stat reads /proc/PID/stat from the third field on.
func stat(pid int) ([]string, error) {
	data, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return nil, fmt.Errorf("find process %d: %w", pid, err)
	}
	// The name, in parentheses, may hold anything.
	fields := strings.Fields(string(data[strings.LastIndexByte(string(data), ')')+1:]))
	if len(fields) < 20 {
		return nil, fmt.Errorf("/proc/%d/stat is cut short", pid)
	}
	return fields, nil
}
