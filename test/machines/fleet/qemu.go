package fleet

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/skiff-run/skiff/test/machines"
)

// QEMU is the kind of machines that are virtual ones with Debian's cloud kernel:
// pure cgroup v2, every module of the kernel, and a clock of their own. QEMU
// emulates their processors, so they need no KVM and are slow.
type QEMU struct {
	// CPUs and Memory, in MiB, of each machine; 0 is one, and 2048. More CPUs than this
	// computer has slow each other down: one waits for a lock whose holder does not run.
	CPUs, Memory int
}

// idle are units of Debian's that would only make a slow machine slower: they
// update and clean what lives for an hour.
var idle = []string{"apt-daily.timer", "apt-daily-upgrade.timer", "dpkg-db-backup.timer", "e2scrub_all.timer", "e2scrub_reap.service", "fstrim.timer"}

// quicker are kernel parameters for emulated processors. Their time stamp counter
// is this computer's, which the kernel would not believe; to ask the only other
// clock takes a system call and a lock of QEMU's.
const quicker = "tsc=reliable clocksource=tsc mitigations=off"

// Install copies the base's disk, with the modules of the kernel.
func (QEMU) Install(ctx context.Context, _ *Fleet, m *Machine, seed func(root string) error) (err error) {
	base, err := script(ctx, "base.sh")
	if err != nil {
		return err
	}
	kernel, err := machines.Kernel(ctx)
	if err != nil {
		return err
	}
	disk, root := filepath.Join(m.folder, "disk.ext4"), filepath.Join(m.folder, "root")
	err = errors.Join(
		os.Symlink(filepath.Join(kernel, "vmlinuz"), filepath.Join(m.folder, "vmlinuz")),
		machines.Starter(kernel, filepath.Join(m.folder, "initrd")),
		run(exec.CommandContext(ctx, "cp", "--sparse=always", base, disk)),
		os.MkdirAll(root, 0o755),
	)
	if err != nil {
		return err
	}
	if err := run(exec.CommandContext(ctx, "mount", "-o", "loop,noatime", disk, root)); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, run(exec.CommandContext(context.WithoutCancel(ctx), "umount", root))) }()
	if err := run(exec.CommandContext(ctx, "cp", "-a", filepath.Join(kernel, "lib/modules"), filepath.Join(root, "usr/lib/"))); err != nil {
		return err
	}
	if err := run(exec.CommandContext(ctx, "systemctl", append([]string{"--root=" + root, "--quiet", "mask"}, idle...)...)); err != nil {
		return err
	}
	return errors.Join(
		os.WriteFile(filepath.Join(root, "etc/fstab"), []byte("/dev/vda / ext4 defaults,noatime 0 1\n"), 0o644),
		seed(root),
	)
}

// Power returns the machine's switch.
func (q QEMU) Power(f *Fleet, m *Machine) Power {
	if q.CPUs == 0 {
		q.CPUs = 1
	}
	if q.Memory == 0 {
		q.Memory = 2048
	}
	last := m.Address.As4()[3]
	return qemu{
		folder: m.folder, namespace: f.Namespace, card: "vb-" + f.Name + "-" + m.Name, mac: fmt.Sprintf("52:54:00:38:00:%02x", last),
		cpus: q.CPUs, memory: q.Memory,
	}
}

type qemu struct {
	folder, namespace, card, mac string
	cpus, memory                 int
}

// On starts QEMU, which restarts the machine by itself when its system reboots.
func (q qemu) On(ctx context.Context) error {
	if pid, err := q.process(); err != nil || pid != 0 {
		return errors.Join(fmt.Errorf("the machine is on already: process %d", pid), err)
	}
	inside := func(program string, arguments ...string) *exec.Cmd {
		return exec.CommandContext(ctx, "nsenter", append([]string{"--net=" + q.namespace, "--", program}, arguments...)...)
	}
	if run(inside("ip", "link", "show", q.card)) != nil {
		for _, line := range []string{
			"tuntap add dev " + q.card + " mode tap",
			"link set " + q.card + " master br0 up",
		} {
			if err := run(inside("ip", strings.Fields(line)...)); err != nil {
				return fmt.Errorf("plug the machine in: %w", err)
			}
		}
	}
	at := func(name string) string { return filepath.Join(q.folder, name) }
	return outlive(q.folder, exec.Command("nsenter", "--net="+q.namespace, "--", "qemu-system-x86_64",
		"-accel", "tcg,thread=multi", "-cpu", "max,la57=off", "-smp", strconv.Itoa(q.cpus), "-m", strconv.Itoa(q.memory),
		"-nodefaults", "-no-user-config", "-display", "none", "-pidfile", at("pid"),
		"-kernel", at("vmlinuz"), "-initrd", at("initrd"), "-append", "console=ttyS0 quiet systemd.show_status=0 "+quicker,
		"-chardev", "file,id=console,append=on,path="+at("console"), "-serial", "chardev:console",
		"-device", "virtio-rng-pci",
		// What a machine writes survives its plug, not this computer's.
		"-drive", "if=virtio,cache=unsafe,format=raw,file="+at("disk.ext4"),
		"-netdev", "tap,id=net,script=no,downscript=no,ifname="+q.card, "-device", "virtio-net-pci,netdev=net,mac="+q.mac))
}

// endLimit is how long a QEMU that was killed may take to end.
const endLimit = 10 * time.Second

// Off kills QEMU and waits until it is gone.
func (q qemu) Off() error {
	pid, err := q.process()
	if err != nil || pid == 0 {
		return err
	}
	process, err := unix.PidfdOpen(pid, 0)
	if errors.Is(err, unix.ESRCH) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("find process %d: %w", pid, err)
	}
	defer unix.Close(process)
	if err := unix.PidfdSendSignal(process, unix.SIGKILL, nil, 0); err != nil && !errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("kill process %d: %w", pid, err)
	}
	wait := []unix.PollFd{{Fd: int32(process), Events: unix.POLLIN}} // readable when it has ended
	for deadline := time.Now().Add(endLimit); ; {
		n, err := unix.Poll(wait, int(max(0, time.Until(deadline).Milliseconds())))
		switch {
		case n > 0:
			return nil
		case err != nil && !errors.Is(err, unix.EINTR):
			return fmt.Errorf("wait for the end of process %d: %w", pid, err)
		case !time.Now().Before(deadline):
			return fmt.Errorf("process %d does not end", pid)
		}
	}
}

// process is the machine's QEMU; 0 if it is off. The file may name a process
// that is gone, and even one that is somebody else's by now.
func (q qemu) process() (int, error) {
	file := filepath.Join(q.folder, "pid")
	content, err := os.ReadFile(file)
	if errors.Is(err, os.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(content)))
	if err != nil {
		return 0, nil // it is just being written
	}
	line, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "cmdline"))
	if err != nil || !strings.Contains(string(line), file+"\x00") {
		return 0, nil
	}
	return pid, nil
}

// Console is the end of what the machine printed on its console.
func (q qemu) Console() string { return console(q.folder) }
