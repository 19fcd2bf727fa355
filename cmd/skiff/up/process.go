package up

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/skiff-run/skiff/internal/config"
)

// rotateAt is the size in bytes at which a log is put aside when its daemon starts.
const rotateAt = 10 << 20

// program is a daemon as a child process: what to run and where it leaves its traces.
type program struct {
	name string
	args []string
	log  string
	// pidFile lets a later run of skiff find the process after this one is gone.
	pidFile string
	stop    time.Duration // how long it may take to end after SIGTERM
}

// start runs the program in a session of its own, so that a Ctrl-C in the
// terminal reaches only us and we stop the daemons in order.
func (p program) start() (*exec.Cmd, error) {
	if info, err := os.Stat(p.log); err == nil && info.Size() > rotateAt {
		if err := os.Rename(p.log, p.log+".1"); err != nil {
			return nil, fmt.Errorf("put aside log of %s: %w", p.name, err)
		}
	}
	log, err := os.OpenFile(p.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open log of %s: %w", p.name, err)
	}
	defer log.Close()
	command := exec.Command(p.args[0], p.args[1:]...)
	command.Stdout, command.Stderr = log, log
	command.Env = config.WithoutEnvironment(os.Environ()) // its file has it all
	command.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := command.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", p.name, err)
	}
	if err := os.WriteFile(p.pidFile, []byte(strconv.Itoa(command.Process.Pid)), 0o600); err != nil {
		_ = command.Process.Kill()
		return nil, fmt.Errorf("record process id of %s: %w", p.name, err)
	}
	return command, nil
}

// running returns the process id in a pid file if that process still is the
// program the file speaks of, and 0 otherwise: ids are used again.
func running(pidFile, programName string) int {
	data, err := os.ReadFile(pidFile)
	if err != nil {
		return 0
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(data)))
	if err != nil || pid <= 1 {
		return 0
	}
	target, err := os.Readlink(filepath.Join("/proc", strconv.Itoa(pid), "exe"))
	// A program that was replaced on disk while it ran reads "... (deleted)".
	if err != nil || filepath.Base(strings.TrimSuffix(target, " (deleted)")) != programName {
		return 0
	}
	return pid
}

// terminate asks the process in the pid file to end and kills it when it has
// not after the limit. A process that is not there is fine.
func terminate(ctx context.Context, pidFile, programName string, limit time.Duration) error {
	defer os.Remove(pidFile)
	pid := running(pidFile, programName)
	if pid == 0 {
		return nil
	}
	// The descriptor names this very process, whatever happens to its id.
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		if errors.Is(err, unix.ESRCH) {
			return nil
		}
		return fmt.Errorf("find process %d of %s: %w", pid, programName, err)
	}
	defer unix.Close(fd)
	if err := unix.PidfdSendSignal(fd, unix.SIGTERM, nil, 0); err != nil && !errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("stop %s: %w", programName, err)
	}
	if ended(ctx, fd, limit) {
		return nil
	}
	if err := unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0); err != nil && !errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("kill %s: %w", programName, err)
	}
	if !ended(context.Background(), fd, 10*time.Second) {
		return fmt.Errorf("process %d of %s does not end even by SIGKILL", pid, programName)
	}
	return nil
}

// ended waits until the process behind a pidfd has ended.
func ended(ctx context.Context, fd int, limit time.Duration) bool {
	deadline := time.Now().Add(limit)
	for ctx.Err() == nil {
		left := time.Until(deadline)
		if left <= 0 {
			return false
		}
		poll := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
		n, err := unix.Poll(poll, int(min(left, 100*time.Millisecond).Milliseconds())+1)
		if err == nil && n > 0 {
			return true
		}
	}
	return false
}

// tail returns the last lines of a log, for the error that its program's end causes.
func tail(path string, lines int) string {
	data, err := os.ReadFile(path)
	if err != nil {
		return ""
	}
	all := strings.Split(strings.TrimRight(string(data), "\n"), "\n")
	return strings.Join(all[max(0, len(all)-lines):], "\n")
}
