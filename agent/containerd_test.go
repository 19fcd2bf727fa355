package agent_test

import (
	"archive/tar"
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	containerd "github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/google/go-containerregistry/pkg/name"
	imagev1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"

	"github.com/skiff-run/skiff/internal/testenv"
)

const testImage = "docker.io/library/busybox:test"

// startContainerd runs a containerd of the test's own in dir, with a busybox image.
func startContainerd(t *testing.T, dir string) (socket string) {
	t.Helper()
	testenv.RequireRoot(t)
	testenv.RequireProgram(t, "containerd", "runc", "busybox", "nft")
	socket = filepath.Join(dir, "c.sock")
	config := fmt.Sprintf(`version = 2
root = "%[1]s/root"
state = "%[1]s/state"
disabled_plugins = ["io.containerd.grpc.v1.cri", "io.containerd.cri.v1.runtime", "io.containerd.cri.v1.images", "io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.zfs", "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.aufs"]
[grpc]
  address = "%[1]s/c.sock"
[ttrpc]
  address = "%[1]s/t.sock"
`, dir)
	path := filepath.Join(dir, "config.toml")
	must(t, os.WriteFile(path, []byte(config), 0o644))
	log, err := os.Create(filepath.Join(dir, "containerd.log"))
	must(t, err)
	defer log.Close()
	program := "containerd"
	if dir := os.Getenv("SKIFF_TEST_CONTAINERD"); dir != "" {
		program = filepath.Join(dir, program)
	}
	cmd := exec.Command(program, "--config", path)
	cmd.Env = append(os.Environ(), "PATH="+filepath.Dir(program)+":"+os.Getenv("PATH"))
	cmd.Stdout, cmd.Stderr = log, log
	must(t, cmd.Start())
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	testenv.Eventually(t, 20*time.Second, func() bool {
		conn, err := net.Dial("unix", socket)
		if err == nil {
			conn.Close()
		}
		return err == nil
	}, "containerd answers")
	client, err := containerd.New(socket)
	must(t, err)
	defer client.Close()
	tag, err := name.NewTag(testImage)
	must(t, err)
	reader, w := io.Pipe()
	go func() { w.CloseWithError(tarball.Write(tag, busybox(t), w)) }()
	_, err = client.Import(namespaces.WithNamespace(context.Background(), "k8s.io"), reader)
	must(t, err)
	return socket
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// busybox is a small image with a shell, made here because tests reach no registry.
func busybox(t *testing.T) imagev1.Image {
	t.Helper()
	path, err := exec.LookPath("busybox")
	must(t, err)
	program, err := os.ReadFile(path)
	must(t, err)
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	add := func(h *tar.Header, content []byte) {
		h.Size = int64(len(content))
		must(t, w.WriteHeader(h))
		_, err := w.Write(content)
		must(t, err)
	}
	for _, dir := range []string{"bin", "etc", "proc", "dev", "sys", "tmp"} {
		add(&tar.Header{Name: dir, Typeflag: tar.TypeDir, Mode: 0o755}, nil)
	}
	add(&tar.Header{Name: "bin/busybox", Mode: 0o755}, program)
	for _, applet := range strings.Fields("sh sleep cat echo ls id hostname env test true false touch grep ps kill head tail seq nc wget httpd mount umount stat dd printf usleep mkdir mknod chown ipcs tty stty tr sort rm wc sed cut readlink") {
		add(&tar.Header{Name: "bin/" + applet, Typeflag: tar.TypeSymlink, Linkname: "busybox"}, nil)
	}
	add(&tar.Header{Name: "etc/passwd", Mode: 0o644}, []byte("root:x:0:0:root:/:/bin/sh\nskipper:x:1000:1000::/:/bin/sh\n"))
	add(&tar.Header{Name: "etc/group", Mode: 0o644}, []byte("root:x:0:\nwheel:x:10:root\nskipper:x:1000:\ncrew:x:2000:skipper\n"))
	must(t, w.Close())
	layer, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(b.Bytes())), nil })
	must(t, err)
	image, err := mutate.AppendLayers(empty.Image, layer)
	must(t, err)
	config, err := image.ConfigFile()
	must(t, err)
	config = config.DeepCopy()
	config.Architecture, config.OS = "amd64", "linux"
	config.Config = imagev1.Config{Cmd: []string{"sh"}, Env: []string{"PATH=/bin"}}
	image, err = mutate.ConfigFile(image, config)
	must(t, err)
	return image
}
