package announce

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"strings"
	"sync"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
	"k8s.io/utils/ptr"

	"github.com/skiff-run/skiff/internal/addresspool"
)

// callLimit is how long one request to the API may take.
const callLimit = time.Second

// Announcer answers for addresses on the network. Set is called with all that
// this machine answers for.
type Announcer interface {
	Set(addresses []netip.Addr) error
	Close()
}

// Config of a Controller.
type Config struct {
	Client   kubernetes.Interface
	NodeName string
	// Owner returns the Node of this machine, with which its Lease goes; nil when
	// it is not known.
	Owner func() *metav1.OwnerReference
	// Announcer makes what Run uses and closes; nil: a Network.
	Announcer func(conflict func(netip.Addr)) Announcer
	Logger    *slog.Logger
}

// Controller takes part in the agreement on who announces what. It watches and
// writes Leases only while there are addresses.
type Controller struct {
	config    Config
	announcer Announcer
	changed   chan struct{}

	mu sync.Mutex // guards what follows
	// wanted are the addresses of all services, and whether this machine may have
	// them.
	wanted map[netip.Addr]bool
	leases map[netip.Addr]*coordinationv1.Lease
	held   map[netip.Addr]holding
	// heard are the machines' signs of life.
	heard map[string]beat
	// mine are the addresses that are announced here, yielded those that another
	// machine announces while the API cannot be asked.
	mine    map[netip.Addr]bool
	yielded map[netip.Addr]bool
	// beaten is when the API last took a sign of life of this machine.
	beaten time.Time
}

// beat is a sign of life: the version of its Lease and when it was seen here.
type beat struct {
	version string
	at      time.Time
}

// New returns a controller that Run starts.
func New(config Config) *Controller {
	c := &Controller{config: config, changed: make(chan struct{}, 1)}
	c.forget()
	if config.Announcer != nil {
		c.announcer = config.Announcer(c.conflict)
	} else {
		c.announcer = NewNetwork(config.Logger, c.conflict)
	}
	return c
}

func (c *Controller) forget() {
	c.leases, c.held, c.heard = map[netip.Addr]*coordinationv1.Lease{}, map[netip.Addr]holding{}, map[string]beat{}
	c.mine, c.yielded = map[netip.Addr]bool{}, map[netip.Addr]bool{}
}

// Want sets the addresses that some machine has to announce, and whether this
// one may. It may be called at any time.
func (c *Controller) Want(addresses map[netip.Addr]bool) {
	c.mu.Lock()
	same := maps.Equal(c.wanted, addresses)
	c.wanted = addresses
	c.mu.Unlock()
	if !same {
		c.notice()
	}
}

// conflict says that another machine announces an address.
func (c *Controller) conflict(address netip.Addr) {
	c.mu.Lock()
	defer c.mu.Unlock()
	// While the API answers it tells who has it; it is an echo of the past then,
	// or a stranger's.
	if c.mine[address] && time.Since(c.beaten) > patience {
		c.yielded[address] = true
		c.config.Logger.Warn("another machine announces an address while the API is away; it gets it", "address", address)
		c.notice()
	}
}

func (c *Controller) notice() {
	select {
	case c.changed <- struct{}{}:
	default:
	}
}

func (c *Controller) any() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.wanted) > 0
}

// Run takes part until ctx ends; then nothing is announced any more, and the
// others take over.
func (c *Controller) Run(ctx context.Context) error {
	defer c.announcer.Close()
	for {
		if c.any() {
			if err := c.participate(ctx); err != nil {
				return err
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-c.changed:
		}
	}
}

// participate works while there are addresses.
func (c *Controller) participate(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	factory := informers.NewSharedInformerFactoryWithOptions(c.config.Client, 0, informers.WithNamespace(addresspool.LeaseNamespace))
	informer := factory.Coordination().V1().Leases().Informer()
	var beating sync.WaitGroup
	defer func() {
		cancel()
		factory.Shutdown()
		beating.Wait()
		c.mu.Lock()
		c.forget()
		c.mu.Unlock()
	}()
	if _, err := informer.AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc:    func(object any) { c.see(object) },
		UpdateFunc: func(_, object any) { c.see(object) },
		DeleteFunc: c.gone,
	}); err != nil {
		return fmt.Errorf("watch leases of load balancers' addresses: %w", err)
	}
	factory.StartWithContext(ctx)
	if !cache.WaitForCacheSync(ctx.Done(), informer.HasSynced) {
		return nil
	}
	beating.Go(func() { c.beat(ctx) })
	for c.any() {
		next := c.step(ctx)
		timer := time.NewTimer(time.Until(next))
		if next.IsZero() {
			timer.Stop()
		}
		select {
		case <-ctx.Done():
			timer.Stop()
			return nil
		case <-timer.C:
		case <-c.changed:
			timer.Stop()
		}
	}
	return c.announcer.Set(nil)
}

