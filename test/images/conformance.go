package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// suite is what Kubernetes' conformance tests run in pods, made of the
// programs that test/conformance/build.sh left in a folder.
type suite struct {
	// programs is the folder of the suite's own programs.
	programs string
	// sources is the folder of Kubernetes' module, for pages and keys.
	sources string
}

// images are those of `e2e.test --list-images` that conformance tests run, by
// the names they have there without the registry's host. test/conformance/README.md
// says which are missing.
func (s suite) images(environment []string) []image {
	of := func(root func(context.Context, string) error, config v1.Config, names ...string) image {
		config.Env = environment
		return image{names: names, root: root, config: config}
	}
	agnhost := v1.Config{Entrypoint: []string{"/agnhost"}, Cmd: []string{"pause"}}
	page := v1.Config{Entrypoint: []string{"/agnhost"}, Cmd: []string{"test-webserver"}}
	nginxConfig := v1.Config{Cmd: []string{"nginx", "-g", "daemon off;"}, StopSignal: "SIGQUIT", ExposedPorts: map[string]struct{}{"80/tcp": {}}}
	return []image{
		of(s.agnhost, agnhost, "e2e-test-images/agnhost:2.66.1", "e2e-test-images/agnhost:2.55"),
		of(shell, v1.Config{Cmd: []string{"sh"}}, "e2e-test-images/busybox:1.37.0-2"),
		of(nginx, nginxConfig, "e2e-test-images/nginx:1.27.0-2", "e2e-test-images/nginx:1.28.0-2"),
		of(s.page("kitten"), page, "e2e-test-images/kitten:1.8"),
		of(s.page("nautilus"), page, "e2e-test-images/nautilus:1.8"),
		of(pause, v1.Config{Entrypoint: []string{"/pause"}, User: "65535:65535"}, "pause:3.10.2"),
		of(shell, v1.Config{Cmd: []string{"sh"}, User: "1234"}, "e2e-test-images/nonroot:1.5"),
		of(s.noNewPrivileges, v1.Config{Cmd: []string{"nnp"}}, "e2e-test-images/nonewprivs:1.4"),
		of(debian("util-linux"), v1.Config{Cmd: []string{"sh"}}, "e2e-test-images/ipc-utils:1.4"),
		of(debian("bind9-dnsutils", "libc-bin"), v1.Config{Cmd: []string{"sh"}}, "e2e-test-images/glibc-dns-testing:2.1.1"),
		of(debian("perl-base"), v1.Config{Cmd: []string{"perl", "-de0"}}, "e2e-test-images/perl:5.26"),
		of(s.resourceConsumer, v1.Config{Entrypoint: []string{"/consumer"}, ExposedPorts: map[string]struct{}{"8080/tcp": {}}}, "e2e-test-images/resource-consumer:1.14"),
		of(s.program("regression-issue-74839", "regression-issue-74839"), v1.Config{Entrypoint: []string{"/regression-issue-74839"}}, "e2e-test-images/regression-issue-74839:1.5"),
		of(s.program("sample-apiserver", "sample-apiserver"), v1.Config{Entrypoint: []string{"/sample-apiserver"}}, "e2e-test-images/sample-apiserver:1.29.2"),
		of(etcd, v1.Config{Entrypoint: []string{"/usr/local/bin/etcd"}}, "etcd:3.7.0-0"),
	}
}

// agnhost is the suite's program for nearly everything, with the tools that
// tests call beside it, and the users and groups its image is known for.
func (s suite) agnhost(ctx context.Context, root string) error {
	tools := debian("bash", "curl", "bind9-dnsutils", "libc-bin", "netcat-openbsd", "iproute2", "socat", "util-linux")
	if err := tools(ctx, root); err != nil {
		return err
	}
	if err := s.program("agnhost", "agnhost")(ctx, root); err != nil {
		return err
	}
	for _, file := range []string{"localhost.crt", "localhost.key"} {
		if err := copyFile(filepath.Join(s.sources, "test/images/agnhost/porter", file), filepath.Join(root, file), 0o644); err != nil {
			return err
		}
	}
	return errors.Join(
		os.Symlink("agnhost", filepath.Join(root, "agnhost-2")),
		os.Symlink("/bin/nc.openbsd", filepath.Join(root, "usr/bin/nc")),
		os.MkdirAll(filepath.Join(root, "uploads"), 0o755),
		appendTo(filepath.Join(root, "etc/passwd"), "user-defined-in-image:x:1000:1000::/home/user-defined-in-image:/bin/sh\n"),
		appendTo(filepath.Join(root, "etc/group"), "user-defined-in-image:x:1000:\ngroup-defined-in-image:x:50000:user-defined-in-image\n"),
	)
}

