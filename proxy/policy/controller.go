package policy

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	apiequality "k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	corelisters "k8s.io/client-go/listers/core/v1"
	networkinglisters "k8s.io/client-go/listers/networking/v1"
	"k8s.io/client-go/tools/cache"

	"github.com/skiff-run/skiff/internal/activity"
)

// settle is how long changes are collected before they are programmed.
const settle = 10 * time.Millisecond

// retry is how long a failed sync waits for its next try.
const retry = time.Second

// checkPeriod is how long a rule that somebody else removed may be missing.
const checkPeriod = 30 * time.Second

// Config of a Controller.
type Config struct {
	Client   kubernetes.Interface
	NodeName string
	// Node is an informer of the one Node that this machine is; it is run by its owner.
	Node cache.SharedIndexInformer
	// Delivered says that services lead through IPVS, see Input.
	Delivered bool
	// StateFile remembers that there are policies, for a start while the API is away.
	StateFile string
	// CheckPeriod is how often the kernel is compared with what was programmed;
	// 0: every 30 seconds.
	CheckPeriod time.Duration
	Logger      *slog.Logger
}

// Controller keeps the kernel's table at what the API says. It watches Pods and
// Namespaces only while there is a NetworkPolicy.
type Controller struct {
	config   Config
	kernel   *Kernel
	changed  chan struct{}
	factory  informers.SharedInformerFactory
	policies networkinglisters.NetworkPolicyLister
	// members is nil while there is no policy.
	members *members

	// work is the loop's; programmed is closed once it has succeeded the first time.
	work       activity.Activity
	programmed chan struct{}

	duration prometheus.Histogram
	restored prometheus.Counter
	count    prometheus.Gauge
}

// members are the watches that only policies need.
type members struct {
	factory    informers.SharedInformerFactory
	pods       corelisters.PodLister
	namespaces corelisters.NamespaceLister
	cancel     context.CancelFunc
}

// New returns a controller that Run starts, for the calling thread's network namespace.
func New(config Config) (*Controller, error) {
	kernel, err := NewKernel()
	if err != nil {
		return nil, err
	}
	c := &Controller{
		config: config, kernel: kernel, changed: make(chan struct{}, 1), programmed: make(chan struct{}),
		duration: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "skiff_proxy_policy_sync_duration_seconds", Help: "Time to bring the kernel to the network policies, in seconds.",
			Buckets: prometheus.ExponentialBuckets(0.001, 2, 14),
		}),
		restored: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "skiff_proxy_policy_restored_total", Help: "Times that somebody else had changed the rules of network policies and all were written anew.",
		}),
		count: prometheus.NewGauge(prometheus.GaugeOpts{Name: "skiff_proxy_policies", Help: "Network policies in the cluster."}),
	}
	c.factory = informers.NewSharedInformerFactoryWithOptions(config.Client, 0, informers.WithTransform(forget))
	c.policies = c.factory.Networking().V1().NetworkPolicies().Lister()
	for _, informer := range []cache.SharedIndexInformer{c.factory.Networking().V1().NetworkPolicies().Informer(), config.Node} {
		if err := c.listen(informer); err != nil {
			return nil, err
		}
	}
	return c, nil
}

// Collectors are the controller's metrics.
func (c *Controller) Collectors() []prometheus.Collector {
	return []prometheus.Collector{c.duration, c.restored, c.count}
}

// Programmed is closed once the kernel has what the API says, the first time
// since Run.
func (c *Controller) Programmed() <-chan struct{} { return c.programmed }

// Busy is how long the loop has been at its present work; 0 while it waits.
func (c *Controller) Busy() time.Duration { return c.work.Lasts() }

// Run enforces policies until ctx ends. What is programmed stays in the kernel.
func (c *Controller) Run(ctx context.Context) error {
	if err := c.Guard(ctx); err != nil && ctx.Err() == nil {
		c.config.Logger.Error("pods may be open until network policies are read", "error", err)
	}
	c.factory.StartWithContext(ctx)
	defer c.factory.Shutdown()
	defer c.unwatch()
	if !c.synced(ctx, c.factory, c.config.Node) {
		return nil
	}
	check := time.NewTicker(cmp.Or(c.config.CheckPeriod, checkPeriod))
	defer check.Stop()
	for first := true; ; {
		var again <-chan time.Time
		if err := c.sync(ctx); err != nil {
			if ctx.Err() != nil {
				return nil
			}
			c.config.Logger.Error("programming network policies failed; trying again", "error", err)
			again = time.After(retry)
		} else if first {
			close(c.programmed)
			first = false
		}
		if !c.wait(ctx, again, check.C) {
			return nil
		}
	}
}

