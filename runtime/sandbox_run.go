package runtime

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	goruntime "runtime"
	"strings"
	"time"

	"golang.org/x/sys/unix"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/skiff-run/skiff/runtime/namespace"
	"github.com/skiff-run/skiff/runtime/network"
	"github.com/skiff-run/skiff/runtime/podinit"
)

// RunPodSandbox makes the namespaces, network and files of a pod and returns the sandbox's ID.
func (r *Runtime) RunPodSandbox(ctx context.Context, config *runtimeapi.PodSandboxConfig, runtimeHandler string) (string, error) {
	if _, err := r.handler(runtimeHandler); err != nil {
		return "", err
	}
	if err := checkSandbox(config); err != nil {
		return "", err
	}
	id, err := newID()
	if err != nil {
		return "", err
	}
	s := &sandbox{id: id, config: config, handler: runtimeHandler, createdAt: time.Now()}
	if err := r.reserveUsers(s); err != nil {
		return "", err
	}
	ctx, cancel := detach(ctx)
	defer cancel()
	if err := r.build(ctx, s); err != nil {
		err = errors.Join(err, r.tearDown(ctx, s), r.forget(s))
		r.releaseUsers(s)
		return "", err
	}
	s.ready = true
	r.mu.Lock()
	r.sandboxes[id] = s
	r.mu.Unlock()
	return id, nil
}

func checkSandbox(config *runtimeapi.PodSandboxConfig) error {
	if config.GetMetadata() == nil {
		return errors.New("pod sandbox: metadata is missing")
	}
	for _, p := range config.GetPortMappings() {
		if p.GetHostIp() != "" {
			if _, err := netip.ParseAddr(p.GetHostIp()); err != nil {
				return fmt.Errorf("pod sandbox: hostIP of port %d: %w", p.GetHostPort(), err)
			}
		}
	}
	for name := range config.GetLinux().GetSysctls() {
		namespaces := config.GetLinux().GetSecurityContext().GetNamespaceOptions()
		if strings.HasPrefix(strings.ReplaceAll(name, "/", "."), "net.") && namespaces.GetNetwork() == runtimeapi.NamespaceMode_NODE {
			return fmt.Errorf("pod sandbox: sysctl %s is not allowed with host network", name)
		}
		if !strings.HasPrefix(strings.ReplaceAll(name, "/", "."), "net.") && namespaces.GetIpc() == runtimeapi.NamespaceMode_NODE {
			return fmt.Errorf("pod sandbox: sysctl %s is not allowed with host IPC", name)
		}
	}
	return nil
}

// build makes everything; on an error the caller takes down what was made.
func (r *Runtime) build(ctx context.Context, s *sandbox) error {
	dir := r.sandboxRun(s.id)
	if err := os.MkdirAll(dir, 0o711); err != nil {
		return fmt.Errorf("folder of pod sandbox: %w", err)
	}
	if kinds := s.kinds(); len(kinds) > 0 {
		o := namespace.Options{Dir: dir, Kinds: kinds, Hostname: s.config.GetHostname(), Sysctls: s.config.GetLinux().GetSysctls()}
		if !s.hostNetwork() {
			o.Inside = network.BringUpLoopback
		}
		if s.users != nil {
			o.Users, o.Holder = *s.users, filepath.Join(r.initRoot(s), podinit.Program)
			if err := podinit.Install(r.initRoot(s), goruntime.GOARCH); err != nil {
				return err
			}
		}
		if err := namespace.Create(o); err != nil {
			return fmt.Errorf("namespaces of pod sandbox: %w", err)
		}
	}
	if err := r.writeFiles(s); err != nil {
		return err
	}
	if !s.hostNetwork() {
		var err error
		if s.addresses, err = r.network.Attach(ctx, s.pod(), r.pin(s, namespace.Net)); err != nil {
			return err
		}
	}
	if s.sharedPID() {
		if err := r.startInit(ctx, s); err != nil {
			return err
		}
	}
	return r.writeRecord(s, false)
}

const (
	shmName     = "shm"
	shmOptions  = "mode=1777,size=67108864"
	hostnameTxt = "hostname"
	hostsTxt    = "hosts"
	resolvTxt   = "resolv.conf"
)

