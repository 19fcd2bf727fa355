package runtime

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"sync"
	"time"

	runcoptions "github.com/containerd/containerd/api/types/runc/options"
	"github.com/containerd/containerd/v2/core/containers"
	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/errdefs"
	"github.com/containerd/typeurl/v2"
	"github.com/opencontainers/runtime-spec/specs-go"
	"google.golang.org/protobuf/proto"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/skiff-run/skiff/runtime/cgroup"
	"github.com/skiff-run/skiff/runtime/images"
	"github.com/skiff-run/skiff/runtime/namespace"
	"github.com/skiff-run/skiff/runtime/spec"
)

// CreateContainer makes a container in a sandbox and returns its ID.
//
// The record in containerd is made before the snapshot it names: from then on
// containerd's collector leaves the snapshot alone, so that no lease is needed, and
// a snapshot without a record, after a kill in between, is collected.
func (r *Runtime) CreateContainer(ctx context.Context, podSandboxID string, config *runtimeapi.ContainerConfig, sandboxConfig *runtimeapi.PodSandboxConfig) (string, error) {
	s, err := r.sandbox(podSandboxID)
	if err != nil {
		return "", err
	}
	if s.state() != runtimeapi.PodSandboxState_SANDBOX_READY {
		return "", fmt.Errorf("create container %s: pod sandbox %s is not ready", config.GetMetadata().GetName(), s.id)
	}
	if config.GetMetadata() == nil {
		return "", errors.New("create container: metadata is missing")
	}
	for _, m := range config.GetMounts() {
		if m.GetImage() != nil {
			return "", fmt.Errorf("create container %s: image volumes are not supported by this runtime", config.GetMetadata().GetName())
		}
	}
	image, err := r.images.Get(ctx, config.GetImage().GetImage())
	if err != nil {
		return "", fmt.Errorf("create container %s: %w", config.GetMetadata().GetName(), err)
	}
	ctx, cancel := detach(ctx)
	defer cancel()
	c, err := r.create(ctx, s, config, image)
	if err != nil {
		return "", fmt.Errorf("create container %s: %w", config.GetMetadata().GetName(), err)
	}
	r.mu.Lock()
	r.containers[c.id] = c
	r.mu.Unlock()
	r.notify(c, runtimeapi.ContainerEventType_CONTAINER_CREATED_EVENT)
	return c.id, nil
}

func (r *Runtime) create(ctx context.Context, s *sandbox, config *runtimeapi.ContainerConfig, image *images.Image) (*container, error) {
	id, err := newID()
	if err != nil {
		return nil, err
	}
	input, err := r.specInput(ctx, s, id, config)
	if err != nil {
		return nil, err
	}
	input.Image = image.Config
	userKey, err := spec.UserKey(config.GetLinux().GetSecurityContext(), image.Config)
	if err != nil {
		return nil, err
	}
	userKey = image.ChainID + " " + userKey
	user, known := r.users.get(userKey)
	input.User = user

	c := &container{id: id, sandbox: s, exited: make(chan struct{}), state: runtimeapi.ContainerState_CONTAINER_CREATED}
	c.facts = facts{
		CreatedAt: time.Now(), ImageID: image.ID, ImageRef: imageRef(image), CgroupsPath: input.CgroupsPath,
		StopSignal: image.Config.StopSignal, User: user, config: trim(config),
	}
	if c.facts.Config, err = proto.Marshal(c.facts.config); err != nil {
		return nil, err
	}
	if config.GetLogPath() != "" && s.config.GetLogDirectory() != "" {
		c.facts.LogPath = filepath.Join(s.config.GetLogDirectory(), config.GetLogPath())
	}
	record, err := r.record(ctx, c, input)
	if err != nil {
		r.unmap(s, id)
		return nil, err
	}
	if _, err := r.client.ContainerService().Create(ctx, record); err != nil {
		r.unmap(s, id)
		return nil, fmt.Errorf("record in containerd: %w", err)
	}
	if c.mounts, err = r.prepare(ctx, id, image); err == nil && !known {
		// The first container of this image with this user: look it up in the image's files.
		if c.facts.User, err = r.lookupUser(c.mounts, config, image); err == nil {
			r.users.put(userKey, c.facts.User)
			input.User = c.facts.User
			if record, err = r.record(ctx, c, input); err == nil {
				_, err = r.client.ContainerService().Update(ctx, record, "spec", "extensions."+factsExtension)
			}
		}
	}
	if err != nil {
		r.unmap(s, id)
		return nil, errors.Join(err, r.removeRecord(ctx, id))
	}
	return c, nil
}