// Once programs the present state and returns.
func (c *Controller) Once(ctx context.Context) error {
	return c.present(ctx, func(r *Ruleset) error { return c.kernel.Sync(ctx, r) })
}

// Print returns what Once would program, and changes nothing.
func (c *Controller) Print(ctx context.Context) (text string, err error) {
	err = c.present(ctx, func(r *Ruleset) error {
		text = c.kernel.Print(r)
		return nil
	})
	return text, err
}

// present reads the whole state and hands over what it means.
func (c *Controller) present(ctx context.Context, use func(*Ruleset) error) error {
	ctx, cancel := context.WithCancel(ctx)
	c.factory.StartWithContext(ctx)
	defer c.factory.Shutdown()
	defer c.unwatch()
	defer cancel()
	if !c.synced(ctx, c.factory, c.config.Node) {
		return fmt.Errorf("read the network policies of the cluster: %w", ctx.Err())
	}
	r, err := c.desired(ctx)
	if err != nil {
		return err
	}
	return use(r)
}

func (c *Controller) synced(ctx context.Context, factory informers.SharedInformerFactory, more ...cache.SharedIndexInformer) bool {
	for _, ok := range factory.WaitForCacheSync(ctx.Done()) {
		if !ok {
			return false
		}
	}
	for _, informer := range more {
		if !cache.WaitForCacheSync(ctx.Done(), informer.HasSynced) {
			return false
		}
	}
	return true
}

// wait returns true when a sync is due, false when ctx has ended.
func (c *Controller) wait(ctx context.Context, again, check <-chan time.Time) bool {
	for {
		select {
		case <-ctx.Done():
			return false
		case <-again:
			return true
		case <-check:
			end := c.work.Begin()
			changed, err := c.kernel.Check(ctx)
			end()
			switch {
			case err != nil:
				c.config.Logger.Warn("comparing the kernel with the network policies failed", "error", err)
			case changed != "":
				c.restored.Inc()
				c.config.Logger.Warn("somebody else changed the rules of network policies; restoring them", "found", changed)
				return true
			}
		case <-c.changed:
			// Let the rest of a burst arrive.
			select {
			case <-ctx.Done():
				return false
			case <-time.After(settle):
			}
			select {
			case <-c.changed:
			default:
			}
			return true
		}
	}
}

func (c *Controller) sync(ctx context.Context) error {
	defer c.work.Begin()()
	begin := time.Now()
	r, err := c.desired(ctx)
	if err != nil {
		return err
	}
	if r != nil {
		// Before the rules: whoever dies in between leaves a guard too many, not one too few.
		if err := remember(c.config.StateFile, c.ranges()); err != nil {
			c.config.Logger.Warn("a restart without the API will not know that there are policies", "error", err)
		}
	}
	if err := c.kernel.Sync(ctx, r); err != nil {
		return err
	}
	if r == nil {
		c.unwatch()
		if err := remember(c.config.StateFile, nil); err != nil {
			c.config.Logger.Warn("pods may be cut off after a restart without the API", "error", err)
		}
		return nil
	}
	c.duration.Observe(time.Since(begin).Seconds())
	return nil
}

// desired is what the kernel has to hold, nil without any policy.
func (c *Controller) desired(ctx context.Context) (*Ruleset, error) {
	policies, err := c.policies.List(labels.Everything())
	if err != nil {
		return nil, fmt.Errorf("list network policies: %w", err)
	}
	c.count.Set(float64(len(policies)))
	if len(policies) == 0 {
		return nil, nil
	}
	if err := c.watch(ctx); err != nil {
		return nil, err
	}
	pods, err := c.members.pods.List(labels.Everything())
	if err != nil {
		return nil, fmt.Errorf("list pods: %w", err)
	}
	namespaces, err := c.members.namespaces.List(labels.Everything())
	if err != nil {
		return nil, fmt.Errorf("list namespaces: %w", err)
	}
	return Compile(Input{Node: c.config.NodeName, Ranges: c.ranges(), Policies: policies, Pods: pods, Namespaces: namespaces, Delivered: c.config.Delivered}), nil
}

// ranges are those of this node's pods.
func (c *Controller) ranges() []netip.Prefix {
	object, found, err := c.config.Node.GetStore().GetByKey(c.config.NodeName)
	node, ok := object.(*corev1.Node)
	if err != nil || !found || !ok {
		return nil
	}
	texts := node.Spec.PodCIDRs
	if len(texts) == 0 && node.Spec.PodCIDR != "" {
		texts = []string{node.Spec.PodCIDR}
	}
	var out []netip.Prefix
	for _, text := range texts {
		if prefix, ok := parsePrefix(text); ok {
			out = append(out, prefix)
		}
	}
	return out
}

