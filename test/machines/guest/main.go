// Command guest serves a test from inside a virtual machine: it runs programs
// and writes files. In a small machine it is the first process and prepares the
// kernel too; in one with systemd it is a service.
package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"encoding/gob"

	"golang.org/x/sys/unix"

	"github.com/skiff-run/skiff/test/machines/wire"
)

func main() {
	var err error
	if os.Getpid() == 1 {
		err = first()
	} else {
		err = serve()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "guest:", err)
		os.Exit(1)
	}
}

// first is what the first process of a machine does: mount, load, have another
// process serve, bury the orphans, and switch the machine off in the end.
func first() error {
	defer func() { _ = unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF) }()
	if err := prepare(); err != nil {
		fmt.Fprintln(os.Stderr, "guest:", err)
		return err
	}
	server := exec.Command("/proc/self/exe")
	server.Stdout, server.Stderr = os.Stdout, os.Stderr
	if err := server.Start(); err != nil {
		return fmt.Errorf("start the server: %w", err)
	}
	for {
		pid, err := unix.Wait4(-1, nil, 0, nil)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if pid == server.Process.Pid || err != nil {
			return nil
		}
	}
}

// prepare makes the RAM disk a system that programs run in, or starts the system
// on a disk.
func prepare() error {
	os.Setenv("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
	if err := mount(fileSystem{"proc", "/proc", "proc", ""}, fileSystem{"sysfs", "/sys", "sysfs", ""}, fileSystem{"devtmpfs", "/dev", "devtmpfs", ""}); err != nil {
		return err
	}
	commandLine, err := os.ReadFile("/proc/cmdline")
	if err != nil {
		return err
	}
	if disk := diskOf(string(commandLine)); disk != "" {
		if output, err := exec.Command("modprobe", "-a", "virtio_pci", "virtio_blk").CombinedOutput(); err != nil {
			return fmt.Errorf("load modules for the disk: %w: %s", err, output)
		}
		return enter(disk)
	}
	err = mount(
		fileSystem{"devpts", "/dev/pts", "devpts", ""}, fileSystem{"tmpfs", "/dev/shm", "tmpfs", ""}, fileSystem{"tmpfs", "/run", "tmpfs", ""},
		// A file system of its own: the first one of a kernel has no overlays.
		fileSystem{"tmpfs", "/tmp", "tmpfs", "size=80%"}, fileSystem{"tmpfs", "/var", "tmpfs", ""},
		fileSystem{"cgroup2", "/sys/fs/cgroup", "cgroup2", ""},
	)
	return errors.Join(err, load("/etc/modules"))
}

// fileSystem to mount.
type fileSystem struct{ source, target, kind, data string }

func mount(all ...fileSystem) error {
	for _, m := range all {
		if err := os.MkdirAll(m.target, 0o755); err != nil {
			return fmt.Errorf("mount %s: %w", m.target, err)
		}
		if err := unix.Mount(m.source, m.target, m.kind, 0, m.data); err != nil && !errors.Is(err, unix.EBUSY) {
			return fmt.Errorf("mount %s: %w", m.target, err)
		}
	}
	return nil
}

// load loads the modules that a file names, one a line.
func load(path string) error {
	file, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("load modules: %w", err)
	}
	defer file.Close()
	for lines := bufio.NewScanner(file); lines.Scan(); {
		if output, err := exec.Command("modprobe", lines.Text()).CombinedOutput(); err != nil {
			return fmt.Errorf("load module %s: %w: %s", lines.Text(), err, output)
		}
	}
	return nil
}

// serve answers requests until one says to power off.
func serve() error {
	port, err := openPort()
	if err != nil {
		return err
	}
	defer port.Close()
	events := gob.NewEncoder(port)
	requests := gob.NewDecoder(bufio.NewReaderSize(port, 1<<20))
	if err := events.Encode(wire.Event{Ready: true}); err != nil {
		return fmt.Errorf("say that the guest is ready: %w", err)
	}
	for {
		var r wire.Request
		if err := requests.Decode(&r); err != nil {
			return fmt.Errorf("read request: %w", err)
		}
		if r.PowerOff {
			return powerOff()
		}
		if err := events.Encode(answer(events, r)); err != nil {
			return fmt.Errorf("answer: %w", err)
		}
	}
}

// openPort finds the port by its name: that is what the kernel knows without udev.
func openPort() (*os.File, error) {
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(20 * time.Millisecond) {
		names, err := filepath.Glob("/sys/class/virtio-ports/*/name")
		if err != nil {
			return nil, err
		}
		for _, name := range names {
			if content, err := os.ReadFile(name); err == nil && strings.TrimSpace(string(content)) == wire.Port {
				return os.OpenFile("/dev/"+filepath.Base(filepath.Dir(name)), os.O_RDWR, 0)
			}
		}
		if time.Now().After(deadline) {
			return nil, fmt.Errorf("this machine has no virtio port %s", wire.Port)
		}
	}
}

// powerOff asks systemd where it runs. Elsewhere the first process does it when
// this one ends.
func powerOff() error {
	if _, err := os.Stat("/run/systemd/system"); err != nil {
		unix.Sync()
		return nil
	}
	return exec.Command("systemctl", "poweroff").Run()
}

func answer(events *gob.Encoder, r wire.Request) wire.Event {
	var err error
	done := wire.Event{Done: true}
	switch {
	case r.Write != nil:
		err = write(r.Write)
	case r.Run != nil:
		done.ExitCode, err = run(events, r.Run)
	default:
		err = errors.New("the request asks for nothing")
	}
	if err != nil {
		done.Error = err.Error()
	}
	return done
}

func write(w *wire.Write) error {
	if err := os.MkdirAll(filepath.Dir(w.Path), 0o755); err != nil {
		return err
	}
	flags := os.O_WRONLY | os.O_CREATE
	if w.Offset == 0 {
		flags |= os.O_TRUNC
	}
	file, err := os.OpenFile(w.Path, flags, w.Mode)
	if err != nil {
		return err
	}
	_, err = file.WriteAt(w.Data, w.Offset)
	return errors.Join(err, file.Close())
}

// run runs a program and sends what it prints as it comes.
func run(events *gob.Encoder, r *wire.Run) (int, error) {
	if len(r.Args) == 0 {
		return 0, errors.New("no program to run")
	}
	command := exec.Command(r.Args[0], r.Args[1:]...)
	command.Env = append(os.Environ(), r.Env...)
	command.Dir = r.Dir
	command.Stdin = strings.NewReader(string(r.Stdin))
	// What outlives the program must not keep its end from being told.
	command.WaitDelay = 5 * time.Second
	var order sync.Mutex
	send := func(e wire.Event) error {
		order.Lock()
		defer order.Unlock()
		return events.Encode(e)
	}
	command.Stdout = output(func(data []byte) error { return send(wire.Event{Stdout: data}) })
	command.Stderr = output(func(data []byte) error { return send(wire.Event{Stderr: data}) })
	err := command.Run()
	var exit *exec.ExitError
	if errors.As(err, &exit) || errors.Is(err, exec.ErrWaitDelay) {
		err = nil
	}
	if err != nil {
		return 0, err
	}
	return command.ProcessState.ExitCode(), nil
}

// output is a writer that hands on what it gets.
type output func([]byte) error

func (o output) Write(data []byte) (int, error) {
	if err := o(data); err != nil {
		return 0, err
	}
	return len(data), nil
}

var _ io.Writer = output(nil)
