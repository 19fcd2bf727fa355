package machines

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// Programs are those of this machine that a small machine has besides busybox.
var Programs = []string{
	"bash", "ip", "ss", "nft", "ipset", "ipvsadm", "conntrack", "sysctl", "modprobe",
	"iptables", "iptables-save", "iptables-restore", "ip6tables", "ip6tables-save", "ip6tables-restore",
	"iptables-nft", "iptables-nft-save", "iptables-nft-restore", "ip6tables-nft", "ip6tables-nft-save", "ip6tables-nft-restore",
	"iptables-legacy", "iptables-legacy-save", "iptables-legacy-restore", "ip6tables-legacy", "ip6tables-legacy-save", "ip6tables-legacy-restore",
}

// modules are loaded when a small machine starts. Others are loaded by the
// kernel when they are needed.
var modules = []string{
	"virtio_pci", "virtio_console", "virtio_net", "virtio_blk",
	"overlay", "veth", "bridge", "br_netfilter", "sctp", "nf_tables", "nf_conntrack", "ip_set", "ip_tables", "ip6_tables",
}

// moduleFolders hold what a small machine may load, besides what that depends on.
var moduleFolders = []string{
	"net", "drivers/virtio", "drivers/net/veth.ko", "drivers/net/dummy.ko", "drivers/net/virtio_net.ko", "drivers/net/macvlan.ko", "drivers/net/vxlan",
	"drivers/block/virtio_blk.ko", "drivers/char/virtio_console.ko", "fs/overlayfs",
}

// Small makes the RAM disk of a small machine for a kernel that kernel.sh
// unpacked, and returns its path. It stays valid until the folder is removed.
func Small(ctx context.Context, kernel, folder string) (string, error) {
	var content bytes.Buffer
	a := newArchive(&content)
	if err := a.system(ctx, folder); err != nil {
		return "", fmt.Errorf("make RAM disk: %w", err)
	}
	if err := a.modules(kernel, moduleFolders...); err != nil {
		return "", fmt.Errorf("make RAM disk: %w", err)
	}
	if err := a.writer.Close(); err != nil {
		return "", fmt.Errorf("make RAM disk: %w", err)
	}
	path := filepath.Join(folder, "initrd")
	if err := os.WriteFile(path, content.Bytes(), 0o600); err != nil {
		return "", fmt.Errorf("make RAM disk: %w", err)
	}
	return path, nil
}

// system adds the first process and the programs.
func (a *archive) system(ctx context.Context, folder string) error {
	for _, top := range []string{"bin", "sbin", "lib", "lib64"} {
		if err := errors.Join(a.folder("usr/"+top), a.link(top, "usr/"+top)); err != nil {
			return err
		}
	}
	for _, name := range []string{"dev", "proc", "sys", "run", "tmp", "root", "var"} {
		if err := a.folder(name); err != nil {
			return err
		}
	}
	guest := filepath.Join(folder, "guest")
	if err := BuildGuest(ctx, guest); err != nil {
		return err
	}
	program, err := os.ReadFile(guest)
	if err != nil {
		return err
	}
	if err := errors.Join(
		a.file("init", 0o755, program),
		a.file("etc/modules", 0o644, []byte(strings.Join(modules, "\n")+"\n")),
		a.file("etc/passwd", 0o644, []byte("root:x:0:0:root:/root:/bin/sh\n")),
		a.file("etc/group", 0o644, []byte("root:x:0:\n")),
		a.file("etc/hosts", 0o644, []byte("127.0.0.1 localhost\n::1 localhost\n")),
	); err != nil {
		return err
	}
	for _, name := range Programs {
		path, err := exec.LookPath(name)
		if err != nil {
			return fmt.Errorf("%w: hack/deps.sh --machines installs it", err)
		}
		if err := a.copied(path); err != nil {
			return err
		}
	}
	// Not busybox, whose shell runs its own programs before those on the path.
	if err := a.link("usr/bin/sh", "bash"); err != nil {
		return err
	}
	// The rest of a userland. The names that the programs above have are theirs.
	if err := a.copied("/usr/bin/busybox"); err != nil {
		return err
	}
	names, err := exec.CommandContext(ctx, "busybox", "--list").Output()
	if err != nil {
		return fmt.Errorf("list the programs of busybox: %w", err)
	}
	for _, name := range strings.Fields(string(names)) {
		if !a.has["usr/sbin/"+name] && !a.has["usr/bin/"+name] {
			if err := a.link("usr/bin/"+name, "busybox"); err != nil {
				return err
			}
		}
	}
	return a.tree("/usr/lib/x86_64-linux-gnu/xtables", "/etc/protocols", "/etc/services", "/etc/ethertypes")
}

// tree adds files of this machine, and what folders hold. What is missing is left out.
func (a *archive) tree(paths ...string) error {
	for _, path := range paths {
		if err := filepath.WalkDir(path, func(path string, entry fs.DirEntry, err error) error {
			if errors.Is(err, fs.ErrNotExist) {
				return nil
			}
			if err != nil || entry.IsDir() {
				return err
			}
			return a.copied(path)
		}); err != nil {
			return err
		}
	}
	return nil
}

// modules adds those in some of the kernel's folders, or files, with what they need.
func (a *archive) modules(kernel string, folders ...string) error {
	releases, err := filepath.Glob(filepath.Join(kernel, "lib/modules/*"))
	if err != nil || len(releases) != 1 {
		return fmt.Errorf("%s holds no kernel with modules: remove it and run test/machines/kernel.sh again", kernel)
	}
	needs, err := dependencies(filepath.Join(releases[0], "modules.dep"))
	if err != nil {
		return err
	}
	within := "usr/lib/modules/" + filepath.Base(releases[0])
	var add func(module string) error
	add = func(module string) error {
		name := filepath.Join(within, module)
		if a.has[name] {
			return nil
		}
		content, err := os.ReadFile(filepath.Join(releases[0], module))
		if err != nil {
			return err
		}
		if err := a.file(name, 0o644, content); err != nil {
			return err
		}
		for _, other := range needs[module] {
			if err := add(other); err != nil {
				return err
			}
		}
		return nil
	}
	for module := range needs {
		for _, folder := range folders {
			if rest, below := strings.CutPrefix(module, "kernel/"+folder); below && (rest == "" || rest[0] == '/') {
				if err := add(module); err != nil {
					return err
				}
			}
		}
	}
	lists, err := filepath.Glob(filepath.Join(releases[0], "modules.*"))
	if err != nil {
		return err
	}
	for _, list := range lists {
		content, err := os.ReadFile(list)
		if err != nil {
			return err
		}
		if err := a.file(filepath.Join(within, filepath.Base(list)), 0o644, content); err != nil {
			return err
		}
	}
	return nil
}

// dependencies reads modules.dep: what each module needs.
func dependencies(path string) (map[string][]string, error) {
	content, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	needs := map[string][]string{}
	for _, line := range strings.Split(string(content), "\n") {
		if module, others, found := strings.Cut(line, ":"); found {
			needs[module] = strings.Fields(others)
		}
	}
	return needs, nil
}

// BuildGuest builds the program that serves inside a machine.
func BuildGuest(ctx context.Context, to string) error {
	command := exec.CommandContext(ctx, "go", "build", "-ldflags", "-s -w", "-o", to, "github.com/skiff-run/skiff/test/machines/guest")
	command.Env = append(os.Environ(), "CGO_ENABLED=0")
	if output, err := command.CombinedOutput(); err != nil {
		return fmt.Errorf("build the guest: %w: %s", err, output)
	}
	return nil
}
