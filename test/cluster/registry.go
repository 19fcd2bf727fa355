package cluster

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/skiff-run/skiff/internal/testenv"
)

const registryPort = 5000

// Images makes the test images once and returns the folder of a registry that
// holds them.
func Images(t testing.TB) string {
	t.Helper()
	testenv.RequireProgram(t, "docker-registry", "apt-get", "dpkg-deb")
	return images.get(t)
}

func makeImages(dir string) error {
	port, stop, err := serveRegistry(dir, 0, func(name string, arguments ...string) *exec.Cmd { return exec.Command(name, arguments...) })
	if err != nil {
		return err
	}
	defer stop()
	command := exec.Command("go", "run", "-trimpath", "github.com/skiff-run/skiff/test/images", "--registry", fmt.Sprintf("127.0.0.1:%d", port))
	if output, err := command.CombinedOutput(); err != nil {
		return fmt.Errorf("make images: %w\n%s", err, output)
	}
	return nil
}

// Registry runs a registry with the test images on the host's loopback and
// returns the folder of hosts.toml files that makes it stand in for docker.io.
func (h *Host) Registry() string {
	h.t.Helper()
	data := Images(h.t)
	_, stop, err := serveRegistry(data, registryPort, func(name string, arguments ...string) *exec.Cmd {
		return h.Command(context.Background(), name, arguments...)
	})
	if err != nil {
		h.t.Fatal(err)
	}
	h.t.Cleanup(stop)
	dir := h.t.TempDir()
	hosts := fmt.Sprintf("server = \"http://127.0.0.1:%[1]d\"\n[host.\"http://127.0.0.1:%[1]d\"]\n  capabilities = [\"pull\", \"resolve\"]\n", registryPort)
	if err := os.MkdirAll(filepath.Join(dir, "docker.io"), 0o755); err != nil {
		h.t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "docker.io", "hosts.toml"), []byte(hosts), 0o644); err != nil {
		h.t.Fatal(err)
	}
	return dir
}

// serveRegistry runs docker-registry on a port, a free one for 0, until stop is
// called. The address may lie in another network namespace, so readiness is
// what the registry's log says.
func serveRegistry(data string, port int, command func(string, ...string) *exec.Cmd) (int, func(), error) {
	if port == 0 {
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return 0, nil, err
		}
		port = listener.Addr().(*net.TCPAddr).Port
		listener.Close()
	}
	path := filepath.Join(data, fmt.Sprintf("config-%d-%d.yml", os.Getpid(), port))
	config := fmt.Sprintf("version: 0.1\nlog: {level: info}\nstorage: {filesystem: {rootdirectory: %s}}\nhttp: {addr: \"127.0.0.1:%d\"}\n", filepath.Join(data, "data"), port)
	if err := os.WriteFile(path, []byte(config), 0o600); err != nil {
		return 0, nil, err
	}
	logPath := path + ".log"
	log, err := os.Create(logPath)
	if err != nil {
		return 0, nil, err
	}
	defer log.Close()
	process := command("docker-registry", "serve", path)
	process.Stdout, process.Stderr = log, log
	process.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := process.Start(); err != nil {
		return 0, nil, fmt.Errorf("start registry: %w", err)
	}
	stop := func() {
		_ = syscall.Kill(-process.Process.Pid, syscall.SIGKILL)
		_ = process.Wait()
	}
	for deadline := time.Now().Add(30 * time.Second); ; {
		text, err := os.ReadFile(logPath)
		if err == nil && strings.Contains(string(text), "listening on") {
			return port, stop, nil
		}
		if time.Now().After(deadline) {
			stop()
			return 0, nil, fmt.Errorf("the registry does not listen:\n%s", text)
		}
		time.Sleep(20 * time.Millisecond)
	}
}
