package runtime

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"time"

	containerd "github.com/containerd/containerd/v2/client"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"github.com/skiff-run/skiff/runtime/cgroup"
	"github.com/skiff-run/skiff/runtime/images"
	"github.com/skiff-run/skiff/runtime/logs"
	"github.com/skiff-run/skiff/runtime/namespace"
	"github.com/skiff-run/skiff/runtime/network"
	"github.com/skiff-run/skiff/runtime/spec"
)

// Runtime runs pods on containerd. Its methods may be called from many goroutines.
type Runtime struct {
	options Options
	logger  *slog.Logger
	client  *containerd.Client
	cgroups *cgroup.Manager
	network *network.Network
	images  *images.Store
	disk    *images.DiskUsage
	imageFs string // where the snapshotter keeps the layers
	pumps   logs.Pumps
	machine spec.Machine
	users   userCache
	events  notifier
	bootID  string

	stop    context.CancelFunc // ends life
	life    context.Context    // of the goroutines that belong to nobody else
	running sync.WaitGroup

	mu         sync.RWMutex // guards what follows
	sandboxes  map[string]*sandbox
	containers map[string]*container
	userRanges map[string]namespace.Mapping // of the sandboxes with users of their own, by sandbox
	connected  bool                         // the event stream stands
	version    string
}

// New connects to containerd, finds the sandboxes and containers of an earlier
// process again and begins to follow events. ctx bounds only the start: when
// containerd does not answer, New returns an error after ctx ends.
func New(ctx context.Context, o Options) (*Runtime, error) {
	if err := o.complete(); err != nil {
		return nil, err
	}
	r := &Runtime{options: o, logger: o.Logger, sandboxes: map[string]*sandbox{}, containers: map[string]*container{}, userRanges: map[string]namespace.Mapping{}}
	r.life, r.stop = context.WithCancel(context.Background())
	r.users.init()
	r.events.init()
	if err := r.open(ctx); err != nil {
		return nil, errors.Join(err, r.Close())
	}
	return r, nil
}

func (r *Runtime) open(ctx context.Context) error {
	for _, dir := range []string{r.sandboxRecords(), r.sandboxRuns(), r.pipes("")} {
		if err := os.MkdirAll(dir, 0o711); err != nil {
			return fmt.Errorf("runtime folder: %w", err)
		}
	}
	// Commands that an earlier process ran are over for us.
	if err := os.RemoveAll(r.execPipes("")); err != nil {
		return fmt.Errorf("old exec pipes: %w", err)
	}
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return fmt.Errorf("read boot ID: %w", err)
	}
	r.bootID = string(boot[:max(len(boot)-1, 0)])
	if r.cgroups, err = cgroup.New(cgroup.Options{Root: r.options.CgroupRoot, Driver: r.options.CgroupDriver, Logger: r.logger}); err != nil {
		return err
	}
	if r.machine, err = spec.Inspect(r.cgroups.Unified(), r.options.SeccompProfileRoot); err != nil {
		return fmt.Errorf("inspect machine: %w", err)
	}
	if floor := r.machine.OOMScoreFloor; floor != nil {
		r.logger.Warn("CAP_SYS_RESOURCE is missing: containers' oom_score_adj cannot be lower than the floor", "floor", *floor)
	}
	if spec.AppArmorIdle() {
		r.logger.Warn("the kernel has AppArmor, but containers run without a profile, because apparmor_parser is missing: install the package apparmor")
	}
	if r.network, err = network.New(r.options.Network); err != nil {
		return err
	}
	// A short back-off: a containerd that was restarted should be found at once.
	reconnect := grpc.ConnectParams{
		Backoff:           backoff.Config{BaseDelay: 20 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: 500 * time.Millisecond},
		MinConnectTimeout: time.Second,
	}
	r.client, err = containerd.New(r.options.ContainerdAddress,
		containerd.WithDefaultNamespace(r.options.Namespace), containerd.WithDefaultRuntime(defaultHandler.Type),
		containerd.WithExtraDialOpts([]grpc.DialOption{grpc.WithConnectParams(reconnect)}))
	if err != nil {
		return fmt.Errorf("connect to containerd at %s: %w", r.options.ContainerdAddress, err)
	}
	if _, err := r.client.IsServing(ctx); err != nil {
		return fmt.Errorf("containerd at %s does not answer: %w; is it running?", r.options.ContainerdAddress, err)
	}
	r.images = images.New(images.Options{
		Client: r.client, Namespace: r.options.Namespace, Snapshotter: r.options.Snapshotter, ConfigDir: r.options.RegistryConfigDir, Logger: r.logger,
	})
	r.disk = &images.DiskUsage{Snapshots: r.client.SnapshotService(r.options.Snapshotter)}
	r.imageFs = r.images.Root(ctx)
	if err := r.restore(ctx); err != nil {
		return err
	}
	r.running.Add(1)
	go func() {
		defer r.running.Done()
		r.events.run(r.life)
	}()
	return r.follow(ctx)
}

