// Package proxy serves service addresses and cluster DNS on one machine:
// kube-proxy's role, and the name server's.
//
// It watches Services and EndpointSlices, builds from them the table of this
// node (package table, pure), and has a backend bring the kernel to it. Every
// sync starts from the whole desired state, so a missed event or a crash heals
// by itself; the rules of the last run serve on until the first sync replaces
// them. It talks to nobody but the API server.
package proxy

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"path/filepath"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	corelisters "k8s.io/client-go/listers/core/v1"
	"k8s.io/client-go/tools/cache"

	"github.com/skiff-run/skiff/internal/activity"
	"github.com/skiff-run/skiff/proxy/announce"
	"github.com/skiff-run/skiff/proxy/conntrack"
	"github.com/skiff-run/skiff/proxy/dns"
	"github.com/skiff-run/skiff/proxy/healthcheck"
	"github.com/skiff-run/skiff/proxy/policy"
	"github.com/skiff-run/skiff/proxy/table"
)

// settle is how long changes are collected before they are programmed: long
// enough for the two halves of one change (a service and its slices), too
// short for a person to notice.
const settle = 3 * time.Millisecond

// retry is how long a failed sync waits for its next try.
const retry = time.Second

// checkPeriod is how long a rule that somebody else removed may be missing.
const checkPeriod = 30 * time.Second

// retirePeriod is how long connections that live on in what another mode left
// may keep it before the next look.
const retirePeriod = 10 * time.Second

// Backend brings the kernel to a table. It may implement Instrumented too.
type Backend interface {
	Sync(ctx context.Context, t *table.Table) error
	// Check says what somebody else changed of what Sync programmed, empty for
	// nothing. After a change the next Sync restores everything.
	Check(ctx context.Context) (string, error)
	// Print returns what Sync would program on a kernel that has nothing of it.
	Print(t *table.Table) string
}

// Instrumented is a backend that has metrics of its own.
type Instrumented interface {
	Collectors() []prometheus.Collector
}

// Config of a proxy.
type Config struct {
	Client   kubernetes.Interface
	NodeName string
	// Mode is the name of the backend, for people.
	Mode    string
	Backend Backend
	// Retire removes what other backends left in the kernel. It is called once
	// Backend serves, and again while it returns false. Nil: there is nothing.
	Retire func(context.Context) (bool, error)
	// NodePorts says which addresses of the node serve node ports.
	NodePorts table.NodePortAddresses
	// CheckPeriod is how often the kernel is compared with what was programmed;
	// 0: every 30 seconds.
	CheckPeriod time.Duration
	// MinSyncPeriod is the least time from one sync to the next.
	MinSyncPeriod time.Duration
	// DNS serves names too; nil turns it off.
	DNS *dns.Config
	// Announce answers for addresses of load balancers on the network.
	Announce bool
	// NetworkPolicy enforces NetworkPolicies; StateDir keeps what has to be known
	// at a start while the API is away.
	NetworkPolicy bool
	StateDir      string
	// HealthAddress and MetricsAddress are host:port; empty turns one off.
	HealthAddress, MetricsAddress string
	Logger                        *slog.Logger
}

// Proxy serves one machine.
type Proxy struct {
	config Config
	node   table.Node
	// nodePorts says which addresses of the node serve node ports now.
	nodePorts atomic.Pointer[table.NodePortAddresses]
	builder   table.Builder
	flows     conntrack.Flows
	factory   informers.SharedInformerFactory
	// own watches the one Node that this machine is.
	own      informers.SharedInformerFactory
	nodes    corelisters.NodeLister
	services corelisters.ServiceLister
	// namespaces are watched for names only.
	namespaces corelisters.NamespaceLister
	slices     cache.Indexer
	changed    chan struct{}
	// begun is when the last sync began.
	begun  time.Time
	health *health
	checks *healthcheck.Servers
	// conflicts are those that were logged.
	conflicts map[table.Conflict]bool
	names     *dns.Server
	policies  *policy.Controller
	announcer *announce.Controller
	// work is the loop's; programmed is closed once it has succeeded the first time.
	work       activity.Activity
	programmed chan struct{}
}