// see takes in a Lease.
func (c *Controller) see(object any) {
	lease, ok := object.(*coordinationv1.Lease)
	if !ok || !strings.HasPrefix(lease.Name, addresspool.LeasePrefix) {
		return
	}
	holder := ptr.Deref(lease.Spec.HolderIdentity, "")
	c.mu.Lock()
	defer c.mu.Unlock()
	if address, of := addressOf(lease); of {
		c.leases[address] = lease
		if before, known := c.held[address]; !known || before.holder != holder {
			c.held[address] = holding{holder, time.Now()}
			c.notice()
		}
		return
	}
	if c.heard[holder].version != lease.ResourceVersion {
		c.heard[holder] = beat{lease.ResourceVersion, time.Now()}
	}
}

func (c *Controller) gone(object any) {
	if tombstone, ok := object.(cache.DeletedFinalStateUnknown); ok {
		object = tombstone.Obj
	}
	lease, ok := object.(*coordinationv1.Lease)
	if !ok {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if address, of := addressOf(lease); of {
		delete(c.leases, address)
		delete(c.held, address)
		c.notice()
	}
}

// addressAnnotation has the address of a Lease, which its name cannot hold for IPv6.
const addressAnnotation = "skiff.dev/address"

func addressOf(lease *coordinationv1.Lease) (netip.Addr, bool) {
	address, err := netip.ParseAddr(lease.Annotations[addressAnnotation])
	return address, err == nil
}

// step decides about every address once, acts, and returns when to look again.
func (c *Controller) step(ctx context.Context) (next time.Time) {
	now := time.Now()
	earliest := func(t time.Time) {
		if !t.IsZero() && (next.IsZero() || t.Before(next)) {
			next = t
		}
	}
	c.mu.Lock()
	var taking, releasing []netip.Addr
	holdingNow := map[netip.Addr]bool{}
	for address, eligible := range c.wanted {
		h, known := c.held[address]
		if !known {
			h = holding{since: now}
			c.held[address] = h
		}
		what, again := decide(now, c.config.NodeName, address, eligible, h, c.heard[h.holder].at)
		earliest(again)
		switch what {
		case hold:
			holdingNow[address] = true
		case take:
			taking = append(taking, address)
		case release:
			releasing = append(releasing, address)
		}
	}
	c.mine = holdingNow
	c.mu.Unlock()
	c.announce()
	for _, address := range releasing {
		if err := c.write(ctx, address, ""); err != nil {
			c.config.Logger.Warn("giving up an address failed; trying again", "address", address, "error", err)
			earliest(now.Add(beatEvery))
		}
	}
	for _, address := range taking {
		if err := c.take(ctx, address); err != nil {
			c.config.Logger.Debug("an address was not taken", "address", address, "error", err)
			earliest(now.Add(spread))
		}
	}
	return next
}

// announce has the network know what is ours.
func (c *Controller) announce() {
	c.mu.Lock()
	var ours []netip.Addr
	for address := range c.mine {
		if !c.yielded[address] {
			ours = append(ours, address)
		}
	}
	c.mu.Unlock()
	if err := c.announcer.Set(ours); err != nil {
		c.config.Logger.Warn("announcing addresses failed; trying again", "error", err)
	}
}

var errAlive = errors.New("its holder has given a sign of life")

// take makes an address ours, unless its holder lives or another is faster.
func (c *Controller) take(ctx context.Context, address netip.Addr) error {
	c.mu.Lock()
	h := c.held[address]
	known := c.heard[h.holder]
	c.mu.Unlock()
	if h.holder != "" {
		// The watch may be late: the API itself is asked before somebody counts as dead.
		ctx, cancel := context.WithTimeout(ctx, callLimit)
		lease, err := c.config.Client.CoordinationV1().Leases(addresspool.LeaseNamespace).Get(ctx, beatName(h.holder), metav1.GetOptions{})
		cancel()
		if err != nil && !apierrors.IsNotFound(err) {
			return fmt.Errorf("ask for a sign of life of %s: %w", h.holder, err)
		}
		if err == nil && lease.ResourceVersion != known.version {
			c.see(lease)
			return errAlive
		}
	}
	if err := c.write(ctx, address, c.config.NodeName); err != nil {
		return err
	}
	c.config.Logger.Info("this machine announces an address now", "address", address, "before", h.holder)
	return nil
}

// write sets the holder of an address, if nobody else has changed it since we saw it.
func (c *Controller) write(ctx context.Context, address netip.Addr, holder string) error {
	ctx, cancel := context.WithTimeout(ctx, callLimit)
	defer cancel()
	leases := c.config.Client.CoordinationV1().Leases(addresspool.LeaseNamespace)
	now := metav1.NowMicro()
	c.mu.Lock()
	seen := c.leases[address]
	c.mu.Unlock()
	var written *coordinationv1.Lease
	var err error
	if seen == nil {
		lease := &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{
			Name: addresspool.LeaseName(address), Annotations: map[string]string{addressAnnotation: address.String()},
		}}
		lease.Spec.HolderIdentity, lease.Spec.AcquireTime, lease.Spec.LeaseTransitions = &holder, &now, ptr.To[int32](0)
		written, err = leases.Create(ctx, lease, metav1.CreateOptions{})
	} else {
		lease := seen.DeepCopy()
		lease.Spec.HolderIdentity, lease.Spec.AcquireTime = &holder, &now
		lease.Spec.LeaseTransitions = ptr.To(ptr.Deref(lease.Spec.LeaseTransitions, 0) + 1)
		written, err = leases.Update(ctx, lease, metav1.UpdateOptions{})
	}
	if err != nil {
		return fmt.Errorf("write the lease of address %s: %w", address, err)
	}
	c.see(written)
	return nil
}