// page is agnhost serving the files that tell one picture from another. A test
// that mounts it looks for the system that the suite's own image is made of.
func (s suite) page(name string) func(context.Context, string) error {
	return func(ctx context.Context, root string) error {
		if err := s.program("agnhost", "agnhost")(ctx, root); err != nil {
			return err
		}
		html := filepath.Join(s.sources, "test/images", name, "html")
		return errors.Join(
			os.WriteFile(filepath.Join(root, "etc/os-release"), []byte("NAME=\"Alpine Linux\"\nID=alpine\n"), 0o644),
			copyFile(filepath.Join(html, "data.json"), filepath.Join(root, "data.json"), 0o644),
			copyFile(filepath.Join(html, name+".jpg"), filepath.Join(root, name+".jpg"), 0o644),
		)
	}
}

// program is a root file system with one of the suite's programs at a path.
func (s suite) program(name, path string) func(context.Context, string) error {
	return func(_ context.Context, root string) error {
		if err := skeleton(root); err != nil {
			return err
		}
		return copyFile(filepath.Join(s.programs, name), filepath.Join(root, path), 0o755)
	}
}

// noNewPrivileges has a program that runs as root whoever starts it, unless
// that is forbidden.
func (s suite) noNewPrivileges(ctx context.Context, root string) error {
	if err := shell(ctx, root); err != nil {
		return err
	}
	path := filepath.Join(root, "usr/local/bin/nnp")
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	return errors.Join(copyFile(filepath.Join(s.programs, "nonewprivs"), path, 0o755), os.Chmod(path, 0o755|os.ModeSetuid|os.ModeSetgid))
}

// resourceConsumer uses as much processor time and memory as it is told to.
func (s suite) resourceConsumer(ctx context.Context, root string) error {
	if err := debian("stress")(ctx, root); err != nil {
		return err
	}
	return errors.Join(
		copyFile(filepath.Join(s.programs, "resource-consumer"), filepath.Join(root, "consumer"), 0o755),
		copyFile(filepath.Join(s.programs, "consume-cpu"), filepath.Join(root, "consume-cpu"), 0o755),
	)
}

// etcd is Debian's, where the suite looks for one.
func etcd(ctx context.Context, root string) error {
	if err := debian("etcd-server")(ctx, root); err != nil {
		return err
	}
	return errors.Join(os.MkdirAll(filepath.Join(root, "usr/local/bin"), 0o755), os.Symlink("/usr/bin/etcd", filepath.Join(root, "usr/local/bin/etcd")))
}

// pause waits to be ended.
func pause(ctx context.Context, root string) error {
	if err := skeleton(root); err != nil {
		return err
	}
	return build(ctx, filepath.Join(root, "pause"), "github.com/skiff-run/skiff/test/images/pause")
}

// shell is busybox, with bash as the sh that is found first: Debian's ash loses
// the environment variables whose names are no identifiers, which pods may have.
// /bin/sh stays ash, whose words tests compare.
func shell(ctx context.Context, root string) error {
	if err := busybox(ctx, root); err != nil {
		return err
	}
	unpacked, err := os.MkdirTemp("", "skiff-bash-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(unpacked)
	if err := packages(ctx, unpacked, "bash-static"); err != nil {
		return err
	}
	dir := filepath.Join(root, "usr/local/bin")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	return copyFile(filepath.Join(unpacked, "bin/bash-static"), filepath.Join(dir, "sh"), 0o755)
}

// debian is shell and Debian packages with all they depend on.
func debian(names ...string) func(ctx context.Context, root string) error {
	return func(ctx context.Context, root string) error {
		if err := shell(ctx, root); err != nil {
			return err
		}
		return withDependencies(ctx, root, names...)
	}
}

func copyFile(from, to string, mode os.FileMode) error {
	data, err := os.ReadFile(from)
	if err != nil {
		return fmt.Errorf("copy to %s: %w", to, err)
	}
	if err := os.WriteFile(to, data, mode); err != nil {
		return fmt.Errorf("copy %s: %w", from, err)
	}
	// Whatever the umask is.
	return os.Chmod(to, mode)
}

func appendTo(path, text string) error {
	file, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = file.WriteString(text)
	return errors.Join(err, file.Close())
}
