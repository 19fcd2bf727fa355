package agent_test

import (
	"golang.org/x/sys/unix"
)

// mountTmpfs mounts a file system whose mounts are passed on.
func mountTmpfs(dir string) error {
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "mode=755"); err != nil {
		return err
	}
	return unix.Mount("", dir, "", unix.MS_SHARED, "")
}

func unmount(dir string) error { return unix.Unmount(dir, unix.MNT_DETACH) }
