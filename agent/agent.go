package agent

import (
	"context"
	"crypto/tls"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"
	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/scheme"
	corev1client "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/tools/record"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	mount "k8s.io/mount-utils"

	"github.com/skiff-run/skiff/agent/admission"
	"github.com/skiff-run/skiff/agent/allocation"
	"github.com/skiff-run/skiff/agent/criconfig"
	"github.com/skiff-run/skiff/agent/csi"
	"github.com/skiff-run/skiff/agent/devices"
	"github.com/skiff-run/skiff/agent/eviction"
	"github.com/skiff-run/skiff/agent/hook"
	"github.com/skiff-run/skiff/agent/hostfiles"
	"github.com/skiff-run/skiff/agent/housekeeping"
	"github.com/skiff-run/skiff/agent/image"
	"github.com/skiff-run/skiff/agent/localvolume"
	"github.com/skiff-run/skiff/agent/node"
	"github.com/skiff-run/skiff/agent/objects"
	"github.com/skiff-run/skiff/agent/podsource"
	"github.com/skiff-run/skiff/agent/podworker"
	"github.com/skiff-run/skiff/agent/probe"
	"github.com/skiff-run/skiff/agent/resources"
	"github.com/skiff-run/skiff/agent/server"
	"github.com/skiff-run/skiff/agent/shutdown"
	"github.com/skiff-run/skiff/agent/statuswriter"
	"github.com/skiff-run/skiff/agent/usage"
	"github.com/skiff-run/skiff/agent/volume"
	"github.com/skiff-run/skiff/internal/config"
	"github.com/skiff-run/skiff/runtime/spec"
)

// Runtime is everything the agent needs of a container runtime.
type Runtime interface {
	podworker.Runtime
	image.Runtime
	image.Store
	volume.ImageMounts
	server.Runtime
	hook.Executor
	node.Runtime
	usage.Runtime
	Events() <-chan *runtimeapi.ContainerEventResponse
	// Collector tells how long its operations took.
	prometheus.Collector
}

// Host is what the agent changes on the machine besides containers.
type Host interface {
	podworker.Cgroups
	housekeeping.Cgroups
	// Usage tells what groups of pods and the machine use.
	Usage() usage.Cgroups
	// CgroupParent names a pod's cgroup for the runtime.
	CgroupParent(uid types.UID, class v1.PodQOSClass) string
	// CgroupDriver is cgroupfs or systemd.
	CgroupDriver() string
	// SetupCgroups makes the tree of all pods' cgroups.
	SetupCgroups(ctx context.Context) error
	// LimitPods holds all pods together to amounts of cpu, memory and pid; LimitCgroup somebody else's cgroup.
	LimitPods(ctx context.Context, amounts v1.ResourceList) error
	LimitCgroup(ctx context.Context, name string, amounts v1.ResourceList) error
	// SetBurstableShares weighs the burstable pods together against the guaranteed ones.
	SetBurstableShares(ctx context.Context, shares uint64) error
	// PodsMemory is what all pods together use, and how much they may, 0 for no limit, in bytes.
	PodsMemory() (workingSet, limit uint64, err error)
	// Unified: the machine has cgroup v2.
	Unified() bool
	SetPodCIDRs(ctx context.Context, ranges []netip.Prefix) error
	SetPeers(ctx context.Context, peers []node.Peer) error
}

// Config of an Agent.
type Config struct {
	Settings *config.Agent
	NodeName string
	NodeIP   net.IP
	Version  string
	Client   kubernetes.Interface
	// Reviews asks who may use the HTTPS endpoint; Client when nil.
	Reviews kubernetes.Interface
	Runtime Runtime
	Host    Host
	Logger  *slog.Logger
	// Certificate is that of the HTTPS endpoint; nil: that of the settings' files.
	Certificate func(*tls.ClientHelloInfo) (*tls.Certificate, error)
	// EvictionEvery is how often the machine is looked at for pressure, and how old the sizes of volumes may be;
	// 0: every 10 s, and a minute.
	EvictionEvery time.Duration
	// Ready is called once, when the HTTPS endpoint listens.
	Ready func()
}

