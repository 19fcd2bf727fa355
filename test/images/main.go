// Command images makes the container images that tests and the demo use, from
// Debian's packages and from source, and pushes them to a registry on loopback.
// No registry of the outside world is needed.
//
//	go run ./test/images --registry 127.0.0.1:5000
//
// With --suite it makes those that Kubernetes' conformance tests use instead.
package main

import (
	"archive/tar"
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/spf13/pflag"
)

func main() {
	registry := pflag.String("registry", "127.0.0.1:5000", "registry to push to, on loopback")
	var s suite
	pflag.StringVar(&s.programs, "suite", "", "folder of the conformance suite's programs: makes its images instead")
	pflag.StringVar(&s.sources, "suite-sources", "", "folder of Kubernetes' module")
	pflag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	err := run(ctx, *registry, s)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "images:", err)
		os.Exit(1)
	}
}

// image is a root file system with what to run in it, under its names.
type image struct {
	names  []string
	root   func(ctx context.Context, root string) error
	config v1.Config
}

func run(ctx context.Context, registry string, s suite) error {
	path := []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
	images := demo(path)
	if s.programs != "" {
		images = s.images(path)
	}
	for _, each := range images {
		if err := each.push(ctx, registry); err != nil {
			return fmt.Errorf("image %s: %w", each.names[0], err)
		}
	}
	return nil
}

// demo are the images that our own tests and the demo use.
func demo(path []string) []image {
	return []image{
		{[]string{"library/busybox:latest", "library/busybox:1.36"}, busybox, v1.Config{Cmd: []string{"sh"}, Env: path}},
		{[]string{"library/nginx:1.25", "library/nginx:1.26", "library/nginx:latest"}, nginx, v1.Config{
			Cmd: []string{"nginx", "-g", "daemon off;"}, Env: path, StopSignal: "SIGQUIT", ExposedPorts: map[string]struct{}{"80/tcp": {}},
		}},
		{[]string{"skiff/web:latest", "skiff/web:1", "skiff/web:2"}, web, v1.Config{
			Entrypoint: []string{"/web"}, Env: path, ExposedPorts: map[string]struct{}{"8080/tcp": {}},
		}},
	}
}

// push makes the image once and pushes it under each name; names of one image
// differ in a label, so that a rollout from one to another changes something.
func (i image) push(ctx context.Context, registry string) error {
	root, err := os.MkdirTemp("", "skiff-image-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(root)
	if err := i.root(ctx, root); err != nil {
		return err
	}
	layer, err := layerOf(root)
	if err != nil {
		return err
	}
	base, err := mutate.AppendLayers(empty.Image, layer)
	if err != nil {
		return fmt.Errorf("append layer: %w", err)
	}
	for _, text := range i.names {
		config := i.config
		config.Labels = map[string]string{"org.opencontainers.image.ref.name": text}
		file, err := base.ConfigFile()
		if err != nil {
			return fmt.Errorf("configure: %w", err)
		}
		file = file.DeepCopy()
		file.Architecture, file.OS, file.Config = runtime.GOARCH, "linux", config
		finished, err := mutate.ConfigFile(base, file)
		if err != nil {
			return fmt.Errorf("configure: %w", err)
		}
		reference, err := name.ParseReference(registry+"/"+text, name.Insecure)
		if err != nil {
			return fmt.Errorf("name %s: %w", text, err)
		}
		if err := remote.Write(reference, finished, remote.WithContext(ctx)); err != nil {
			return fmt.Errorf("push %s: %w", reference, err)
		}
		fmt.Println("pushed", reference)
	}
	return nil
}

// layerOf packs a folder, owned by root.
func layerOf(root string) (v1.Layer, error) {
	var buffer bytes.Buffer
	archive := tar.NewWriter(&buffer)
	err := filepath.WalkDir(root, func(path string, entry os.DirEntry, err error) error {
		if err != nil || path == root {
			return err
		}
		info, err := entry.Info()
		if err != nil {
			return err
		}
		link := ""
		if info.Mode()&os.ModeSymlink != 0 {
			if link, err = os.Readlink(path); err != nil {
				return err
			}
		}
		header, err := tar.FileInfoHeader(info, link)
		if err != nil {
			return err
		}
		if header.Name, err = filepath.Rel(root, path); err != nil {
			return err
		}
		header.Uid, header.Gid, header.Uname, header.Gname = 0, 0, "", ""
		if err := archive.WriteHeader(header); err != nil || !info.Mode().IsRegular() {
			return err
		}
		file, err := os.Open(path)
		if err != nil {
			return err
		}
		defer file.Close()
		_, err = io.Copy(archive, file)
		return err
	})
	if err == nil {
		err = archive.Close()
	}
	if err != nil {
		return nil, fmt.Errorf("pack %s: %w", root, err)
	}
	data := buffer.Bytes()
	return tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(data)), nil })
}

// command runs a program and returns an error with what it said.
func command(ctx context.Context, dir, program string, arguments ...string) error {
	c := exec.CommandContext(ctx, program, arguments...)
	c.Dir = dir
	if output, err := c.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w\n%s", program, err, output)
	}
	return nil
}