// imageRef is the digested reference shown in statuses; images that were never in a registry have only their ID.
func imageRef(image *images.Image) string {
	if digests := image.Digests(); len(digests) > 0 {
		return digests[0]
	}
	return image.ID
}

// specInput gathers what the spec needs of the sandbox.
func (r *Runtime) specInput(ctx context.Context, s *sandbox, id string, config *runtimeapi.ContainerConfig) (spec.Input, error) {
	dir := r.sandboxRun(s.id)
	name, err := s.hostname()
	if err != nil {
		return spec.Input{}, err
	}
	input := spec.Input{
		ID: id, SandboxID: s.id, Container: config, Pod: s.config, Name: name,
		Net: r.pin(s, namespace.Net), IPC: r.pin(s, namespace.IPC), UTS: r.pin(s, namespace.UTS), UserNS: r.pin(s, namespace.User), Users: s.users,
		Hostname: filepath.Join(dir, hostnameTxt), Hosts: filepath.Join(dir, hostsTxt), Resolv: filepath.Join(dir, resolvTxt),
		Shm: filepath.Join(dir, shmName), Machine: r.machine,
		CgroupsPath: r.cgroups.ContainerPath(s.config.GetLinux().GetCgroupParent(), id),
	}
	if s.hostIPC() {
		input.Shm = "/dev/shm"
	}
	namespaces := config.GetLinux().GetSecurityContext().GetNamespaceOptions()
	if namespaces == nil {
		namespaces = s.namespaces()
	}
	if namespaces == nil {
		return input, nil
	}
	switch namespaces.GetPid() {
	case runtimeapi.NamespaceMode_NODE:
		input.PID = spec.HostPID
	case runtimeapi.NamespaceMode_POD:
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.initPID == 0 {
			return spec.Input{}, fmt.Errorf("pod sandbox %s has no shared PID namespace", s.id)
		}
		input.PID = fmt.Sprintf("/proc/%d/ns/pid", s.initPID)
	case runtimeapi.NamespaceMode_TARGET:
		target, err := r.container(namespaces.GetTargetId())
		if err != nil {
			return spec.Input{}, fmt.Errorf("target of the PID namespace: %w", err)
		}
		target.mu.Lock()
		defer target.mu.Unlock()
		if target.pid == 0 {
			return spec.Input{}, fmt.Errorf("target of the PID namespace: container %s: %w", target.id, ErrNotRunning)
		}
		input.PID = fmt.Sprintf("/proc/%d/ns/pid", target.pid)
	}
	return input, nil
}

// record is the container as containerd keeps it.
func (r *Runtime) record(ctx context.Context, c *container, input spec.Input) (containers.Container, error) {
	s, err := spec.Generate(ctx, input)
	if err != nil {
		return containers.Container{}, err
	}
	if err := r.mapMounts(c.sandbox, c.id, s); err != nil {
		return containers.Container{}, err
	}
	any, err := marshalSpec(s)
	if err != nil {
		return containers.Container{}, err
	}
	runtime, err := r.runtimeInfo(c.sandbox.handler)
	if err != nil {
		return containers.Container{}, err
	}
	kept, err := extension(factsExtension, c.facts)
	if err != nil {
		return containers.Container{}, err
	}
	pod := c.sandbox.config.GetMetadata()
	labels := map[string]string{
		kindLabel: kindContainer, sandboxLabel: c.sandbox.id,
		podLabel: pod.GetName(), nsLabel: pod.GetNamespace(), nameLabel: c.facts.config.GetMetadata().GetName(),
	}
	maps.DeleteFunc(labels, func(_, value string) bool { return value == "" })
	return containers.Container{
		ID: c.id, Labels: labels, Image: c.facts.config.GetImage().GetImage(), Runtime: runtime, Spec: any,
		SnapshotKey: c.id, Snapshotter: r.options.Snapshotter, Extensions: map[string]typeurl.Any{factsExtension: kept},
	}, nil
}

