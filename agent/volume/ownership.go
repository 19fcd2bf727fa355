package volume

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	v1 "k8s.io/api/core/v1"
)

// fsGroup is the group that owns the pod's volumes, or nil.
func fsGroup(pod *v1.Pod) *int64 {
	if pod.Spec.SecurityContext == nil {
		return nil
	}
	return pod.Spec.SecurityContext.FSGroup
}

// setOwnership gives everything in dir to the group: readable, and writable
// unless readOnly; new files inherit the group.
func setOwnership(dir string, group *int64, readOnly bool) error {
	if group == nil {
		return nil
	}
	return filepath.WalkDir(dir, func(p string, entry fs.DirEntry, err error) error {
		if err != nil {
			return fmt.Errorf("set the group of %s: %w", p, err)
		}
		info, err := entry.Info()
		if err != nil {
			return fmt.Errorf("set the group of %s: %w", p, err)
		}
		if err := os.Lchown(p, -1, int(*group)); err != nil {
			return fmt.Errorf("set the group of %s: %w", p, err)
		}
		if info.Mode()&fs.ModeSymlink != 0 {
			// A link has no mode of its own.
			return nil
		}
		mode := info.Mode() | 0o660
		if readOnly {
			mode = info.Mode() | 0o440
		}
		if info.IsDir() {
			mode |= fs.ModeSetgid | 0o110
		}
		if err := os.Chmod(p, mode); err != nil {
			return fmt.Errorf("set the mode of %s: %w", p, err)
		}
		return nil
	})
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
