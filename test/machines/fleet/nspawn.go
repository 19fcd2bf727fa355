package fleet

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"github.com/skiff-run/skiff/internal/testenv"
)

// nspawnScript runs a machine until it is switched off; see there.
//
//go:embed nspawn.sh
var nspawnScript string

// consoleTail is how much of a console a person is shown, in bytes.
const consoleTail = 10_000

// Nspawn is the kind of machines that are systemd-nspawn containers: they boot
// in seconds and share this computer's kernel and clock. Each has a disk of its
// own, which can be filled, and its own part of every hierarchy of cgroups.
type Nspawn struct{}

// Install copies the base's disk and mounts it on this computer.
func (Nspawn) Install(ctx context.Context, f *Fleet, m *Machine, seed func(root string) error) error {
	base, err := script(ctx, "base.sh")
	if err != nil {
		return err
	}
	disk, root := filepath.Join(m.folder, "disk.ext4"), filepath.Join(m.folder, "root")
	if err := run(exec.CommandContext(ctx, "cp", "--sparse=always", base, disk)); err != nil {
		return err
	}
	if err := os.MkdirAll(root, 0o755); err != nil {
		return err
	}
	if err := run(exec.CommandContext(ctx, "mount", "-o", "loop,noatime", disk, root)); err != nil {
		return err
	}
	return seed(root)
}

// Power returns the machine's switch.
func (Nspawn) Power(f *Fleet, m *Machine) Power {
	return nspawn{folder: m.folder, namespace: f.Namespace, name: f.Name + "-" + m.Name, hostname: m.Name, cgroup: "/" + f.Name + "/" + m.Name}
}

type nspawn struct{ folder, namespace, name, hostname, cgroup string }

func (n nspawn) On(context.Context) error {
	if err := allowWatchers(); err != nil {
		return err
	}
	if err := makeCgroups(n.cgroup); err != nil {
		return err
	}
	return outlive(n.folder, exec.Command("nsenter", "--net="+n.namespace, "--", "bash", "-c", nspawnScript, "nspawn", n.name, n.hostname, filepath.Join(n.folder, "root"), n.cgroup))
}

func (n nspawn) Off() error {
	return testenv.Traces{Cgroup: n.cgroup, Others: filepath.Join(propagate, n.name)}.Remove()
}

func (n nspawn) Console() string { return console(n.folder) }

// outlive starts the program that is a machine, with the console of its folder.
// It outlives this process: a fleet is down when it is taken down.
func outlive(folder string, command *exec.Cmd) error {
	console, err := os.OpenFile(filepath.Join(folder, "console"), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	defer console.Close()
	command.Stdout, command.Stderr = console, console
	command.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := command.Start(); err != nil {
		return err
	}
	go func() { _ = command.Wait() }() // reaps it if we live so long
	return nil
}

// console is the end of the file that a machine's console goes to.
func console(folder string) string {
	content, err := os.ReadFile(filepath.Join(folder, "console"))
	if err != nil {
		return err.Error()
	}
	return string(content[max(0, len(content)-consoleTail):])
}

// watchers is how many inotify instances machines of one kernel need: the kernel
// counts them per user, and every systemd, containerd and agent has several.
const watchers = 1024

// allowWatchers raises this computer's limit to watchers; it stays raised.
func allowWatchers() error {
	const file = "/proc/sys/fs/inotify/max_user_instances"
	text, err := os.ReadFile(file)
	if err != nil {
		return fmt.Errorf("read the limit of watchers: %w", err)
	}
	if now, err := strconv.Atoi(strings.TrimSpace(string(text))); err == nil && now >= watchers {
		return nil
	}
	if err := os.WriteFile(file, []byte(strconv.Itoa(watchers)), 0o644); err != nil {
		return fmt.Errorf("raise the limit of watchers: %w", err)
	}
	return nil
}

// makeCgroups makes a cgroup, with its parents, in every hierarchy of v1 and in
// v2's. One of cpusets has no processors until it is given its parent's.
func makeCgroups(cgroup string) error {
	const hierarchies = "/sys/fs/cgroup"
	roots := []string{hierarchies}
	if _, err := os.Stat(filepath.Join(hierarchies, "cgroup.controllers")); err != nil {
		if roots, err = filepath.Glob(hierarchies + "/*/cgroup.procs"); err != nil {
			return err
		}
		for i := range roots {
			roots[i] = filepath.Dir(roots[i])
		}
	}
	for _, root := range roots {
		folder := root
		for _, part := range strings.Split(strings.Trim(cgroup, "/"), "/") {
			parent := folder
			folder = filepath.Join(folder, part)
			if err := os.MkdirAll(folder, 0o755); err != nil {
				return fmt.Errorf("make cgroup: %w", err)
			}
			for _, file := range []string{"cpuset.cpus", "cpuset.mems"} {
				given, err := os.ReadFile(filepath.Join(parent, file))
				if errors.Is(err, os.ErrNotExist) || filepath.Base(root) != "cpuset" {
					continue
				}
				if err == nil {
					err = os.WriteFile(filepath.Join(folder, file), given, 0o644)
				}
				if err != nil {
					return fmt.Errorf("make cgroup: %w", err)
				}
			}
		}
	}
	return nil
}