func marshalSpec(s *specs.Spec) (typeurl.Any, error) {
	any, err := typeurl.MarshalAny(s)
	if err != nil {
		return nil, fmt.Errorf("encode spec: %w", err)
	}
	return any, nil
}

var defaultHandler = Handler{Type: "io.containerd.runc.v2"}

func (r *Runtime) handler(name string) (Handler, error) {
	if name == "" {
		return defaultHandler, nil
	}
	h, ok := r.options.Handlers[name]
	if !ok {
		return Handler{}, fmt.Errorf("failed to get sandbox runtime: no runtime for %q is configured", name)
	}
	if h.Type == "" {
		h.Type = defaultHandler.Type
	}
	return h, nil
}

func (r *Runtime) runtimeInfo(handler string) (containers.RuntimeInfo, error) {
	h, err := r.handler(handler)
	if err != nil {
		return containers.RuntimeInfo{}, err
	}
	info := containers.RuntimeInfo{Name: h.Type}
	systemd := r.cgroups.Driver() == cgroup.DriverSystemd
	if h.Type == defaultHandler.Type && (systemd || h.Binary != "") {
		if info.Options, err = typeurl.MarshalAny(&runcoptions.Options{BinaryName: h.Binary, SystemdCgroup: systemd}); err != nil {
			return containers.RuntimeInfo{}, fmt.Errorf("runtime options: %w", err)
		}
	}
	return info, nil
}

// prepare makes the writable layer; an image that was imported without its layers is unpacked first.
func (r *Runtime) prepare(ctx context.Context, id string, image *images.Image) ([]mount.Mount, error) {
	service := r.client.SnapshotService(r.options.Snapshotter)
	mounts, err := service.Prepare(ctx, id, image.ChainID, snapshots.WithLabels(map[string]string{kindLabel: kindContainer}))
	if errdefs.IsNotFound(err) {
		if err := r.images.Unpack(ctx, image); err != nil {
			return nil, err
		}
		mounts, err = service.Prepare(ctx, id, image.ChainID)
	}
	if err != nil {
		return nil, fmt.Errorf("prepare root file system: %w", err)
	}
	return mounts, nil
}

// lookupUser reads the image's accounts. All containers can use one mount point at
// the same time, because each mount is private.
func (r *Runtime) lookupUser(mounts []mount.Mount, config *runtimeapi.ContainerConfig, image *images.Image) (spec.User, error) {
	dir := r.accounts()
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return spec.User{}, fmt.Errorf("look up user: %w", err)
	}
	var user spec.User
	err := namespace.WithPrivateMounts(func() error {
		if err := mount.All(mounts, dir); err != nil {
			return fmt.Errorf("look up user: %w", err)
		}
		var err error
		user, err = spec.ResolveUser(dir, config.GetLinux().GetSecurityContext(), image.Config)
		return err
	})
	return user, err
}

// userCache remembers who a container of an image runs as: it depends on the image's files only.
type userCache struct {
	mu    sync.Mutex // guards users
	users map[string]spec.User
}

// maxUsers bounds the cache; it is emptied rather than ordered.
const maxUsers = 1024

func (u *userCache) init() { u.users = map[string]spec.User{} }

func (u *userCache) get(key string) (spec.User, bool) {
	u.mu.Lock()
	defer u.mu.Unlock()
	user, ok := u.users[key]
	return user, ok
}

func (u *userCache) put(key string, user spec.User) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if len(u.users) >= maxUsers {
		clear(u.users)
	}
	u.users[key] = user
}
