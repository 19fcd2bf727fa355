package cgroup

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// tree is the cgroup filesystem of one version. Directories are given below the controllers' mounts.
type tree interface {
	unified() bool
	create(dir string) error
	write(dir string, r Resources) error
	exists(dir string) bool
	children(dir string) ([]string, error)
	// kill ends every process in dir and below and waits until they are gone.
	kill(ctx context.Context, dir string) error
	remove(ctx context.Context, dir string) error
	// removeEmpty removes dir where nothing is in it.
	removeEmpty(dir string)
	stats(dir string) (Stats, error)
	detail(dir string) (Detail, error)
	cpuTime(dir string) (uint64, error)
	oomKills(dir string) (uint64, error)
}

// treeV1 holds the mount of each controller.
type treeV1 map[string]string

// hybrid is the name under which treeV1 holds a v2 mount beside the controllers'.
const hybrid = "(unified)"

// podControllers are those in which a pod gets a directory of its own. The OCI
// runtime makes the others, with the pod's directory above, when a container starts.
var podControllers = []string{"cpu", "cpuacct", "memory", "pids", "hugetlb"}

func (t treeV1) unified() bool { return false }

func (t treeV1) create(dir string) error {
	for _, name := range podControllers {
		if mount, ok := t[name]; ok {
			if err := os.MkdirAll(filepath.Join(mount, dir), 0o755); err != nil {
				return err
			}
		}
	}
	return nil
}

func (t treeV1) write(dir string, r Resources) error {
	for _, w := range r.filesV1() {
		mount, ok := t[w.controller]
		if !ok {
			continue
		}
		if err := writeFile(filepath.Join(mount, dir, w.file), w.value); err != nil {
			return err
		}
	}
	return nil
}

func (t treeV1) exists(dir string) bool {
	for _, mount := range t {
		if _, err := os.Stat(filepath.Join(mount, dir)); err == nil {
			return true
		}
	}
	return false
}

func (t treeV1) children(dir string) ([]string, error) {
	return subdirs(filepath.Join(t["memory"], dir))
}

func (t treeV1) kill(ctx context.Context, dir string) error {
	return t.each(func(mount string) error { return killAll(ctx, filepath.Join(mount, dir)) })
}

func (t treeV1) remove(ctx context.Context, dir string) error {
	return t.each(func(mount string) error { return removeAll(ctx, filepath.Join(mount, dir)) })
}

func (t treeV1) removeEmpty(dir string) {
	for _, mount := range t {
		_ = unix.Rmdir(filepath.Join(mount, dir))
	}
}

// each calls f once per mount: several controllers may share one.
func (t treeV1) each(f func(mount string) error) error {
	done := map[string]bool{}
	for _, mount := range t {
		if done[mount] {
			continue
		}
		done[mount] = true
		if err := f(mount); err != nil {
			return err
		}
	}
	return nil
}

// treeV2 is the unified hierarchy.
type treeV2 struct{}

func (treeV2) unified() bool { return true }

// create makes dir and turns on, in every cgroup above, the controllers a pod needs.
func (treeV2) create(dir string) error {
	current := mountPoint
	for part := range strings.SplitSeq(strings.Trim(dir, "/"), "/") {
		if err := enableControllers(current); err != nil {
			return err
		}
		current = filepath.Join(current, part)
		if err := os.Mkdir(current, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
	}
	return enableControllers(current)
}

func enableControllers(dir string) error {
	available, err := os.ReadFile(filepath.Join(dir, "cgroup.controllers"))
	if err != nil {
		return err
	}
	enabled, err := os.ReadFile(filepath.Join(dir, "cgroup.subtree_control"))
	if err != nil {
		return err
	}
	on := strings.Fields(string(enabled))
	for _, want := range []string{"cpu", "cpuset", "memory", "pids", "io", "hugetlb"} {
		if contains(strings.Fields(string(available)), want) && !contains(on, want) {
			if err := writeFile(filepath.Join(dir, "cgroup.subtree_control"), "+"+want); err != nil {
				return err
			}
		}
	}
	return nil
}

func contains(list []string, s string) bool {
	for _, have := range list {
		if have == s {
			return true
		}
	}
	return false
}

func (treeV2) write(dir string, r Resources) error {
	for _, w := range r.filesV2() {
		if _, err := os.Stat(filepath.Join(mountPoint, dir, w.file)); w.controller == "hugetlb" && errors.Is(err, fs.ErrNotExist) {
			continue // the kernel has no such controller
		}
		if err := writeFile(filepath.Join(mountPoint, dir, w.file), w.value); err != nil {
			return err
		}
	}
	return nil
}

func (treeV2) exists(dir string) bool {
	_, err := os.Stat(filepath.Join(mountPoint, dir))
	return err == nil
}

func (treeV2) children(dir string) ([]string, error) { return subdirs(filepath.Join(mountPoint, dir)) }

func (treeV2) kill(ctx context.Context, dir string) error {
	// cgroup.kill exists since Linux 5.14 and leaves no race with forks; older kernels get the loop alone.
	_ = writeFile(filepath.Join(mountPoint, dir, "cgroup.kill"), "1")
	return killAll(ctx, filepath.Join(mountPoint, dir))
}

func (treeV2) remove(ctx context.Context, dir string) error {
	return removeAll(ctx, filepath.Join(mountPoint, dir))
}

func (treeV2) removeEmpty(dir string) { _ = unix.Rmdir(filepath.Join(mountPoint, dir)) }

// writeFile opens without O_CREAT: a cgroup file exists or the kernel lacks it.
func writeFile(name, value string) error {
	f, err := os.OpenFile(name, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = f.WriteString(value)
	return err
}

func subdirs(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var names []string
	for _, e := range entries {
		if e.IsDir() {
			names = append(names, e.Name())
		}
	}
	return names, nil
}

// tree order, deepest first.
func descend(dir string, visit func(dir string) error) error {
	names, err := subdirs(dir)
	if err != nil {
		return err
	}
	for _, name := range names {
		if err := descend(filepath.Join(dir, name), visit); err != nil {
			return err
		}
	}
	return visit(dir)
}

const patience = 10 * time.Second

// killAll repeats SIGKILL until no process is left: one may fork while the list is read.
func killAll(ctx context.Context, dir string) error {
	return retry(ctx, func() (bool, error) {
		left := 0
		err := descend(dir, func(d string) error {
			procs, err := os.ReadFile(filepath.Join(d, "cgroup.procs"))
			if err != nil {
				if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENODEV) || errors.Is(err, unix.EOPNOTSUPP) {
					return nil
				}
				return err
			}
			for line := range strings.FieldsSeq(string(procs)) {
				left++
				if pid, err := strconv.Atoi(line); err == nil && pid > 1 {
					_ = unix.Kill(pid, unix.SIGKILL)
				}
			}
			return nil
		})
		return left == 0, err
	})
}

// removeAll repeats rmdir: a cgroup stays busy until its last process is reaped.
func removeAll(ctx context.Context, dir string) error {
	return retry(ctx, func() (bool, error) {
		err := descend(dir, func(d string) error {
			if err := unix.Rmdir(d); err != nil && err != unix.ENOENT {
				return err
			}
			return nil
		})
		if errors.Is(err, unix.EBUSY) {
			return false, nil
		}
		return err == nil, err
	})
}

func retry(ctx context.Context, try func() (bool, error)) error {
	done, err := try()
	if done || err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	ticker := time.NewTicker(5 * time.Millisecond)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-ticker.C:
		}
		if done, err := try(); done || err != nil {
			return err
		}
	}
}