// Close stops following events and lets go of the output pipes, in which the output waits for the next process. Containers run on.
func (r *Runtime) Close() error {
	r.mu.Lock() // no new background work is begun behind our back
	r.stop()
	r.mu.Unlock()
	r.running.Wait()
	r.mu.RLock()
	var pumps []*logs.Pump
	for _, c := range r.containers {
		c.mu.Lock()
		if c.pump != nil {
			pumps = append(pumps, c.pump)
		}
		c.mu.Unlock()
	}
	r.mu.RUnlock()
	for _, p := range pumps {
		p.Abandon()
	}
	r.pumps.Close()
	if r.network != nil {
		r.network.Close()
	}
	if r.cgroups != nil {
		r.cgroups.Close()
	}
	if r.client != nil {
		return r.client.Close()
	}
	return nil
}

// Events reports containers that were created, started, stopped or deleted.
// An event with an empty ContainerId asks for a complete look: events may have been
// lost because the connection to containerd broke or the reader was slow. PodSandboxStatus carries Id, Metadata and State.
func (r *Runtime) Events() <-chan *runtimeapi.ContainerEventResponse { return r.events.out }

// Cgroups manages the pods' cgroups.
func (r *Runtime) Cgroups() *cgroup.Manager { return r.cgroups }

// SetPodCIDRs sets the ranges from which pods of this machine get addresses. Until then NetworkReady is false.
func (r *Runtime) SetPodCIDRs(ctx context.Context, cidrs []netip.Prefix) error {
	ready := r.network.Ready()
	if err := r.network.SetPodCIDRs(ctx, cidrs); err != nil || ready {
		return err
	}
	return r.reconcileNetwork(ctx)
}

// SetPeers sets the other machines of the cluster, whose pods are reached by routes.
func (r *Runtime) SetPeers(ctx context.Context, peers []network.Peer) error {
	return r.network.SetPeers(ctx, peers)
}

// Status returns the conditions RuntimeReady and NetworkReady.
func (r *Runtime) Status(_ context.Context, _ bool) (*runtimeapi.StatusResponse, error) {
	r.mu.RLock()
	connected := r.connected
	r.mu.RUnlock()
	runtime := &runtimeapi.RuntimeCondition{Type: runtimeapi.RuntimeReady, Status: connected}
	if !connected {
		runtime.Reason, runtime.Message = "ContainerdNotReady", fmt.Sprintf("containerd at %s does not answer", r.options.ContainerdAddress)
	}
	net := &runtimeapi.RuntimeCondition{Type: runtimeapi.NetworkReady, Status: r.network.Ready()}
	if !net.Status {
		net.Reason, net.Message = "NetworkPluginNotReady", network.ErrNotReady.Error()
	}
	handlers := []*runtimeapi.RuntimeHandler{{}}
	for name := range r.options.Handlers {
		handlers = append(handlers, &runtimeapi.RuntimeHandler{Name: name})
	}
	for _, h := range handlers {
		h.Features = &runtimeapi.RuntimeHandlerFeatures{RecursiveReadOnlyMounts: r.machine.RecursiveReadOnly, UserNamespaces: r.usersSupported() == nil}
	}
	return &runtimeapi.StatusResponse{
		Status:          &runtimeapi.RuntimeStatus{Conditions: []*runtimeapi.RuntimeCondition{runtime, net}},
		RuntimeHandlers: handlers,
		Features:        &runtimeapi.RuntimeFeatures{SupplementalGroupsPolicy: true},
	}, nil
}

