package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// passwd has the users that images of the world have.
const passwd = "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/nonexistent:/bin/false\nwww-data:x:33:33:www-data:/var/www:/bin/false\n"

// skeleton makes what every root file system needs.
func skeleton(root string) error {
	for _, dir := range []string{"bin", "dev", "etc", "proc", "sys", "tmp", "root", "usr/bin", "var/run", "run"} {
		if err := os.MkdirAll(filepath.Join(root, dir), 0o755); err != nil {
			return err
		}
	}
	return errors.Join(
		os.Chmod(filepath.Join(root, "tmp"), 0o1777),
		os.WriteFile(filepath.Join(root, "etc/passwd"), []byte(passwd), 0o644),
		os.WriteFile(filepath.Join(root, "etc/group"), []byte("root:x:0:\nnogroup:x:65534:\nwww-data:x:33:\n"), 0o644),
		os.WriteFile(filepath.Join(root, "etc/nsswitch.conf"), []byte("hosts: files dns\n"), 0o644),
	)
}

// packages downloads Debian packages and unpacks them into root, without
// installing anything on this machine.
func packages(ctx context.Context, root string, names ...string) error {
	dir, err := os.MkdirTemp("", "skiff-packages-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	// apt downloads as a user of its own, who must be able to write here.
	if err := os.Chmod(dir, 0o777); err != nil {
		return err
	}
	if err := command(ctx, dir, "apt-get", append([]string{"download", "-qq"}, names...)...); err != nil {
		return fmt.Errorf("download %s: %w", strings.Join(names, " "), err)
	}
	return unpack(ctx, dir, root)
}

// withDependencies is packages for everything the named ones depend on, too, as
// if nothing were installed.
func withDependencies(ctx context.Context, root string, names ...string) error {
	dir, err := os.MkdirTemp("", "skiff-packages-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	if err := errors.Join(os.Chmod(dir, 0o777), os.Mkdir(filepath.Join(dir, "partial"), 0o777)); err != nil {
		return err
	}
	arguments := append([]string{
		"-qq", "-y", "-o", "Dir::State::status=/dev/null", "-o", "Dir::Cache::archives=" + dir, "-o", "Debug::NoLocking=true", "-o", "APT::Sandbox::User=root",
		"install", "--download-only", "--no-install-recommends",
	}, names...)
	if err := command(ctx, dir, "apt-get", arguments...); err != nil {
		return fmt.Errorf("download %s: %w", strings.Join(names, " "), err)
	}
	return unpack(ctx, dir, root)
}

// unpack unpacks the packages of a folder into root.
func unpack(ctx context.Context, dir, root string) error {
	archives, err := filepath.Glob(filepath.Join(dir, "*.deb"))
	if err != nil {
		return err
	}
	for _, archive := range archives {
		if err := command(ctx, dir, "dpkg-deb", "-x", archive, root); err != nil {
			return fmt.Errorf("unpack %s: %w", filepath.Base(archive), err)
		}
	}
	return nil
}

// busybox is Debian's busybox with a link for each of its commands. Not the
// static one: it cannot look up names by DNS.
func busybox(ctx context.Context, root string) error {
	unpacked, err := os.MkdirTemp("", "skiff-busybox-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(unpacked)
	if err := packages(ctx, unpacked, "busybox", "libc6"); err != nil {
		return err
	}
	if err := skeleton(root); err != nil {
		return err
	}
	program, err := os.ReadFile(filepath.Join(unpacked, "bin/busybox"))
	if errors.Is(err, os.ErrNotExist) {
		program, err = os.ReadFile(filepath.Join(unpacked, "usr/bin/busybox"))
	}
	if err != nil {
		return err
	}
	for _, dir := range []string{"lib", "lib64"} {
		if err := command(ctx, unpacked, "cp", "-a", dir, root); err != nil {
			return err
		}
	}
	path := filepath.Join(root, "bin/busybox")
	if err := os.WriteFile(path, program, 0o755); err != nil {
		return err
	}
	if err := command(ctx, root, path, "--install", "-s", filepath.Join(root, "bin")); err != nil {
		return err
	}
	return fixLinks(root)
}

// nginx is Debian's nginx with the libraries it needs, its logs on standard
// output as in the image of that name, and busybox for a shell.
func nginx(ctx context.Context, root string) error {
	if err := packages(ctx, root, "nginx", "nginx-common", "libc6", "libcrypt1", "libpcre2-8-0", "libssl3", "zlib1g"); err != nil {
		return err
	}
	shell, err := os.MkdirTemp("", "skiff-shell-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(shell)
	if err := busybox(ctx, shell); err != nil {
		return err
	}
	if err := skeleton(root); err != nil {
		return err
	}
	if err := command(ctx, root, "cp", "-a", filepath.Join(shell, "bin")+"/.", filepath.Join(root, "bin")); err != nil {
		return err
	}
	for _, dir := range []string{"var/log/nginx", "var/lib/nginx", "usr/share/nginx/html", "etc/nginx/conf.d"} {
		if err := os.MkdirAll(filepath.Join(root, dir), 0o755); err != nil {
			return err
		}
	}
	page := "<!DOCTYPE html>\n<html><head><title>Welcome to nginx!</title></head><body><h1>Welcome to nginx!</h1></body></html>\n"
	return errors.Join(
		os.RemoveAll(filepath.Join(root, "etc/nginx/modules-enabled")),
		os.WriteFile(filepath.Join(root, "usr/share/nginx/html/index.html"), []byte(page), 0o644),
		os.WriteFile(filepath.Join(root, "etc/nginx/nginx.conf"), []byte(nginxConfig), 0o644),
	)
}

// nginxConfig serves the page and writes its logs where container logs go.
const nginxConfig = `user www-data;
worker_processes 1;
error_log /dev/stderr notice;
pid /run/nginx.pid;
events { worker_connections 1024; }
http {
  include /etc/nginx/mime.types;
  access_log /dev/stdout;
  server {
    listen 80;
    location / { root /usr/share/nginx/html; index index.html; }
  }
}
`

// fixLinks makes busybox's links, which name the folder they were made in,
// name /bin.
func fixLinks(root string) error {
	entries, err := os.ReadDir(filepath.Join(root, "bin"))
	if err != nil {
		return err
	}
	for _, entry := range entries {
		path := filepath.Join(root, "bin", entry.Name())
		if target, err := os.Readlink(path); err == nil && filepath.Base(target) == "busybox" {
			if err := errors.Join(os.Remove(path), os.Symlink("/bin/busybox", path)); err != nil {
				return err
			}
		}
	}
	return nil
}

// web is a small server of our own that names the pod it runs in.
func web(ctx context.Context, root string) error {
	if err := skeleton(root); err != nil {
		return err
	}
	return build(ctx, filepath.Join(root, "web"), "github.com/skiff-run/skiff/test/images/web")
}

// build makes a program without a C library.
func build(ctx context.Context, output, pkg string) error {
	return command(ctx, ".", "env", "CGO_ENABLED=0", "go", "build", "-trimpath", "-ldflags", "-s -w", "-o", output, pkg)
}
