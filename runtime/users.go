package runtime

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/containerd/containerd/v2/core/mount"
	"github.com/opencontainers/runtime-spec/specs-go"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/skiff-run/skiff/runtime/namespace"
)

const (
	// usersPerPod is how many users and groups a pod has of its own; the first
	// range begins above those of the machine.
	usersPerPod = 65536
	// lastRange keeps the numbers below 2^31, which some programs take for the end.
	lastRange = 1<<31/usersPerPod - 1
	// mappedName is the folder of a sandbox for mounts that belong to its users.
	mappedName = "mapped"
	// mappedMount and mappedLayer begin the names of mounts in it.
	mappedMount, mappedLayer = "mount", "layer"
)

// usersSupported says why pods cannot have users of their own, nil when they can.
func (r *Runtime) usersSupported() error {
	if err := namespace.UserSupport(); err != nil {
		return err
	}
	if r.options.Snapshotter != "overlayfs" {
		return fmt.Errorf("user namespaces of pods need the snapshotter overlayfs, this node uses %s", r.options.Snapshotter)
	}
	return nil
}

// reserveUsers gives a sandbox that asks for it a range of users nobody else has.
func (r *Runtime) reserveUsers(s *sandbox) error {
	options := s.namespaces().GetUsernsOptions()
	if options == nil || options.GetMode() != runtimeapi.NamespaceMode_POD {
		return nil
	}
	if err := r.usersSupported(); err != nil {
		return fmt.Errorf("pod sandbox: %w", err)
	}
	if s.hostNetwork() || s.hostIPC() || s.namespaces().GetPid() == runtimeapi.NamespaceMode_NODE {
		return errors.New("pod sandbox: a pod with users of its own (hostUsers: false) cannot use the node's network, process or IPC namespace")
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	taken := map[uint32]bool{}
	for _, m := range r.userRanges {
		taken[m.HostID] = true
	}
	for n := uint32(1); n < lastRange; n++ {
		if !taken[n*usersPerPod] {
			s.users = &namespace.Mapping{HostID: n * usersPerPod, Size: usersPerPod}
			r.userRanges[s.id] = *s.users
			return nil
		}
	}
	return errors.New("pod sandbox: all ranges of users are taken")
}

func (r *Runtime) releaseUsers(s *sandbox) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.userRanges, s.id)
}

// mappedDir is where a container's mounts that belong to its pod's users are
// until the container has them.
func (r *Runtime) mappedDir(s *sandbox, id string) string {
	return filepath.Join(r.sandboxRun(s.id), mappedName, id)
}

// mapMounts makes the bind mounts of a container belong to its pod's users: the
// sources in the spec become mapped mounts of them.
func (r *Runtime) mapMounts(s *sandbox, id string, generated *specs.Spec) error {
	if s.users == nil {
		return nil
	}
	for i := range generated.Mounts {
		m := &generated.Mounts[i]
		if m.Type != "bind" || m.Destination == "/dev/shm" {
			continue // shared memory was made for the users
		}
		if slices.Contains(m.Options, "rslave") || slices.Contains(m.Options, "rshared") {
			return fmt.Errorf("mount %s: mount propagation does not reach a pod with users of its own (hostUsers: false)", m.Destination)
		}
		target, err := r.mapped(s, id, m.Source, mappedMount+strconv.Itoa(i))
		if err != nil {
			return err
		}
		m.Source = target
	}
	return nil
}

// mapped mounts source for the users of the sandbox and returns where.
func (r *Runtime) mapped(s *sandbox, id, source, name string) (string, error) {
	dir := r.mappedDir(s, id)
	target := filepath.Join(dir, name)
	info, err := os.Stat(source)
	if err != nil {
		return "", fmt.Errorf("map users of a mount: %w", err)
	}
	if err := os.MkdirAll(dir, 0o711); err != nil {
		return "", fmt.Errorf("map users of a mount: %w", err)
	}
	if err := namespace.Unmount(target); err != nil {
		return "", err
	}
	if info.IsDir() {
		err = os.MkdirAll(target, 0o711)
	} else {
		err = os.WriteFile(target, nil, 0o600)
	}
	if err != nil {
		return "", fmt.Errorf("map users of a mount: %w", err)
	}
	if err := namespace.MapMount(source, target, r.pin(s, namespace.User)); err != nil {
		return "", err
	}
	return target, nil
}

// mapRoot makes the layers below a container's root file system belong to its
// pod's users. What the container writes belongs to them anyway.
func (r *Runtime) mapRoot(s *sandbox, id string, mounts []mount.Mount) ([]mount.Mount, error) {
	if s.users == nil {
		return mounts, nil
	}
	if len(mounts) != 1 || mounts[0].Type != "overlay" {
		return nil, errors.New("the root file system of a pod with users of its own must be an overlay")
	}
	m := mounts[0]
	m.Options = append([]string(nil), m.Options...)
	for i, option := range m.Options {
		if layers, ok := strings.CutPrefix(option, "lowerdir="); ok {
			var mappedLayers []string
			for n, layer := range strings.Split(layers, ":") {
				target, err := r.mapped(s, id, layer, mappedLayer+strconv.Itoa(n))
				if err != nil {
					return nil, err
				}
				mappedLayers = append(mappedLayers, target)
			}
			m.Options[i] = "lowerdir=" + strings.Join(mappedLayers, ":")
		}
		if upper, ok := strings.CutPrefix(option, "upperdir="); ok {
			if err := os.Lchown(upper, int(s.users.HostID), int(s.users.HostID)); err != nil {
				return nil, fmt.Errorf("give the root file system to the pod's users: %w", err)
			}
		}
	}
	return []mount.Mount{m}, nil
}

// unmap removes the mapped mounts of a container; what it has been given stays.
func (r *Runtime) unmap(s *sandbox, id string) {
	if s.users == nil {
		return
	}
	if err := removeMapped(r.mappedDir(s, id)); err != nil {
		r.logger.Warn("mounts of a container could not be removed", "container", id, "error", err)
	}
}

// removeMapped takes down what mapped made below a folder, at any depth of
// folders that are not mounts. It may be repeated. Nothing is removed but empty
// folders and files: what were still mounted there would be somebody's data.
func removeMapped(dir string) error {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("remove mapped mounts: %w", err)
	}
	for _, e := range entries {
		path := filepath.Join(dir, e.Name())
		if !strings.HasPrefix(e.Name(), mappedMount) && !strings.HasPrefix(e.Name(), mappedLayer) {
			if err := removeMapped(path); err != nil {
				return err
			}
			continue
		}
		if err := namespace.Unmount(path); err != nil {
			return err
		}
		if err := os.Remove(path); err != nil {
			return fmt.Errorf("remove mapped mounts: %w", err)
		}
	}
	if err := os.Remove(dir); err != nil {
		return fmt.Errorf("remove mapped mounts: %w", err)
	}
	return nil
}