// New returns a proxy that Run starts.
func New(config Config) (*Proxy, error) {
	p := &Proxy{
		config: config, node: table.Node{Name: config.NodeName},
		changed: make(chan struct{}, 1), health: newHealth(config.Mode), programmed: make(chan struct{}),
	}
	p.nodePorts.Store(&config.NodePorts)
	if instrumented, has := config.Backend.(Instrumented); has {
		for _, collector := range instrumented.Collectors() {
			if err := p.health.registry.Register(collector); err != nil {
				return nil, fmt.Errorf("register the metrics of the backend: %w", err)
			}
		}
	}
	p.checks = healthcheck.New(p.health.healthy)
	p.own = informers.NewSharedInformerFactoryWithOptions(config.Client, 0, informers.WithTransform(forget),
		informers.WithTweakListOptions(func(o *metav1.ListOptions) {
			o.FieldSelector = fields.OneTermEqualSelector(metav1.ObjectNameField, config.NodeName).String()
		}))
	p.nodes = p.own.Core().V1().Nodes().Lister()
	p.factory = informers.NewSharedInformerFactoryWithOptions(config.Client, 0, informers.WithTransform(forget))
	p.services = p.factory.Core().V1().Services().Lister()
	endpointSlices := p.factory.Discovery().V1().EndpointSlices().Informer()
	if err := endpointSlices.AddIndexers(cache.Indexers{byService: indexByService}); err != nil {
		return nil, fmt.Errorf("index endpoint slices: %w", err)
	}
	p.slices = endpointSlices.GetIndexer()
	if config.DNS != nil {
		if err := endpointSlices.AddIndexers(cache.Indexers{byAddress: headlessAddresses}); err != nil {
			return nil, fmt.Errorf("index endpoint slices: %w", err)
		}
		if err := p.factory.Core().V1().Services().Informer().AddIndexers(cache.Indexers{byAddress: clusterAddresses}); err != nil {
			return nil, fmt.Errorf("index services: %w", err)
		}
		p.namespaces = p.factory.Core().V1().Namespaces().Lister()
	}
	for _, informer := range []cache.SharedIndexInformer{p.factory.Core().V1().Services().Informer(), endpointSlices, p.own.Core().V1().Nodes().Informer()} {
		if _, err := informer.AddEventHandler(cache.ResourceEventHandlerFuncs{
			AddFunc: func(any) { p.notice() }, UpdateFunc: func(before, after any) {
				if concernsUs(before, after) {
					p.notice()
				}
			}, DeleteFunc: func(any) { p.notice() },
		}); err != nil {
			return nil, fmt.Errorf("watch the API: %w", err)
		}
	}
	if config.Announce {
		p.announcer = announce.New(announce.Config{Client: config.Client, NodeName: config.NodeName, Owner: p.owner, Logger: config.Logger.With("component", "announce")})
	}
	if config.NetworkPolicy {
		policies, err := policy.New(policy.Config{
			Client: config.Client, NodeName: config.NodeName, Node: p.own.Core().V1().Nodes().Informer(),
			Delivered: config.Mode == "ipvs", StateFile: filepath.Join(config.StateDir, "policies"), CheckPeriod: config.CheckPeriod, Logger: config.Logger.With("component", "policy"),
		})
		if err != nil {
			return nil, err
		}
		p.policies = policies
		p.health.registry.MustRegister(policies.Collectors()...)
	}
	if config.DNS != nil {
		p.node.Excluded = []netip.Addr{config.DNS.Address}
		names, err := dns.NewServer(*config.DNS, &source{p})
		if err != nil {
			return nil, err
		}
		p.names = names
		p.health.registry.MustRegister(names.Collectors()...)
	}
	return p, nil
}

// Reload has a proxy that runs follow another configuration, of which NodePorts
// and, if names are served, the servers for names outside the cluster count.
func (p *Proxy) Reload(config Config) {
	p.nodePorts.Store(&config.NodePorts)
	if p.names != nil && config.DNS != nil {
		p.names.Forward(*config.DNS)
	}
	p.notice()
}

// Run serves until ctx ends. What is programmed stays in the kernel. The
// kernel is that of the calling thread's network namespace.
func (p *Proxy) Run(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	if p.names != nil {
		group.Go(func() error { return p.names.Run(ctx) })
	}
	if p.announcer != nil {
		group.Go(func() error { return p.announcer.Run(ctx) })
	}
	if p.policies != nil {
		group.Go(func() error { return p.policies.Run(ctx) })
	}
	group.Go(func() error { return p.health.serve(ctx, p.config.HealthAddress, p.config.MetricsAddress) })
	p.start(ctx)
	defer p.stop()
	defer p.checks.Close()
	if p.synced(ctx) {
		p.loop(ctx)
	}
	if err := group.Wait(); err != nil && !errors.Is(err, context.Canceled) {
		return err
	}
	return nil
}