// Agent runs the pods of one machine.
type Agent struct {
	Config
	facts    *node.Facts
	reserved resources.Reservations
	vitals   atomic.Pointer[vitals]
	// live are the settings in force, where they may have changed since the start.
	live atomic.Pointer[config.Agent]
	// changing are the parts that follow them, nil until they run.
	changing atomic.Pointer[changing]
}

// New checks the machine and makes the agent's directories.
func New(c Config) (*Agent, error) {
	s := c.Settings
	for dir, mode := range map[string]os.FileMode{
		s.RootDir: 0o750, filepath.Join(s.RootDir, "pods"): 0o750, s.PodLogsDir: 0o755, s.ContainerLogsDir: 0o755, s.StateDir: 0o700,
	} {
		if err := os.MkdirAll(dir, mode); err != nil {
			return nil, fmt.Errorf("make the agent's directories: %w", err)
		}
	}
	facts, err := node.ReadFacts(s.RootDir, s.MaxPods, c.Version)
	if err != nil {
		return nil, err
	}
	reserved, err := resources.NewReservations(&s.Resources, facts.Capacity)
	if err != nil {
		return nil, err
	}
	facts.Offered = reserved.Allocatable(facts.Capacity)
	a := &Agent{Config: c, facts: facts, reserved: reserved}
	a.live.Store(s)
	return a, nil
}

