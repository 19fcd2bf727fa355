package volume

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"syscall"

	v1 "k8s.io/api/core/v1"
)

// fsGroup is the group that owns the pod's volumes, or nil.
func fsGroup(pod *v1.Pod) *int64 {
	if pod.Spec.SecurityContext == nil {
		return nil
	}
	return pod.Spec.SecurityContext.FSGroup
}

// changePolicy says when a volume that keeps its content is given to the group.
func changePolicy(pod *v1.Pod) v1.PodFSGroupChangePolicy {
	if c := pod.Spec.SecurityContext; c != nil && c.FSGroupChangePolicy != nil {
		return *c.FSGroupChangePolicy
	}
	return v1.FSGroupChangeAlways
}

// Bits of files and directories that the group gets.
const (
	groupWrites fs.FileMode = 0o660
	groupReads  fs.FileMode = 0o440
	groupEnters fs.FileMode = 0o110
)

// setOwnership gives everything in dir to the group: readable, and writable unless
// readOnly; new files inherit the group. The directory itself is last, so that with
// OnRootMismatch a change that was cut short is taken up again. No link leads the
// walk out of the volume, whatever a container does meanwhile.
func setOwnership(dir string, group *int64, readOnly bool, policy v1.PodFSGroupChangePolicy) error {
	if group == nil || policy == v1.FSGroupChangeOnRootMismatch && owned(dir, *group, readOnly) {
		return nil
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return fmt.Errorf("open the volume: %w", err)
	}
	defer root.Close()
	return giveTree(root, ".", int(*group), readOnly)
}

// owned reports whether the directory itself is as setOwnership leaves it.
func owned(dir string, group int64, readOnly bool) bool {
	info, err := os.Stat(dir)
	if err != nil || !info.IsDir() {
		return false
	}
	stat, ok := info.Sys().(*syscall.Stat_t)
	wanted := groupBits(readOnly) | groupEnters
	return ok && int64(stat.Gid) == group && info.Mode().Perm()&wanted == wanted && info.Mode()&fs.ModeSetgid != 0
}

func groupBits(readOnly bool) fs.FileMode {
	if readOnly {
		return groupReads
	}
	return groupWrites
}

func giveTree(root *os.Root, name string, group int, readOnly bool) error {
	info, err := root.Lstat(name)
	if errors.Is(err, fs.ErrNotExist) {
		// A container that shares the volume removed it meanwhile.
		return nil
	}
	if err != nil {
		return fmt.Errorf("set the group of %s: %w", name, err)
	}
	if info.IsDir() {
		entries, err := fs.ReadDir(root.FS(), name)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("set the group of what is in %s: %w", name, err)
		}
		for _, e := range entries {
			if err := giveTree(root, path.Join(name, e.Name()), group, readOnly); err != nil {
				return err
			}
		}
	}
	if err := root.Lchown(name, -1, group); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("set the group of %s: %w", name, err)
	}
	if info.Mode()&fs.ModeSymlink != 0 {
		// A link has no mode of its own.
		return nil
	}
	mode := info.Mode() | groupBits(readOnly)
	if info.IsDir() {
		mode |= fs.ModeSetgid | groupEnters
	}
	if err := root.Chmod(name, mode&(fs.ModePerm|fs.ModeSetuid|fs.ModeSetgid|fs.ModeSticky)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("set the mode of %s: %w", name, err)
	}
	return nil
}

// commonUser is the user all containers run as, or nil when they differ.
func commonUser(pod *v1.Pod) *int64 {
	var user *int64
	seen := false
	same := true
	visit := func(c *v1.SecurityContext) {
		var own *int64
		if pod.Spec.SecurityContext != nil {
			own = pod.Spec.SecurityContext.RunAsUser
		}
		if c != nil && c.RunAsUser != nil {
			own = c.RunAsUser
		}
		if own == nil || (seen && (user == nil || *user != *own)) {
			same = false
		}
		user, seen = own, true
	}
	for i := range pod.Spec.InitContainers {
		visit(pod.Spec.InitContainers[i].SecurityContext)
	}
	for i := range pod.Spec.Containers {
		visit(pod.Spec.Containers[i].SecurityContext)
	}
	for i := range pod.Spec.EphemeralContainers {
		visit(pod.Spec.EphemeralContainers[i].SecurityContext)
	}
	if !same {
		return nil
	}
	return user
}