// loop syncs once, then after each change, then again after a failure; and
// checks from time to time that nobody else changed what it programmed.
func (p *Proxy) loop(ctx context.Context) {
	check := time.NewTicker(cmp.Or(p.config.CheckPeriod, checkPeriod))
	defer check.Stop()
	retired := p.config.Retire == nil
	var retire <-chan time.Time
	for first := true; ; {
		var again <-chan time.Time
		if err := p.sync(ctx); err != nil {
			if ctx.Err() != nil {
				return
			}
			p.config.Logger.Error("programming services failed; trying again", "error", err)
			again = time.After(retry)
		} else {
			if first {
				close(p.programmed)
				first = false
			}
			if !retired && retire == nil {
				retire = time.After(0)
			}
		}
		for waiting := true; waiting; {
			switch p.wait(ctx, again, retire, check.C) {
			case ended:
				return
			case toRetire:
				retire = nil
				if retired = p.retire(ctx); !retired {
					retire = time.After(retirePeriod)
				}
			case toSync:
				waiting = false
			}
		}
	}
}

// retire removes what another mode left, which only now nobody needs any more:
// what is programmed serves new connections.
func (p *Proxy) retire(ctx context.Context) bool {
	defer p.work.Begin()()
	done, err := p.config.Retire(ctx)
	if err != nil && ctx.Err() == nil {
		p.config.Logger.Error("removing what another mode left failed; trying again", "error", err)
	}
	return done
}

// due is what wait waited for.
type due int

const (
	ended due = iota
	toSync
	toRetire
)

// wait returns what is to be done next.
func (p *Proxy) wait(ctx context.Context, again, retire, check <-chan time.Time) due {
	for {
		select {
		case <-ctx.Done():
			return ended
		case <-again:
			return toSync
		case <-retire:
			return toRetire
		case <-check:
			if p.check(ctx) {
				return toSync
			}
		case <-p.changed:
			// Let the rest of a burst arrive.
			select {
			case <-ctx.Done():
				return ended
			case <-time.After(max(settle, p.config.MinSyncPeriod-time.Since(p.begun))):
			}
			select {
			case <-p.changed:
			default:
			}
			return toSync
		}
	}
}

// check says whether somebody else changed what we programmed.
func (p *Proxy) check(ctx context.Context) bool {
	defer p.work.Begin()()
	changed, err := p.config.Backend.Check(ctx)
	switch {
	case err != nil:
		p.config.Logger.Warn("comparing the kernel with what was programmed failed", "error", err)
	case changed != "":
		p.health.restored.Inc()
		p.config.Logger.Warn("somebody else changed the rules of services; restoring them", "found", changed)
		return true
	}
	return false
}

func (p *Proxy) sync(ctx context.Context) error {
	defer p.work.Begin()()
	begin := time.Now()
	p.begun = begin
	pending := p.health.pendingSince()
	t, err := p.table()
	if err != nil {
		return err
	}
	if err := p.config.Backend.Sync(ctx, t); err != nil {
		return err
	}
	if p.announcer != nil {
		if err := p.announce(t); err != nil {
			return err
		}
	}
	p.health.synced(time.Since(begin), pending)
	p.logConflicts(t)
	// Only after the rules are in place: a flow that is forgotten earlier would
	// be made again by the old rules.
	flows := conntrack.FlowsOf(t)
	forgotten, err := flows.After(p.flows).Forget()
	if err != nil {
		return err
	}
	p.flows = flows
	p.config.Logger.Debug("services programmed", "ports", len(t.Ports), "duration", time.Since(begin), "forgottenFlows", forgotten)
	return p.checks.Sync(t.HealthChecks, t.NodePortRanges)
}

// logConflicts tells of each conflict once while it lasts.
func (p *Proxy) logConflicts(t *table.Table) {
	now := map[table.Conflict]bool{}
	for _, c := range t.Conflicts {
		now[c] = true
		if !p.conflicts[c] {
			p.config.Logger.Warn("two services claim the same; only the first is served there", "claim", c.Claim, "servicePort", c.Port, "holder", c.Holder)
		}
	}
	p.conflicts = now
}
