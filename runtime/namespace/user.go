package namespace

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"syscall"

	"golang.org/x/sys/unix"
)

// Mapping of a user namespace: its users and groups 0 to Size-1 are HostID and
// the following ones outside.
type Mapping struct {
	HostID uint32 `json:"hostID"`
	Size   uint32 `json:"size"`
}

// createForUsers makes the namespaces in a user namespace of their own, which
// then owns them. A process of many threads cannot make one for itself, so
// another is started in them, held until they are pinned, and killed.
func createForUsers(o Options) error {
	ids := []syscall.SysProcIDMap{{ContainerID: 0, HostID: int(o.Users.HostID), Size: int(o.Users.Size)}}
	flags := uintptr(0)
	for _, kind := range o.Kinds {
		flags |= uintptr(cloneFlags[kind])
	}
	// Handed over open: who has no name outside may not reach its folder.
	program, err := os.Open(o.Holder)
	if err != nil {
		return fmt.Errorf("program that holds namespaces: %w", err)
	}
	defer program.Close()
	holder := exec.Command("/proc/self/fd/3")
	holder.ExtraFiles = []*os.File{program}
	holder.SysProcAttr = &syscall.SysProcAttr{Cloneflags: flags, UidMappings: ids, GidMappings: ids}
	if err := holder.Start(); err != nil {
		return fmt.Errorf("make namespaces %v: %w", o.Kinds, err)
	}
	defer func() {
		_ = holder.Process.Kill()
		_ = holder.Wait() // it was killed
	}()
	for _, kind := range o.Kinds {
		if err := pinFrom(fmt.Sprintf("/proc/%d/ns/%s", holder.Process.Pid, kind), kind, Path(o.Dir, kind)); err != nil {
			return err
		}
	}
	return onOwnThread(func() error {
		for _, kind := range o.Kinds {
			if kind == User {
				continue // whoever is root outside may do everything inside
			}
			if err := enter(Path(o.Dir, kind), kind); err != nil {
				return err
			}
		}
		return o.furnish()
	})
}

func enter(path string, kind Kind) error {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open namespace %s: %w", path, err)
	}
	defer unix.Close(fd)
	if err := unix.Setns(fd, cloneFlags[kind]); err != nil {
		return fmt.Errorf("enter namespace %s: %w", path, err)
	}
	return nil
}

// MapMount mounts source at target so that it belongs to the users of the user
// namespace pinned at users: what user 0 owns on the disk, root inside owns.
// target must exist.
func MapMount(source, target, users string) error {
	ns, err := unix.Open(users, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open namespace %s: %w", users, err)
	}
	defer unix.Close(ns)
	tree, err := unix.OpenTree(unix.AT_FDCWD, source, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_RECURSIVE)
	if err != nil {
		return fmt.Errorf("clone the mount of %s: %w", source, err)
	}
	defer unix.Close(tree)
	attributes := &unix.MountAttr{Attr_set: unix.MOUNT_ATTR_IDMAP, Userns_fd: uint64(ns)}
	err = unix.MountSetattr(tree, "", unix.AT_EMPTY_PATH|unix.AT_RECURSIVE, attributes)
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOSYS) {
		return fmt.Errorf("the file system of %s, or this kernel, has no ID-mapped mounts, which user namespaces (hostUsers: false) need: %w", source, err)
	}
	if err != nil {
		return fmt.Errorf("map the mount of %s: %w", source, err)
	}
	if err := unix.MoveMount(tree, "", unix.AT_FDCWD, target, unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
		return fmt.Errorf("mount %s at %s: %w", source, target, err)
	}
	// Seen by nobody else, whatever the source's peers are.
	return unix.Mount("", target, "", unix.MS_REC|unix.MS_PRIVATE, "")
}

// UserSupport says why pods cannot have user namespaces here, nil when they can.
func UserSupport() error {
	if _, err := os.Stat("/proc/self/ns/user"); err != nil {
		return errors.New("this kernel has no user namespaces")
	}
	if limit, err := os.ReadFile("/proc/sys/user/max_user_namespaces"); err == nil && string(limit) == "0\n" {
		return errors.New("user namespaces are switched off by the sysctl user.max_user_namespaces")
	}
	// Overlays on mapped layers came with 5.19, as did everything else that is needed before.
	var name unix.Utsname
	if err := unix.Uname(&name); err != nil {
		return fmt.Errorf("version of the kernel: %w", err)
	}
	var major, minor int
	if _, err := fmt.Sscanf(unix.ByteSliceToString(name.Release[:]), "%d.%d", &major, &minor); err != nil || major < 5 || major == 5 && minor < 19 {
		return fmt.Errorf("user namespaces of pods need kernel 5.19, this is %s", unix.ByteSliceToString(name.Release[:]))
	}
	return nil
}
