package testenv

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// removeLimit is how long what a test left behind may resist: processes
	// that are killed take time to end, and their cgroups are busy until then.
	removeLimit = 30 * time.Second
	namespaces  = "/run/netns"
	cgroups     = "/sys/fs/cgroup"
)

// Traces are where a test leaves what outlives it when it is killed. A field
// that is empty leaves nothing.
type Traces struct {
	// Dir is a folder: it, mounts below it, and processes whose command lines
	// name something below it.
	Dir string
	// Cgroup, such as /name, in every hierarchy, and the processes in it.
	Cgroup string
	// Namespace is the name of a network namespace, and the processes in it.
	Namespace string
	// Others is a pattern of files and folders elsewhere, as filepath.Glob's.
	Others string
}

// Remove removes them all, whoever made them: only who holds their name (Claim)
// may call it. What is not there is fine.
func (r Traces) Remove() error {
	if !r.present() {
		return nil
	}
	var err error
	for deadline := time.Now().Add(removeLimit); ; time.Sleep(20 * time.Millisecond) {
		if err = r.remove(); err == nil || time.Now().After(deadline) {
			return err
		}
	}
}

// present says whether there is anything: a process always leaves one of these.
func (r Traces) present() bool {
	var paths []string
	if r.Dir != "" {
		paths = append(paths, r.Dir)
	}
	if r.Namespace != "" {
		paths = append(paths, filepath.Join(namespaces, r.Namespace))
	}
	return len(r.cgroups()) > 0 || len(r.others()) > 0 || slices.ContainsFunc(paths, func(path string) bool {
		_, err := os.Lstat(path)
		return err == nil
	})
}

func (r Traces) remove() error {
	if err := r.kill(); err != nil {
		return err
	}
	errs := []error{r.removeNamespace(), r.unmount()}
	if r.Dir != "" && errors.Join(errs...) == nil {
		errs = append(errs, os.RemoveAll(r.Dir))
	}
	for _, path := range r.others() {
		errs = append(errs, os.RemoveAll(path))
	}
	return errors.Join(append(errs, r.removeCgroups())...)
}

func (r Traces) others() []string {
	if r.Others == "" {
		return nil
	}
	found, _ := filepath.Glob(r.Others) // an error only means a bad pattern
	return found
}

// kill kills what still runs, and says so: the next time round it may be gone.
func (r Traces) kill() error {
	var namespace unix.Stat_t
	if r.Namespace == "" || unix.Stat(filepath.Join(namespaces, r.Namespace), &namespace) != nil {
		namespace = unix.Stat_t{}
	}
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return fmt.Errorf("list processes: %w", err)
	}
	var errs []error
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil || pid == os.Getpid() || !r.owns(filepath.Join("/proc", e.Name()), namespace) {
			continue
		}
		errs = append(errs, fmt.Errorf("process %d is left and does not end", pid))
		if err := unix.Kill(pid, unix.SIGKILL); err != nil && !errors.Is(err, unix.ESRCH) {
			errs = append(errs, fmt.Errorf("kill process %d: %w", pid, err))
		}
	}
	return errors.Join(errs...)
}

// owns says whether a process that is not dead already is one of ours. What
// cannot be read belongs to a process that is ending.
func (r Traces) owns(process string, namespace unix.Stat_t) bool {
	// A process that is just starting a program has no command line either.
	line, err := os.ReadFile(filepath.Join(process, "cmdline"))
	if err != nil || dead(process) {
		return false
	}
	if r.Dir != "" && bytes.Contains(line, []byte(r.Dir+"/")) {
		return true
	}
	var own unix.Stat_t
	if namespace.Ino != 0 && unix.Stat(filepath.Join(process, "ns/net"), &own) == nil && own.Ino == namespace.Ino && own.Dev == namespace.Dev {
		return true
	}
	if r.Cgroup == "" {
		return false
	}
	memberships, err := os.ReadFile(filepath.Join(process, "cgroup"))
	return err == nil && (bytes.Contains(memberships, []byte(":"+r.Cgroup+"/")) || bytes.Contains(memberships, []byte(":"+r.Cgroup+"\n")))
}

// dead says whether a process only waits for its parent to take note, or is gone.
func dead(process string) bool {
	stat, err := os.ReadFile(filepath.Join(process, "stat"))
	// 1234 (name) S ...: the name may hold parentheses.
	end := bytes.LastIndex(stat, []byte(") "))
	return err != nil || end < 0 || bytes.IndexByte([]byte("ZX"), stat[end+2]) >= 0
}

// removeNamespace also removes the file of a namespace that went with a
// restart of the machine: nothing is mounted on it.
func (r Traces) removeNamespace() error {
	if r.Namespace == "" {
		return nil
	}
	path := filepath.Join(namespaces, r.Namespace)
	if err := unix.Unmount(path, unix.MNT_DETACH); err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("unmount %s: %w", path, err)
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}

// unmount takes away every mount at or below the folder, the last one first.
func (r Traces) unmount() error {
	if r.Dir == "" {
		return nil
	}
	data, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return err
	}
	var points []string
	for scanner := bufio.NewScanner(bytes.NewReader(data)); scanner.Scan(); {
		fields := strings.Fields(scanner.Text())
		if len(fields) > 4 && (fields[4] == r.Dir || strings.HasPrefix(fields[4], r.Dir+"/")) {
			points = append(points, fields[4])
		}
	}
	slices.Reverse(points)
	var errs []error
	for _, point := range points {
		// The kernel writes blanks and backslashes of a path as \040 and the like.
		path, err := strconv.Unquote(`"` + strings.ReplaceAll(point, `"`, `\"`) + `"`)
		if err != nil {
			path = point
		}
		if err := unix.Unmount(path, unix.MNT_DETACH); err != nil && !errors.Is(err, unix.EINVAL) {
			errs = append(errs, fmt.Errorf("unmount %s: %w", path, err))
		}
	}
	return errors.Join(errs...)
}

// cgroups finds the cgroup in the only hierarchy of version 2, or in each of version 1.
func (r Traces) cgroups() []string {
	if r.Cgroup == "" {
		return nil
	}
	found, _ := filepath.Glob(filepath.Join(cgroups, "*", r.Cgroup)) // an error only means a bad pattern
	if _, err := os.Lstat(filepath.Join(cgroups, r.Cgroup)); err == nil {
		found = append(found, filepath.Join(cgroups, r.Cgroup))
	}
	return found
}

// removeCgroups removes them, the inner ones first.
func (r Traces) removeCgroups() error {
	var errs []error
	for _, root := range r.cgroups() {
		var folders []string
		err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
			if err == nil && d.IsDir() {
				folders = append(folders, path)
			}
			return nil // what is gone meanwhile is fine
		})
		errs = append(errs, err)
		slices.Reverse(folders)
		for _, folder := range folders {
			if err := unix.Rmdir(folder); err != nil && !errors.Is(err, unix.ENOENT) {
				errs = append(errs, fmt.Errorf("remove cgroup %s: %w", folder, err))
			}
		}
	}
	return errors.Join(errs...)
}