// watch has Pods and Namespaces watched and waits for their first state.
func (c *Controller) watch(ctx context.Context) error {
	if c.members == nil {
		factory := informers.NewSharedInformerFactoryWithOptions(c.config.Client, 0, informers.WithTransform(forget))
		own, cancel := context.WithCancel(ctx)
		c.members = &members{factory: factory, pods: factory.Core().V1().Pods().Lister(), namespaces: factory.Core().V1().Namespaces().Lister(), cancel: cancel}
		for _, informer := range []cache.SharedIndexInformer{factory.Core().V1().Pods().Informer(), factory.Core().V1().Namespaces().Informer()} {
			if err := c.listen(informer); err != nil {
				c.unwatch()
				return err
			}
		}
		factory.StartWithContext(own)
	}
	if !c.synced(ctx, c.members.factory) {
		return fmt.Errorf("read the pods and namespaces of the cluster: %w", ctx.Err())
	}
	return nil
}

func (c *Controller) unwatch() {
	if c.members != nil {
		c.members.cancel()
		c.members.factory.Shutdown()
		c.members = nil
	}
}

func (c *Controller) listen(informer cache.SharedIndexInformer) error {
	_, err := informer.AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc: func(any) { c.notice() },
		UpdateFunc: func(before, after any) {
			if concerns(before, after) {
				c.notice()
			}
		},
		DeleteFunc: func(any) { c.notice() },
	})
	if err != nil {
		return fmt.Errorf("watch the API for network policies: %w", err)
	}
	return nil
}

func (c *Controller) notice() {
	select {
	case c.changed <- struct{}{}:
	default:
	}
}

// concerns says whether an update may change what is enforced: pods and nodes
// report much else.
func concerns(before, after any) bool {
	switch is := after.(type) {
	case *corev1.Node:
		was, ok := before.(*corev1.Node)
		return !ok || !slices.Equal(was.Spec.PodCIDRs, is.Spec.PodCIDRs)
	case *corev1.Pod:
		was, ok := before.(*corev1.Pod)
		return !ok || was.UID != is.UID || was.Spec.NodeName != is.Spec.NodeName || !slices.Equal(addresses(was), addresses(is)) ||
			!apiequality.Semantic.DeepEqual(was.Labels, is.Labels)
	case *corev1.Namespace:
		was, ok := before.(*corev1.Namespace)
		return !ok || !apiequality.Semantic.DeepEqual(was.Labels, is.Labels)
	case *networkingv1.NetworkPolicy:
		was, ok := before.(*networkingv1.NetworkPolicy)
		return !ok || !apiequality.Semantic.DeepEqual(was.Spec, is.Spec)
	}
	return true
}

// forget drops what nobody here reads before an object is kept.
func forget(object any) (any, error) {
	switch o := object.(type) {
	case *corev1.Pod:
		return slim(o), nil
	case *corev1.Namespace:
		o.ManagedFields, o.Annotations = nil, nil
	case *networkingv1.NetworkPolicy:
		o.ManagedFields, o.Annotations = nil, nil
	}
	return object, nil
}

// slim is the part of a pod that policies are about.
func slim(p *corev1.Pod) *corev1.Pod {
	out := &corev1.Pod{}
	out.Namespace, out.Name, out.UID, out.ResourceVersion = p.Namespace, p.Name, p.UID, p.ResourceVersion
	out.CreationTimestamp, out.Labels = p.CreationTimestamp, p.Labels
	out.Spec.NodeName, out.Spec.HostNetwork = p.Spec.NodeName, p.Spec.HostNetwork
	out.Status.Phase, out.Status.PodIPs = p.Status.Phase, p.Status.PodIPs
	ports := func(containers []corev1.Container) []corev1.Container {
		var kept []corev1.Container
		for i := range containers {
			named := slices.DeleteFunc(slices.Clone(containers[i].Ports), func(p corev1.ContainerPort) bool { return p.Name == "" })
			if len(named) > 0 {
				kept = append(kept, corev1.Container{Ports: named, RestartPolicy: containers[i].RestartPolicy})
			}
		}
		return kept
	}
	out.Spec.Containers, out.Spec.InitContainers = ports(p.Spec.Containers), ports(p.Spec.InitContainers)
	return out
}
