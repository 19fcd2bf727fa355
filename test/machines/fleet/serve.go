package fleet

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// registryPort is where the host serves images.
const registryPort = 5000

// Registry is the URL of the registry with the images of test/images, which
// stands in for docker.io.
func (f *Fleet) Registry() string { return fmt.Sprintf("http://%s:%d", f.HostAddress, registryPort) }

// AptSource is the apt source of what Publish published.
func (f *Fleet) AptSource() string {
	return fmt.Sprintf("deb [trusted=yes] http://%s/skiff ./", f.HostAddress)
}

// Publish adds packages to the apt repository that AptSource names.
func (f *Fleet) Publish(ctx context.Context, packages ...string) error {
	folder := filepath.Join(f.Folder, "www", "skiff")
	if err := os.MkdirAll(folder, 0o755); err != nil {
		return fmt.Errorf("publish packages: %w", err)
	}
	if err := run(exec.CommandContext(ctx, "cp", append(append([]string{"-f"}, packages...), folder)...)); err != nil {
		return fmt.Errorf("publish packages: %w", err)
	}
	scan := exec.CommandContext(ctx, "dpkg-scanpackages", "-m", ".")
	scan.Dir = folder
	index, err := output(scan)
	if err != nil {
		return fmt.Errorf("publish packages: %w", err)
	}
	if err := os.WriteFile(filepath.Join(folder, "Packages"), []byte(index), 0o644); err != nil {
		return fmt.Errorf("publish packages: %w", err)
	}
	return nil
}

// serve starts what the host serves: Debian's packages, ours, and images.
func (f *Fleet) serve(ctx context.Context) error {
	base, err := script(ctx, "base.sh")
	if err != nil {
		return err
	}
	debian, err := script(ctx, "packages.sh", base)
	if err != nil {
		return err
	}
	images, err := script(ctx, "images.sh")
	if err != nil {
		return err
	}
	www := filepath.Join(f.Folder, "www")
	config := filepath.Join(f.Folder, "registry.yml")
	text := fmt.Sprintf("version: 0.1\nlog: {level: warn}\nstorage: {filesystem: {rootdirectory: %s}}\nhttp: {addr: \"%s:%d\"}\n", images, f.HostAddress, registryPort)
	err = errors.Join(
		os.MkdirAll(filepath.Join(www, "skiff"), 0o755),
		os.WriteFile(filepath.Join(www, "skiff", "Packages"), nil, 0o644),
		os.Symlink(debian, filepath.Join(www, "debian")),
		os.WriteFile(config, []byte(text), 0o600),
	)
	if err != nil {
		return fmt.Errorf("serve the fleet: %w", err)
	}
	if err := f.daemon(ctx, "80", "busybox", "httpd", "-f", "-p", f.HostAddress.String()+":80", "-h", www); err != nil {
		return err
	}
	return f.daemon(ctx, fmt.Sprint(registryPort), "docker-registry", "serve", config)
}

// daemon starts a program at the host's end that runs until the fleet is down,
// and waits until it listens.
func (f *Fleet) daemon(ctx context.Context, port, program string, arguments ...string) error {
	path := filepath.Join(f.Folder, program+".log")
	log, err := os.Create(path)
	if err != nil {
		return fmt.Errorf("start %s: %w", program, err)
	}
	defer log.Close()
	command := f.Command(context.WithoutCancel(ctx), program, arguments...)
	command.Stdout, command.Stderr = log, log
	command.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := command.Start(); err != nil {
		return fmt.Errorf("start %s: %w", program, err)
	}
	ended := make(chan error, 1)
	go func() { ended <- command.Wait() }()
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	for {
		listening, err := output(f.Command(ctx, "ss", "-Hltn", "sport = :"+port))
		if err == nil && strings.TrimSpace(listening) != "" {
			return nil
		}
		said, _ := os.ReadFile(path)
		select {
		case err := <-ended:
			return fmt.Errorf("%s ended: %w\n%s", program, err, said)
		case <-ctx.Done():
			return fmt.Errorf("%s does not listen: %w\n%s", program, errors.Join(ctx.Err(), err), said)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// script runs one of this package's and returns the path that it prints.
func script(ctx context.Context, name string, arguments ...string) (string, error) {
	folder, err := output(exec.CommandContext(ctx, "go", "list", "-f", "{{.Dir}}", "github.com/skiff-run/skiff/test/machines/fleet"))
	if err != nil {
		return "", fmt.Errorf("find the sources: %w", err)
	}
	command := exec.CommandContext(ctx, filepath.Join(strings.TrimSpace(folder), name), arguments...)
	printed, err := output(command)
	if err != nil {
		return "", fmt.Errorf("%s: %w", name, err)
	}
	lines := strings.Fields(printed)
	if len(lines) == 0 {
		return "", fmt.Errorf("%s printed nothing", name)
	}
	return lines[len(lines)-1], nil
}