// Run runs the agent until ctx ends. Pods run on afterwards.
func (a *Agent) Run(ctx context.Context) error {
	if err := a.Host.SetupCgroups(ctx); err != nil {
		return fmt.Errorf("make the cgroups of the pods: %w", err)
	}
	broadcaster := record.NewBroadcaster(record.WithContext(ctx))
	defer broadcaster.Shutdown()
	broadcaster.StartRecordingToSink(&corev1client.EventSinkImpl{Interface: a.Client.CoreV1().Events("")})
	events := broadcaster.NewRecorder(scheme.Scheme, v1.EventSource{Component: "kubelet", Host: a.NodeName})

	group, ctx := errgroup.WithContext(ctx)
	background := func(run func(context.Context)) { group.Go(func() error { run(ctx); return nil }) }

	// The pool, and what it and others ask, know each other: later ones are reached through variables.
	var pool *podworker.Pool
	var evictor *eviction.Manager
	var nodes *node.Manager
	plugins, err := devices.New(devices.Config{
		Dir: filepath.Join(a.Settings.RootDir, "device-plugins"), File: filepath.Join(a.Settings.StateDir, "devices.json"), Logger: a.Logger, Now: time.Now,
		Changed: func() { nodes.Wake() }, Health: func(uid types.UID) { pool.Wake(uid) },
	})
	if err != nil {
		return err
	}
	processors, cpusets, err := a.newCPUManager()
	if err != nil {
		return err
	}
	var volumes *volume.Manager
	nodes = node.NewManager(node.Config{
		Client: a.Client, Runtime: a.Runtime, Events: events, Logger: a.Logger, Name: a.NodeName, IP: a.NodeIP,
		Labels: a.Settings.NodeLabels, Taints: a.Settings.Taints(), Port: int32(a.Settings.Port), Facts: a.facts, MaxImages: a.Settings.NodeStatusMaxImages,
		Pressure:    func() node.Pressure { return pressures(evictor) },
		Annotations: a.annotations(), VolumesInUse: func() []v1.UniqueVolumeName { return volumes.VolumesInUse() }, Devices: plugins.Capacity,
	})
	services := node.NewServices(a.Client)
	routes := newRoutes(a.Host, a.Logger, nodes.Wake)
	peers := node.NewPeers(a.Client, a.NodeName, nodes.Observed, routes.signal)
	routes.peers = peers

	var ending *shutdown.Manager
	followed := objects.New(ctx, a.Client, func(uid types.UID) { pool.Refresh(uid) })
	probes := probe.NewManager(ctx, a.Runtime, events, func(uid types.UID) { pool.Wake(uid) })
	drivers := &csi.Registry{
		Client: a.Client, Node: a.NodeName, Dir: filepath.Join(a.Settings.RootDir, "plugins_registry"), Logger: a.Logger,
		NodeKnown: func() bool { return nodes.Object() != nil },
	}
	volumes = volume.New(volume.Config{
		RootDir: a.Settings.RootDir, Objects: followed, Tokens: tokens{a.Client}, Mounter: mount.New(""), MemoryCapacity: a.facts.Memory, Now: time.Now,
		Claims: claims{a.Client, nodes}, ImageMounts: a.Runtime, CSI: drivers, Changed: nodes.Wake,
		TrustBundles: objects.NewTrustBundles(ctx, a.Client, func(uid types.UID) { pool.Refresh(uid) }),
	})
	writer := statuswriter.New(a.Client, a.Logger)
	statuses := &mirrored{Writer: writer}
	var resolver atomic.Pointer[hostfiles.Resolver]
	if names, err := newResolver(a.Settings); err == nil {
		resolver.Store(names)
	} else {
		return err
	}
	allocations, err := allocation.Open(filepath.Join(a.Settings.StateDir, "allocations"), a.Logger)
	if err != nil {
		return err
	}
	puller, collector, err := a.images(events, nodes.Ref())
	if err != nil {
		return err
	}
	policy := a.policy()
	policy.Exclusive, policy.Shared = processors.Exclusive, processors.Shared
	gate := &gate{agent: a, nodes: nodes, devices: plugins, cpus: processors, policy: policy, events: events, wake: make(chan struct{}, 1)}
	pool = podworker.NewPool(ctx, podworker.Config{
		Runtime: a.Runtime, Cgroups: a.Host, Volumes: volumes, Objects: followed, Images: puller, Handler: (&runtimeClasses{client: a.Client}).Handler,
		Probes: probes, Hooks: hook.NewRunner(a.Runtime, events), Status: statuses, Node: nodeView{nodes, services}, Events: events, Logger: a.Logger, Now: time.Now,
		ContainerLogsDir: a.Settings.ContainerLogsDir, HostsFile: "/etc/hosts",
		CRI: &criconfig.Node{
			PodLogsDir: a.Settings.PodLogsDir, SeccompDir: filepath.Join(a.Settings.RootDir, "seccomp"), SeccompDefault: a.Settings.SeccompDefault, RecursiveReadOnly: spec.RecursiveReadOnly(),
			Resolver: resolver.Load, Limits: policy, CgroupParent: a.Host.CgroupParent,
		},
		Allocations: allocations,
		Devices:     plugins, AdmitResize: gate.resize, Admit: gate.admit,
	})
	ending = shutdown.New(shutdown.Config{
		Priorities: a.Settings.ShutdownPriorities(), Pods: pool, Tell: nodes.End, Events: events, Node: nodes.Ref(), Logger: a.Logger,
	})
	api := podsource.NewAPI(a.Client, a.NodeName, pool)
	statuses.api = api
	static := podsource.NewStatic(a.Settings.StaticPodPath, a.NodeName, pool, a.Logger)
	mirrors := &mirrorKeeper{api: api, pool: pool, nodes: nodes, logger: a.Logger, mirrors: map[types.UID]types.UID{}}
	staticRead := make(chan struct{})
	keeper := &housekeeping.Keeper{
		Runtime: a.Runtime, Pods: pool, Volumes: volumes, Cgroups: a.Host, PodLogsDir: a.Settings.PodLogsDir, ContainerLogsDir: a.Settings.ContainerLogsDir, Logger: a.Logger,
	}

	used := usage.New(usage.Config{
		NodeName: a.NodeName, RootDir: a.Settings.RootDir, Runtime: a.Runtime, Cgroups: a.Host.Usage(), Pods: pool, Volumes: volumes, Logger: a.Logger,
		VolumesAge: a.EvictionEvery,
	})

	if evictor, err = a.evictor(pool, used, collector, events, nodes.Ref(), nodes.Wake); err != nil {
		return err
	}
	gate.evictor, gate.ending = evictor, ending
	a.vitals.Store(&vitals{pool: pool, nodes: nodes})
	a.changing.Store(&changing{resolver: &resolver, evictor: evictor, collector: collector, ending: ending, nodes: nodes})
	enforcer := &enforcer{agent: a, pods: pool.Pods, events: events, node: nodes.Ref()}
	background(enforcer.run)
	background(func(ctx context.Context) { gate.run(ctx, pool) })
	group.Go(func() error { return plugins.Run(ctx) })
	background(nodes.Run)
	background(used.Run)
	background(ending.Run)
	background(peers.Run)
	background(drivers.Run)
	if dir := a.Settings.LocalVolumesDir; dir != "" {
		background((&localvolume.Keeper{Client: a.Client, Node: a.NodeName, Dir: dir, Logger: a.Logger}).Run)
	}
	background(services.Run)
	background(routes.run)
	background(writer.Run)
	background(func(ctx context.Context) { a.followRuntime(ctx, pool) })
	background(collector.Run)
	background(func(ctx context.Context) {
		if a.Settings.StaticPodPath == "" {
			close(staticRead)
			return
		}
		static.Read()
		close(staticRead)
		static.Run(ctx)
	})
	background(api.Run)
	// Only who has seen the pods, those of the API and those of the directory, can
	// tell which remains and which mirrors belong to none.
	for _, run := range []func(context.Context){mirrors.run, keeper.Run, pool.RunResizes, evictor.Run, func(ctx context.Context) {
		plugins.Known()
		processors.Known()
		cpusets.run(ctx, pool)
	}} {
		background(func(ctx context.Context) {
			if closed(ctx, staticRead) && closed(ctx, api.Synced()) {
				run(ctx)
			}
		})
	}
	group.Go(func() error { return a.serve(ctx, pool, used, probes, nodes) })
	err = group.Wait()
	pool.Wait()
	probes.Wait()
	return err
}