// Cleanup removes every container, sandbox, mount, link and table of the runtime that
// o describes, and its folders. No Runtime may be using them. When containerd does not
// answer, its records stay, and the error says so; the rest is removed all the same.
func Cleanup(ctx context.Context, o Options) error {
	connect, cancel := context.WithTimeout(ctx, cleanupPatience)
	defer cancel()
	r, err := New(connect, o)
	if err != nil {
		return errors.Join(fmt.Errorf("clean up containers: %w", err), cleanMachine(ctx, o))
	}
	var errs []error
	list, err := r.ListPodSandbox(ctx, nil)
	errs = append(errs, err)
	errs = append(errs, each(list, func(s *runtimeapi.PodSandbox) error { return r.RemovePodSandbox(ctx, s.GetId()) })...)
	// Last the shims: what a killed process left running in the pods' cgroups has ended by then.
	errs = append(errs, r.cgroups.RemoveAll(ctx), r.sweep(ctx), r.removeImageMounts(ctx), r.Close())
	return errors.Join(append(errs, cleanMachine(ctx, o))...)
}

// cleanupPatience is how long Cleanup waits for containerd.
const cleanupPatience = 10 * time.Second

// cleanMachine removes what is not containerd's.
func cleanMachine(ctx context.Context, o Options) error {
	if err := o.complete(); err != nil {
		return err
	}
	r := &Runtime{options: o, logger: o.Logger}
	cgroups, err := cgroup.New(cgroup.Options{Root: o.CgroupRoot, Driver: o.CgroupDriver, Logger: o.Logger})
	errs := []error{err}
	if err == nil {
		errs = append(errs, cgroups.RemoveAll(ctx))
		cgroups.Close()
	}
	runs, err := os.ReadDir(r.sandboxRuns())
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		errs = append(errs, err)
	}
	for _, e := range runs {
		errs = append(errs, r.removeRun(e.Name()))
	}
	errs = append(errs, network.Cleanup(ctx, o.Network))
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("clean up machine: %w", err) // a folder may hold a mount
	}
	for _, dir := range []string{r.sandboxRecords(), r.sandboxRuns(), r.pipes(""), r.execPipes(""), r.initRoot(nil), r.accounts()} {
		errs = append(errs, os.RemoveAll(dir))
	}
	return errors.Join(errs...)
}

// each runs f for all items at the same time and collects the errors.
func each[T any](items []T, f func(T) error) []error {
	errs := make([]error, len(items))
	var wg sync.WaitGroup
	for i, item := range items {
		wg.Go(func() { errs[i] = f(item) })
	}
	wg.Wait()
	return errs
}

// Folders. What must survive a reboot lies in the state folder, pins and pipes in the run folder.

func (r *Runtime) sandboxRecords() string { return filepath.Join(r.options.StateDir, "sandboxes") }

func (r *Runtime) sandboxRuns() string { return filepath.Join(r.options.RunDir, "sandboxes") }

func (r *Runtime) sandboxRun(id string) string { return filepath.Join(r.sandboxRuns(), id) }

func (r *Runtime) pipes(containerID string) string {
	return filepath.Join(r.options.RunDir, "io", containerID)
}

func (r *Runtime) execPipes(execID string) string {
	return filepath.Join(r.options.RunDir, "exec", execID)
}

// initRoot is the root of a pod's init process. One with users of its own has a
// folder they can reach.
func (r *Runtime) initRoot(s *sandbox) string {
	if s != nil && s.users != nil {
		return filepath.Join(r.sandboxRun(s.id), "init")
	}
	return filepath.Join(r.options.StateDir, "podinit")
}

// accounts is where an image is mounted, privately, to look up a user.
func (r *Runtime) accounts() string { return filepath.Join(r.options.RunDir, "accounts") }

// patience bounds a step that is not given up in the middle because its caller went away.
const patience = 2 * time.Minute

// detach gives a step its own bound: once begun it must come to an end that is known.
func detach(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.WithoutCancel(ctx), patience)
}
