// Package namespace makes the Linux namespaces of a pod without a process that
// lives in them, and pins them by bind mounts.
//
// In flow: a folder, the kinds wanted, a host name, kernel settings. Out flow: one
// file per namespace in the folder ("net", "ipc", "uts"), which containers join by
// path. The namespaces live until Remove, whatever becomes of the process that made
// them. It must not know pods or containers.
package namespace

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// Kind is a kind of namespace: the name of its file in /proc/PID/ns.
type Kind string

// The kinds a pod's containers share.
const (
	Net Kind = "net"
	IPC Kind = "ipc"
	UTS Kind = "uts"
	// User owns the others when a pod has users of its own.
	User Kind = "user"
)

var cloneFlags = map[Kind]int{Net: unix.CLONE_NEWNET, IPC: unix.CLONE_NEWIPC, UTS: unix.CLONE_NEWUTS, User: unix.CLONE_NEWUSER}

// Options describe what Create makes.
type Options struct {
	// Dir is the folder for the pins; it must exist.
	Dir string
	// Kinds to make.
	Kinds []Kind
	// Hostname of a new UTS namespace.
	Hostname string
	// Sysctls to set inside, by their dotted names.
	Sysctls map[string]string
	// Users of a new user namespace, when User is among the kinds.
	Users Mapping
	// Holder is a program that does nothing; it holds a new user namespace until it is pinned.
	Holder string
	// Inside runs in the new namespaces before they are pinned; nil for nothing.
	Inside func() error
}

// Path of the pin of a kind in a folder.
func Path(dir string, kind Kind) string { return filepath.Join(dir, string(kind)) }

// Create makes and pins the namespaces. When it fails no pin is left.
func Create(o Options) error {
	make := func() error { return onOwnThread(func() error { return create(o) }) }
	if slices.Contains(o.Kinds, User) {
		make = func() error { return createForUsers(o) }
	}
	if err := make(); err != nil {
		return errors.Join(err, Remove(o.Dir))
	}
	return nil
}

func create(o Options) error {
	flags := 0
	for _, kind := range o.Kinds {
		flags |= cloneFlags[kind]
	}
	if err := unix.Unshare(flags); err != nil {
		return fmt.Errorf("make namespaces %v: %w", o.Kinds, err)
	}
	if err := o.furnish(); err != nil {
		return err
	}
	for _, kind := range o.Kinds {
		if err := pinFrom(fmt.Sprintf("/proc/self/task/%d/ns/%s", unix.Gettid(), kind), kind, Path(o.Dir, kind)); err != nil {
			return err
		}
	}
	return nil
}

// furnish sets up the new namespaces from within.
func (o Options) furnish() error {
	if slices.Contains(o.Kinds, UTS) && o.Hostname != "" {
		if err := unix.Sethostname([]byte(o.Hostname)); err != nil {
			return fmt.Errorf("set host name %q: %w", o.Hostname, err)
		}
	}
	if o.Inside != nil {
		if err := o.Inside(); err != nil {
			return err
		}
	}
	// /proc/sys shows the namespaces of the thread that opens its files.
	set := func(own func(name string) bool) error {
		for name, value := range o.Sysctls {
			if !own(name) {
				continue
			}
			if err := os.WriteFile(sysctlPath(name), []byte(value), 0); err != nil {
				return fmt.Errorf("sysctl %s=%s: %w", name, value, err)
			}
		}
		return nil
	}
	network := func(name string) bool { return strings.HasPrefix(strings.ReplaceAll(name, "/", "."), "net.") }
	if err := set(network); err != nil {
		return err
	}
	if o.Users.Size > 0 {
		// The IPC namespace's settings are its root's alone. The thread ends with this.
		if _, _, err := unix.RawSyscall(unix.SYS_SETRESUID, ^uintptr(0), uintptr(o.Users.HostID), ^uintptr(0)); err != 0 {
			return fmt.Errorf("act as root of the user namespace: %w", err)
		}
	}
	return set(func(name string) bool { return !network(name) })
}

// sysctlPath turns a dotted name into its file. A name with slashes uses them as
// separators, and a dot then belongs to a link's name (net/ipv4/conf/eth0.1/...).
func sysctlPath(name string) string {
	if !strings.Contains(name, "/") {
		name = strings.ReplaceAll(name, ".", "/")
	}
	return filepath.Join("/proc/sys", filepath.Clean("/"+name))
}

func pinFrom(own string, kind Kind, path string) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_RDONLY, 0o444)
	if err != nil {
		return fmt.Errorf("pin %s namespace: %w", kind, err)
	}
	f.Close()
	if err := unix.Mount(own, path, "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("pin %s namespace at %s: %w", kind, path, err)
	}
	return nil
}

// onOwnThread runs f on a thread that ends with it, so that no other goroutine
// ever runs in the namespaces f enters. The main thread cannot end, and /proc/self
// shows its namespaces: when the scheduler gives us that one, it is held while
// another thread does the work.
func onOwnThread(f func() error) error {
	result := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		if unix.Gettid() == unix.Getpid() {
			result <- onOwnThread(f)
			runtime.UnlockOSThread()
			return
		}
		result <- f()
		// Returning without unlocking ends the thread.
	}()
	return <-result
}

// Do runs f in the namespace of a kind pinned at path.
func Do(path string, kind Kind, f func() error) error {
	return onOwnThread(func() error {
		if err := enter(path, kind); err != nil {
			return err
		}
		return f()
	})
}

// WithPrivateMounts runs f where what it mounts is seen by nobody else and goes
// away with it, also when the process is killed.
func WithPrivateMounts(f func() error) error {
	return onOwnThread(func() error {
		if err := unix.Unshare(unix.CLONE_FS | unix.CLONE_NEWNS); err != nil {
			return fmt.Errorf("make mount namespace: %w", err)
		}
		if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
			return fmt.Errorf("make mounts private: %w", err)
		}
		return f()
	})
}

// Pinned says whether a namespace is pinned at path. After a reboot the file may be there, but it is no pin.
func Pinned(path string) bool {
	var s unix.Statfs_t
	return unix.Statfs(path, &s) == nil && s.Type == unix.NSFS_MAGIC
}

// Remove takes away all pins in the folder. The namespaces end when the last process in them has. It may be repeated.
func Remove(dir string) error {
	var errs []error
	for kind := range cloneFlags {
		errs = append(errs, Unmount(Path(dir, kind)))
		if err := os.Remove(Path(dir, kind)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, fmt.Errorf("unpin %s namespace: %w", kind, err))
		}
	}
	return errors.Join(errs...)
}

// Unmount detaches what is mounted at path; nothing there is no error. Mounts can
// lie on one another when a start was repeated.
func Unmount(path string) error {
	for {
		err := unix.Unmount(path, unix.MNT_DETACH|unix.UMOUNT_NOFOLLOW)
		if err == unix.EINVAL || err == unix.ENOENT {
			return nil
		}
		if err != nil {
			return fmt.Errorf("unmount %s: %w", path, err)
		}
	}
}