// writeFiles makes what every container of the pod gets below /etc and /dev. They
// lie in the run folder: a sandbox does not outlive a reboot.
func (r *Runtime) writeFiles(s *sandbox) error {
	dir := r.sandboxRun(s.id)
	name, err := s.hostname()
	if err != nil {
		return err
	}
	hosts, err := os.ReadFile("/etc/hosts")
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("hosts file of pod sandbox: %w", err)
	}
	resolv, err := resolvConf(s.config.GetDnsConfig())
	if err != nil {
		return err
	}
	for file, content := range map[string][]byte{hostnameTxt: []byte(name + "\n"), hostsTxt: hosts, resolvTxt: resolv} {
		if err := os.WriteFile(filepath.Join(dir, file), content, 0o644); err != nil {
			return fmt.Errorf("%s of pod sandbox: %w", file, err)
		}
	}
	if s.hostIPC() {
		return nil
	}
	shm := filepath.Join(dir, shmName)
	if err := os.Mkdir(shm, 0o700); err != nil {
		return fmt.Errorf("shared memory of pod sandbox: %w", err)
	}
	options := shmOptions
	if s.users != nil {
		options += fmt.Sprintf(",uid=%d,gid=%d", s.users.HostID, s.users.HostID)
	}
	if err := unix.Mount("shm", shm, "tmpfs", unix.MS_NOEXEC|unix.MS_NOSUID|unix.MS_NODEV, options); err != nil {
		return fmt.Errorf("mount shared memory of pod sandbox: %w", err)
	}
	return nil
}

// hostname is what the pod's containers see.
func (s *sandbox) hostname() (string, error) {
	if name := s.config.GetHostname(); name != "" && !s.hostNetwork() {
		return name, nil
	}
	return os.Hostname()
}

// resolvConf is the pod's own, or the machine's when nothing is said about DNS.
func resolvConf(dns *runtimeapi.DNSConfig) ([]byte, error) {
	if dns == nil {
		content, err := os.ReadFile("/etc/resolv.conf")
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return nil, fmt.Errorf("resolv.conf of pod sandbox: %w", err)
		}
		return content, nil
	}
	var b strings.Builder
	if len(dns.GetSearches()) > 0 {
		fmt.Fprintf(&b, "search %s\n", strings.Join(dns.GetSearches(), " "))
	}
	for _, server := range dns.GetServers() {
		fmt.Fprintf(&b, "nameserver %s\n", server)
	}
	if len(dns.GetOptions()) > 0 {
		fmt.Fprintf(&b, "options %s\n", strings.Join(dns.GetOptions(), " "))
	}
	return []byte(b.String()), nil
}

// StopPodSandbox kills the containers and releases the network. It may be repeated.
func (r *Runtime) StopPodSandbox(ctx context.Context, podSandboxID string) error {
	s, err := r.sandbox(podSandboxID)
	if err != nil {
		return err
	}
	s.op.Lock()
	defer s.op.Unlock()
	return r.stopSandbox(ctx, s)
}

func (r *Runtime) stopSandbox(ctx context.Context, s *sandbox) error {
	errs := each(r.containersOf(s.id), func(c *container) error { return r.StopContainer(ctx, c.id, 0) })
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("stop pod sandbox %s: %w", s.id, err)
	}
	s.mu.Lock()
	was := s.ready
	s.ready = false
	s.mu.Unlock()
	ctx, cancel := detach(ctx)
	defer cancel()
	if err := r.tearDown(ctx, s); err != nil {
		return fmt.Errorf("stop pod sandbox %s: %w", s.id, err)
	}
	if was {
		return r.writeRecord(s, true)
	}
	return nil
}

// tearDown undoes build except for the record. It may be repeated.
func (r *Runtime) tearDown(ctx context.Context, s *sandbox) error {
	var errs []error
	if s.sharedPID() {
		errs = append(errs, r.removeInit(ctx, s))
	}
	if !s.hostNetwork() {
		errs = append(errs, r.network.Detach(ctx, s.pod()))
	}
	return errors.Join(append(errs, r.removeRun(s.id))...)
}

// removeRun takes down the pins and mounts of a sandbox, with their folder.
func (r *Runtime) removeRun(id string) error {
	dir := r.sandboxRun(id)
	if err := errors.Join(namespace.Remove(dir), namespace.Unmount(filepath.Join(dir, shmName)), removeMapped(filepath.Join(dir, mappedName))); err != nil {
		return err
	}
	if err := os.RemoveAll(dir); err != nil {
		return fmt.Errorf("folder of pod sandbox: %w", err)
	}
	return nil
}

// RemovePodSandbox stops the sandbox, removes its containers and everything kept about it. It may be repeated.
func (r *Runtime) RemovePodSandbox(ctx context.Context, podSandboxID string) error {
	s, err := r.sandbox(podSandboxID)
	if errors.Is(err, ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	s.op.Lock()
	defer s.op.Unlock()
	if err := r.stopSandbox(ctx, s); err != nil {
		return err
	}
	errs := each(r.containersOf(s.id), func(c *container) error { return r.RemoveContainer(ctx, c.id) })
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("remove pod sandbox %s: %w", s.id, err)
	}
	if err := r.forget(s); err != nil {
		return err
	}
	r.mu.Lock()
	delete(r.sandboxes, s.id)
	r.mu.Unlock()
	r.releaseUsers(s)
	return nil
}

func (r *Runtime) forget(s *sandbox) error {
	if err := os.Remove(r.recordPath(s.id)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("record of pod sandbox %s: %w", s.id, err)
	}
	return nil
}
