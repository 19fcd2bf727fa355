package main

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// rootParameter of the kernel's command line names the disk with the system to
// start; without it there is none, and the RAM disk is the system.
const rootParameter = "machine.root="

// service is where the system on a disk has this program.
const service = "/usr/local/sbin/skiff-guest"

// diskOf reads the parameter.
func diskOf(commandLine string) string {
	for _, word := range strings.Fields(commandLine) {
		if disk, found := strings.CutPrefix(word, rootParameter); found {
			return disk
		}
	}
	return ""
}

// enter starts the system on a disk in place of this process. It returns with
// an error only.
func enter(disk string) error {
	const at = "/disk"
	if err := os.MkdirAll(at, 0o755); err != nil {
		return fmt.Errorf("start the system on %s: %w", disk, err)
	}
	var err error
	// The kernel finds disks a moment after their module is loaded.
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		if err = unix.Mount(disk, at, "ext4", 0, ""); err == nil {
			break
		}
		if !errors.Is(err, unix.ENOENT) || time.Now().After(deadline) {
			return fmt.Errorf("mount %s: %w", disk, err)
		}
	}
	// The one that is a service there is always as new as this one.
	program, err := os.ReadFile("/proc/self/exe")
	if err == nil {
		err = os.WriteFile(at+service, program, 0o755)
	}
	if err != nil {
		return fmt.Errorf("bring the guest to %s: %w", disk, err)
	}
	for _, each := range []string{"/dev", "/proc", "/sys"} {
		if err := unix.Mount(each, at+each, "", unix.MS_MOVE, ""); err != nil {
			return fmt.Errorf("move %s to the system on %s: %w", each, disk, err)
		}
	}
	err = errors.Join(unix.Chdir(at), unix.Mount(".", "/", "", unix.MS_MOVE, ""), unix.Chroot("."), unix.Chdir("/"))
	if err != nil {
		return fmt.Errorf("change to the system on %s: %w", disk, err)
	}
	return fmt.Errorf("start the system on %s: %w", disk, unix.Exec("/sbin/init", []string{"/sbin/init"}, []string{"TERM=linux"}))
}
