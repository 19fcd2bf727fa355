package machines

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
)

// starterModules are what the first process of a RAM disk made by Starter loads:
// the kernel has ext4 built in, the rest comes with the disk.
const starterModules = "virtio_pci virtio_blk"

// starterInit mounts the first disk and hands over to the system on it. Where
// that fails the kernel says so on the console, and the machine stands still.
const starterInit = `#!/bin/busybox sh
PATH=/bin
busybox mount -t proc proc /proc
busybox mount -t sysfs sysfs /sys
busybox mount -t devtmpfs devtmpfs /dev
busybox modprobe -a ` + starterModules + `
until [ -b /dev/vda ]; do busybox usleep 10000; done
busybox mount -t ext4 /dev/vda /disk || exit 1
for each in dev proc sys; do busybox mount -o move /$each /disk/$each; done
exec busybox switch_root /disk /sbin/init
`

// Starter writes a RAM disk for a kernel that Kernel unpacked. It starts the
// system on the machine's first disk, and has nothing but what that takes.
func Starter(kernel, path string) error {
	var content bytes.Buffer
	a := newArchive(&content)
	busybox, err := exec.LookPath("busybox")
	if err != nil {
		return fmt.Errorf("make RAM disk: %w: hack/deps.sh --machines installs it", err)
	}
	program, err := os.ReadFile(busybox)
	if err != nil {
		return fmt.Errorf("make RAM disk: %w", err)
	}
	errs := []error{a.file("init", 0o755, []byte(starterInit)), a.file("bin/busybox", 0o755, program), a.link("lib", "usr/lib")}
	for _, name := range []string{"dev", "proc", "sys", "disk"} {
		errs = append(errs, a.folder(name))
	}
	errs = append(errs, a.modules(kernel, "drivers/virtio", "drivers/block/virtio_blk.ko"), a.writer.Close())
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("make RAM disk: %w", err)
	}
	if err := os.WriteFile(path, content.Bytes(), 0o600); err != nil {
		return fmt.Errorf("make RAM disk: %w", err)
	}
	return nil
}
