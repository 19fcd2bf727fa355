package spec

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/containerd/containerd/v2/core/containers"
	"github.com/containerd/containerd/v2/pkg/oci"
	"github.com/moby/sys/mountinfo"
	"github.com/opencontainers/runtime-spec/specs-go"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// withPodFiles mounts the files every container of a pod shares, unless the
// configuration mounts something of its own there.
func withPodFiles(in Input) oci.SpecOpts {
	return func(_ context.Context, _ oci.Client, _ *containers.Container, s *specs.Spec) error {
		mode := "rw"
		if in.security().GetReadonlyRootfs() {
			mode = "ro"
		}
		for _, f := range []struct {
			source, destination string
			options             []string
		}{
			{in.Hostname, "/etc/hostname", []string{"rbind", "rprivate", mode}},
			{in.Hosts, "/etc/hosts", []string{"rbind", "rprivate", mode}},
			{in.Resolv, "/etc/resolv.conf", []string{"rbind", "rprivate", mode}},
			{in.Shm, "/dev/shm", []string{"rbind", "rprivate", "rw"}},
		} {
			if f.source != "" {
				s.Mounts = append(s.Mounts, specs.Mount{Destination: f.destination, Type: "bind", Source: f.source, Options: f.options})
			}
		}
		return nil
	}
}

// withMounts adds the configured mounts. One at a place that is taken replaces
// what was there; one at /dev also what the base put below it.
func withMounts(mounts []*runtimeapi.Mount) oci.SpecOpts {
	return func(_ context.Context, _ oci.Client, _ *containers.Container, s *specs.Spec) error {
		for _, m := range mounts {
			destination := filepath.Clean(m.GetContainerPath())
			if !filepath.IsAbs(destination) {
				destination = "/" + destination
			}
			s.Mounts = slices.DeleteFunc(s.Mounts, func(have specs.Mount) bool {
				return have.Destination == destination || destination == "/dev" && have.Type != "bind" && strings.HasPrefix(have.Destination, "/dev/")
			})
			source, err := mountSource(m.GetHostPath())
			if err != nil {
				return fmt.Errorf("mount %s: %w", destination, err)
			}
			options, err := mountOptions(m, source, s)
			if err != nil {
				return fmt.Errorf("mount %s: %w", destination, err)
			}
			s.Mounts = append(s.Mounts, specs.Mount{Destination: destination, Type: "bind", Source: source, Options: options})
		}
		// Outer mounts first, in given order among equals.
		slices.SortStableFunc(s.Mounts, func(a, b specs.Mount) int { return depth(a.Destination) - depth(b.Destination) })
		return nil
	}
}

func depth(path string) int { return len(strings.Split(filepath.Clean(path), "/")) }

// mountSource follows links on the host. A source that is missing becomes a folder, as with every CRI runtime.
func mountSource(path string) (string, error) {
	resolved, err := filepath.EvalSymlinks(path)
	if errors.Is(err, fs.ErrNotExist) {
		if err := os.MkdirAll(path, 0o755); err != nil {
			return "", fmt.Errorf("make host path: %w", err)
		}
		return filepath.EvalSymlinks(path)
	}
	if err != nil {
		return "", fmt.Errorf("host path %q: %w", path, err)
	}
	return resolved, nil
}

func mountOptions(m *runtimeapi.Mount, source string, s *specs.Spec) ([]string, error) {
	options := []string{"rbind"}
	switch m.GetPropagation() {
	case runtimeapi.MountPropagation_PROPAGATION_BIDIRECTIONAL:
		if err := requirePropagation(source, "shared"); err != nil {
			return nil, err
		}
		options = append(options, "rshared")
		s.Linux.RootfsPropagation = "rshared"
	case runtimeapi.MountPropagation_PROPAGATION_HOST_TO_CONTAINER:
		if err := requirePropagation(source, "shared", "master"); err != nil {
			return nil, err
		}
		options = append(options, "rslave")
		if s.Linux.RootfsPropagation != "rshared" {
			s.Linux.RootfsPropagation = "rslave"
		}
	default:
		options = append(options, "rprivate")
	}
	switch {
	case m.GetRecursiveReadOnly():
		if !m.GetReadonly() {
			return nil, errors.New("recursive read-only mount conflicts with a read-write mount")
		}
		if m.GetPropagation() != runtimeapi.MountPropagation_PROPAGATION_PRIVATE {
			return nil, errors.New("recursive read-only mount conflicts with mount propagation")
		}
		options = append(options, "rro")
	case m.GetReadonly():
		options = append(options, "ro")
	default:
		options = append(options, "rw")
	}
	return append(options, m.GetMountOptions()...), nil
}

// requirePropagation checks that the mount that holds path passes new mounts on.
func requirePropagation(path string, kinds ...string) error {
	mounts, err := mountinfo.GetMounts(mountinfo.ParentsFilter(path))
	if err != nil {
		return fmt.Errorf("read mount table: %w", err)
	}
	var holder *mountinfo.Info
	for _, m := range mounts {
		if holder == nil || len(m.Mountpoint) >= len(holder.Mountpoint) {
			holder = m
		}
	}
	if holder == nil {
		return fmt.Errorf("path %q lies on no mount", path)
	}
	for _, kind := range kinds {
		for field := range strings.FieldsSeq(holder.Optional) {
			if strings.HasPrefix(field, kind+":") {
				return nil
			}
		}
	}
	return fmt.Errorf("path %q is mounted on %q but it is not a %s mount", path, holder.Mountpoint, strings.Join(kinds, " or "))
}
