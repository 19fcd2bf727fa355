package runtime_test

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	containerd "github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"

	"github.com/skiff-run/skiff/internal/testenv"
	"github.com/skiff-run/skiff/runtime"
	"github.com/skiff-run/skiff/runtime/network"
)

const testImage = "docker.io/library/busybox:test"

// daemon is a containerd of our own, with its own folders and socket.
type daemon struct {
	t      testing.TB
	dir    string
	bin    string // folder of its programs, "" for those on the PATH
	cmd    *exec.Cmd
	exited chan struct{}
}

func (d *daemon) program(name string) string { return filepath.Join(d.bin, name) }

func (d *daemon) socket() string { return filepath.Join(d.dir, "c.sock") }

// installs are the generations of containerd to test with, by name, and the
// folders of their programs: the machine's, and the one whose client we use,
// from the folder in SKIFF_TEST_CONTAINERD or built from its module.
func installs(t testing.TB) map[string]string {
	t.Helper()
	found := map[string]string{}
	if _, err := exec.LookPath("containerd"); err == nil {
		found["the machine's containerd"] = ""
	}
	if dir := os.Getenv("SKIFF_TEST_CONTAINERD"); dir != "" {
		found["the given containerd"] = dir
		return found
	}
	if os.Geteuid() != 0 {
		return found // the tests are skipped anyhow
	}
	const name = "containerd of the client's version"
	dir, err := builtContainerd()
	if err == nil {
		found[name] = dir
	} else if t, ok := t.(*testing.T); ok {
		t.Run(name, func(t *testing.T) { t.Skipf("needs the module proxy to build it: %v", err) })
	}
	return found
}

// builtContainerd returns the folder of containerd and its shim in the version
// of the client we use. They are built once for all runs.
var builtContainerd = sync.OnceValues(func() (string, error) {
	const module = "github.com/containerd/containerd/v2"
	output, err := exec.Command("go", "list", "-m", "-f", "{{.Version}}", module).Output()
	if err != nil {
		return "", fmt.Errorf("find the version of %s: %w", module, err)
	}
	version := strings.TrimSpace(string(output))
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", err
	}
	dir := filepath.Join(cache, "skiff-test", "containerd-"+version)
	if _, err := os.Stat(dir); err == nil {
		return dir, nil
	}
	if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil {
		return "", err
	}
	fresh, err := os.MkdirTemp(filepath.Dir(dir), "new-")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(fresh)
	build := exec.Command("go", "install", "-trimpath", "-tags", "no_btrfs,no_devmapper,no_zfs",
		module+"/cmd/containerd@"+version, module+"/cmd/containerd-shim-runc-v2@"+version)
	build.Env = append(os.Environ(), "GOBIN="+fresh, "CGO_ENABLED=0")
	if output, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build containerd %s: %w\n%s", version, err, output)
	}
	// Whole or not at all; another run may have been first.
	if err := os.Rename(fresh, dir); err != nil && !errors.Is(err, os.ErrExist) {
		return "", fmt.Errorf("keep containerd %s: %w", version, err)
	}
	return dir, nil
})

// startContainerd runs a containerd until the test ends and imports the test image.
func startContainerd(t testing.TB, bin string) *daemon {
	t.Helper()
	testenv.RequireRoot(t)
	testenv.RequireProgram(t, "runc", "busybox", "nft")
	// Not t.TempDir: the path of a socket has little room.
	dir, err := os.MkdirTemp("", "skiff-runtime-")
	if err != nil {
		t.Fatal(err)
	}
	// As the folders of a real containerd: users of pods pass through.
	if err := os.Chmod(dir, 0o711); err != nil {
		t.Fatal(err)
	}
	d := &daemon{t: t, dir: dir, bin: bin}
	t.Cleanup(d.remove)
	config := fmt.Sprintf(`version = 2
root = "%[1]s/root"
state = "%[1]s/state"
disabled_plugins = ["io.containerd.grpc.v1.cri", "io.containerd.cri.v1.runtime", "io.containerd.cri.v1.images", "io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.zfs", "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.aufs"]
[grpc]
  address = "%[1]s/c.sock"
[ttrpc]
  address = "%[1]s/t.sock"
`, dir)
	if err := os.WriteFile(filepath.Join(dir, "config.toml"), []byte(config), 0o644); err != nil {
		t.Fatal(err)
	}
	d.start()
	d.importImage(testImage, busybox(t))
	return d
}

func (d *daemon) start() {
	d.t.Helper()
	log, err := os.OpenFile(filepath.Join(d.dir, "log"), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		d.t.Fatal(err)
	}
	defer log.Close()
	name := "containerd"
	if d.bin != "" {
		name = d.program(name)
	}
	d.cmd = exec.Command(name, "--config", filepath.Join(d.dir, "config.toml"))
	d.cmd.Stdout, d.cmd.Stderr = log, log
	if d.bin != "" {
		d.cmd.Env = append(os.Environ(), "PATH="+d.bin+":"+os.Getenv("PATH"))
	}
	if err := d.cmd.Start(); err != nil {
		d.t.Fatal(err)
	}
	d.exited = make(chan struct{})
	go func() {
		_ = d.cmd.Wait()
		close(d.exited)
	}()
	testenv.Eventually(d.t, 20*time.Second, func() bool {
		_, err := os.Stat(d.socket())
		return err == nil
	}, "containerd has a socket")
}