// closed waits for a channel's end; false: ctx ended first.
func closed(ctx context.Context, c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	case <-ctx.Done():
		return false
	}
}

// followRuntime wakes the workers whose containers changed. An event without
// a pod means that some may have been lost.
func (a *Agent) followRuntime(ctx context.Context, pool *podworker.Pool) {
	for {
		select {
		case <-ctx.Done():
			return
		case e, ok := <-a.Runtime.Events():
			if !ok {
				return
			}
			if uid := types.UID(e.GetPodSandboxStatus().GetMetadata().GetUid()); uid != "" {
				pool.Wake(uid)
			} else {
				pool.WakeAll()
			}
		}
	}
}

// serve runs the HTTPS endpoint.
func (a *Agent) serve(ctx context.Context, pool *podworker.Pool, used *usage.Collector, probes *probe.Manager, nodes *node.Manager) error {
	reviews := a.Reviews
	if reviews == nil {
		reviews = a.Client
	}
	authn, authz, clientTLS, err := server.Delegated(ctx, reviews, a.Settings.ClientCAFile)
	if err != nil {
		return err
	}
	certificate := a.Certificate
	if certificate == nil {
		if certificate, err = server.Certificate(a.Settings.TLSCertFile, a.Settings.TLSKeyFile); err != nil {
			return err
		}
	}
	s := server.New(server.Config{
		NodeName: a.NodeName, Address: net.JoinHostPort("", strconv.Itoa(a.Settings.Port)), Certificate: certificate, Authenticator: authn, Authorizer: authz,
		ClientTLS: clientTLS, Runtime: a.Runtime, Pods: pool, Usage: used, Logger: a.Logger,
		Metrics: a.metrics(pool, used), Probes: serveMetrics(probes), Healthy: nodes.Healthy, SystemLogDir: a.systemLogs(),
		Configuration: func() any { return kubeletConfiguration(a.live.Load(), a.Host.CgroupDriver()) },
	})
	return s.Run(ctx, func(address net.Addr) {
		a.Logger.Info("agent serves", "node", a.NodeName, "address", address.String())
		if a.Ready != nil {
			a.Ready()
		}
	})
}

// admissionNode is the node as pods are judged by.
func (a *Agent) admissionNode(nodes *node.Manager) admission.Node {
	return admission.Node{
		Object: nodes.Object(), Allocatable: a.facts.Allocatable(), UnsafeSysctls: a.live.Load().AllowedUnsafeSysctls, AppArmor: spec.AppArmor(), SELinux: spec.SELinux(),
	}
}