func beatName(node string) string { return addresspool.LeasePrefix + "node-" + node }

// beat gives a sign of life again and again while this machine has addresses.
func (c *Controller) beat(ctx context.Context) {
	ticker := time.NewTicker(beatEvery)
	defer ticker.Stop()
	var last *coordinationv1.Lease
	for {
		c.mu.Lock()
		holds := len(c.mine) > 0
		c.mu.Unlock()
		if holds {
			written, err := c.renew(ctx, last)
			switch {
			case err == nil:
				last = written
				c.mu.Lock()
				c.beaten = time.Now()
				if len(c.yielded) > 0 {
					// The API tells again who has what.
					c.yielded = map[netip.Addr]bool{}
					c.notice()
				}
				c.mu.Unlock()
			case ctx.Err() == nil:
				last = nil
				c.config.Logger.Debug("a sign of life did not reach the API", "error", err)
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
	}
}

// renew writes our sign of life after the last one, which is nil when it is not known.
func (c *Controller) renew(ctx context.Context, last *coordinationv1.Lease) (*coordinationv1.Lease, error) {
	ctx, cancel := context.WithTimeout(ctx, callLimit)
	defer cancel()
	leases := c.config.Client.CoordinationV1().Leases(addresspool.LeaseNamespace)
	now := metav1.NowMicro()
	if last == nil {
		lease, err := leases.Get(ctx, beatName(c.config.NodeName), metav1.GetOptions{})
		if apierrors.IsNotFound(err) {
			lease = &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Name: beatName(c.config.NodeName)}}
			if owner := c.config.Owner(); owner != nil {
				lease.OwnerReferences = []metav1.OwnerReference{*owner}
			}
			lease.Spec.HolderIdentity, lease.Spec.RenewTime, lease.Spec.LeaseDurationSeconds = &c.config.NodeName, &now, ptr.To[int32](2)
			return leases.Create(ctx, lease, metav1.CreateOptions{})
		}
		if err != nil {
			return nil, err
		}
		last = lease
	}
	lease := last.DeepCopy()
	lease.Spec.RenewTime = &now
	return leases.Update(ctx, lease, metav1.UpdateOptions{})
}