func (d *daemon) kill() {
	_ = d.cmd.Process.Kill()
	<-d.exited
}

func (d *daemon) remove() {
	if d.t.Failed() {
		if log, err := os.ReadFile(filepath.Join(d.dir, "log")); err == nil {
			lines := strings.Split(string(log), "\n")
			d.t.Logf("containerd's last words:\n%s", strings.Join(lines[max(0, len(lines)-15):], "\n"))
		}
	}
	d.kill()
	if err := os.RemoveAll(d.dir); err != nil {
		d.t.Errorf("containerd left something mounted: %v", err)
	}
}

func (d *daemon) client() *containerd.Client {
	d.t.Helper()
	c, err := containerd.New(d.socket(), containerd.WithDefaultNamespace("k8s.io"))
	if err != nil {
		d.t.Fatal(err)
	}
	return c
}

func (d *daemon) importImage(ref string, image v1.Image) {
	d.t.Helper()
	c := d.client()
	defer c.Close()
	tag, err := name.NewTag(ref)
	if err != nil {
		d.t.Fatal(err)
	}
	reader, w := io.Pipe()
	go func() { w.CloseWithError(tarball.Write(tag, image, w)) }()
	ctx := namespaces.WithNamespace(context.Background(), "k8s.io")
	if _, err := c.Import(ctx, reader); err != nil {
		d.t.Fatalf("import %s: %v", ref, err)
	}
}

// busybox is a small image with a shell, made here because no registry can be reached.
func busybox(t testing.TB) v1.Image {
	t.Helper()
	path, err := exec.LookPath("busybox")
	if err != nil {
		t.Fatal(err)
	}
	program, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	add := func(h *tar.Header, content []byte) {
		h.Size = int64(len(content))
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(content); err != nil {
			t.Fatal(err)
		}
	}
	for _, dir := range []string{"bin", "etc", "proc", "dev", "sys", "tmp", "root"} {
		add(&tar.Header{Name: dir, Typeflag: tar.TypeDir, Mode: 0o755}, nil)
	}
	add(&tar.Header{Name: "bin/busybox", Mode: 0o755}, program)
	for _, applet := range strings.Fields("sh sleep cat echo ls id hostname mount env ps kill head tail seq nc wget ip stat dd yes true false stty printf usleep grep touch ping nslookup test httpd") {
		add(&tar.Header{Name: "bin/" + applet, Typeflag: tar.TypeSymlink, Linkname: "busybox"}, nil)
	}
	add(&tar.Header{Name: "etc/passwd", Mode: 0o644}, []byte("root:x:0:0:root:/root:/bin/sh\nskipper:x:1000:1000::/:/bin/sh\n"))
	add(&tar.Header{Name: "etc/group", Mode: 0o644}, []byte("root:x:0:\nwheel:x:10:root\nskipper:x:1000:\ncrew:x:2000:skipper\n"))
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	layer, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(b.Bytes())), nil })
	if err != nil {
		t.Fatal(err)
	}
	image, err := mutate.AppendLayers(empty.Image, layer)
	if err != nil {
		t.Fatal(err)
	}
	config, err := image.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	config = config.DeepCopy()
	config.Architecture, config.OS = "amd64", "linux"
	config.Config = v1.Config{Cmd: []string{"sh"}, Env: []string{"PATH=/bin", "FROM_IMAGE=yes"}, WorkingDir: "/root"}
	image, err = mutate.ConfigFile(image, config)
	if err != nil {
		t.Fatal(err)
	}
	return image
}

// options of a runtime whose traces are told from those of others by number.
func (d *daemon) options(number int) runtime.Options {
	level := slog.LevelWarn
	if d.t != nil && testing.Verbose() {
		level = slog.LevelDebug
	}
	return runtime.Options{
		ContainerdAddress: d.socket(),
		StateDir:          filepath.Join(d.dir, fmt.Sprintf("s%d", number)),
		RunDir:            filepath.Join(d.dir, fmt.Sprintf("r%d", number)),
		CgroupRoot:        fmt.Sprintf("/skiff-runtime-test-%d-%d", os.Getpid(), number),
		RegistryConfigDir: filepath.Join(d.dir, "certs.d"),
		LogMaxBytes:       1 << 20,
		Network:           network.Options{Bridge: fmt.Sprintf("skrt%d", number), Table: fmt.Sprintf("skiff-runtime-test-%d", number)},
		Logger:            slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: level})),
	}
}

// podCIDR is the range of the pods of a numbered runtime.
func podCIDR(number int) []netip.Prefix {
	return []netip.Prefix{netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 213, byte(number), 0}), 24)}
}
