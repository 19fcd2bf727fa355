package ipvs

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/skiff-run/skiff/proxy/table"
)

// Options of the backend.
type Options struct {
	// ClusterCIDRs are the ranges of all pods. What comes from elsewhere to a
	// cluster address is masqueraded, because the answer would not find back.
	ClusterCIDRs []netip.Prefix
	// Scheduler chooses destinations, as the kernel names it; empty: rr.
	Scheduler string
	// ExcludeCIDRs are addresses whose virtual services are left alone unless a
	// service wants them, even if they look like ours.
	ExcludeCIDRs []netip.Prefix
	// StrictARP makes the machine answer ARP for the addresses of the link that
	// asks only, and so not for those of services.
	StrictARP bool
	// TCPTimeout, TCPFinTimeout and UDPTimeout are how long connections that say
	// nothing are remembered; 0 leaves the kernel's.
	TCPTimeout, TCPFinTimeout, UDPTimeout time.Duration
	Logger                                *slog.Logger
	// holders are the kinds of device to try for the addresses.
	holders []string
}

// Schedulers are those that may be chosen, as the kernel names them.
func Schedulers() []string { return []string{"rr", "wrr", "lc", "wlc", "sh", "mh", "dh", "sed", "nq"} }

// Backend programs both families. It is not safe for concurrent use.
type Backend struct {
	options Options
	kernel  *kernel
	holder  *holder
	filters []filter
	// state is nil when nothing is known of the kernel.
	state *state
	own   []netip.Addr
	// last is the table that was programmed last, rules what iptables-save listed
	// of it.
	last  *table.Table
	rules map[corev1.IPFamily][]string
}

// New returns a backend. The error says what the machine lacks.
func New(options Options) (*Backend, error) {
	if options.Scheduler == "" {
		options.Scheduler = "rr"
	}
	if options.Logger == nil {
		options.Logger = slog.New(slog.DiscardHandler)
	}
	if options.holders == nil {
		options.holders = []string{"dummy", "bridge"}
	}
	if _, err := exec.LookPath("ipset"); err != nil {
		return nil, fmt.Errorf("use IPVS: %w (apt-get install ipset)", err)
	}
	b := &Backend{options: options}
	for _, family := range families {
		if _, err := os.Stat("/proc/net/if_inet6"); family == corev1.IPv6Protocol && errors.Is(err, os.ErrNotExist) {
			continue // the kernel runs without IPv6
		}
		installed := filters(family)
		if len(installed) == 0 {
			return nil, errors.New("use IPVS: it needs the program iptables too (apt-get install iptables)")
		}
		b.filters = append(b.filters, installed[0])
	}
	if err := load(); err != nil {
		return nil, fmt.Errorf("use IPVS: %w", err)
	}
	var err error
	if b.kernel, err = openKernel(); err != nil {
		return nil, err
	}
	if b.holder, err = openHolder(); err != nil {
		b.kernel.close()
		return nil, err
	}
	options.Logger.Warn("Kubernetes has deprecated the mode ipvs; prefer nftables")
	return b, nil
}

// Sync makes the kernel serve the table. After an error the next call starts
// from what the kernel has.
func (b *Backend) Sync(ctx context.Context, t *table.Table) error {
	if err := b.sync(ctx, t); err != nil {
		b.state = nil
		return fmt.Errorf("program IPVS: %w", err)
	}
	b.last = t
	return nil
}

func (b *Backend) sync(ctx context.Context, t *table.Table) error {
	fresh := b.state == nil
	if fresh {
		if err := b.prepare(ctx); err != nil {
			return err
		}
	}
	s := b.state
	before := s.toCluster
	s.update(t, b.options.Scheduler, environmentOf(b.own, t.NodePortRanges))
	if fresh {
		if err := b.readServices(); err != nil {
			return err
		}
	}
	if err := b.extend(ctx); err != nil {
		return err
	}
	if err := b.writeRules(ctx, fresh, before); err != nil {
		return err
	}
	// Last of what is added: from here on packets come.
	for _, address := range s.missingHeld() {
		if err := b.holder.add(address); err != nil {
			return err
		}
		s.hasHeld[address] = true
	}
	return b.reduce(ctx)
}

// prepare reads what an earlier run left, and makes what does not depend on
// services but the rules.
func (b *Backend) prepare(ctx context.Context) error {
	if err := writeSysctls(b.sysctls()); err != nil {
		return err
	}
	if err := b.kernel.setTimeouts(timeouts{b.options.TCPTimeout, b.options.TCPFinTimeout, b.options.UDPTimeout}); err != nil {
		return err
	}
	if err := b.holder.ensure(b.options.holders...); err != nil {
		return err
	}
	if err := b.makeSets(ctx); err != nil {
		return err
	}
	elements, err := readSets(ctx)
	if err != nil {
		return err
	}
	held, own, err := b.holder.addresses()
	if err != nil {
		return err
	}
	b.own = own
	b.state = newState()
	b.state.found(elements, held)
	return nil
}

// makeSets makes the sets that are missing. One of our name and another type is
// made anew, without the rules that use it.
func (b *Backend) makeSets(ctx context.Context) error {
	headers, err := setHeaders(ctx)
	if err != nil {
		return err
	}
	for name, kind := range setKinds() {
		if header, there := headers[name]; there && header.kind != kind {
			b.options.Logger.Warn("an ipset of our name has another type; making it anew", "set", name, "type", header.kind)
			for _, f := range b.filters {
				if err := f.remove(ctx); err != nil {
					return err
				}
			}
			if err := restoreSets(ctx, []string{"destroy " + name}); err != nil {
				return err
			}
			delete(headers, name)
		}
	}
	var lines []string
	for _, family := range families {
		for _, set := range setTypes {
			if _, there := headers[setName(family, set.name)]; !there {
				lines = append(lines, createSet(family, set.name, set.kind))
			}
		}
	}
	return restoreSets(ctx, lines)
}

// readServices tells the state of the virtual services that the kernel has and
// that are wanted or ours.
func (b *Backend) readServices() error {
	s := b.state
	all, err := b.kernel.services()
	if err != nil {
		return err
	}
	for k := range all {
		if s.want[k] == nil && !b.ours(k) {
			delete(all, k)
		}
	}
	if s.has, err = b.kernel.present(all); err != nil {
		return err
	}
	for k := range s.has {
		s.changedKeys[k] = true
	}
	return nil
}

// ours says whether a virtual service that nobody wants was made by us.
func (b *Backend) ours(k key) bool {
	if slices.ContainsFunc(b.options.ExcludeCIDRs, func(p netip.Prefix) bool { return p.Contains(k.address) }) {
		return false
	}
	return b.state.hasElements[element{setName(familyOf(k.address), recordedServices), k.element()}] || b.state.hasHeld[k.address]
}

// extend adds what is missing to the sets and to IPVS.
func (b *Backend) extend(ctx context.Context) error {
	s := b.state
	if err := b.changeElements(ctx, s.missingElements(), element.add, true); err != nil {
		return err
	}
	for _, k := range s.keysInOrder() {
		if want := s.want[k]; want != nil {
			if err := b.do(extend(want, s.has[k])); err != nil {
				return err
			}
		}
	}
	return nil
}

// reduce takes away what is not wanted, as far as connections allow.
func (b *Backend) reduce(ctx context.Context) error {
	s := b.state
	for _, k := range s.keysInOrder() {
		if s.has[k] == nil {
			continue
		}
		if err := b.do(reduce(k, s.want[k], s.has[k])); err != nil {
			return err
		}
		if err := b.finish(k); err != nil {
			return err
		}
	}
	s.linger()
	for _, address := range s.excessHeld() {
		if err := b.holder.remove(address); err != nil {
			return err
		}
		delete(s.hasHeld, address)
	}
	if err := b.changeElements(ctx, s.excessElements(), element.remove, false); err != nil {
		return err
	}
	s.settled()
	return nil
}

// finish removes the unwanted destinations without connections of a virtual
// service, and it after them.
func (b *Backend) finish(k key) error {
	s := b.state
	if finished(s.want[k], s.has[k]) {
		return nil
	}
	destinations, err := b.kernel.destinations(k)
	if err != nil {
		return err
	}
	connections := make(map[netip.AddrPort]int, len(destinations))
	for address, d := range destinations {
		connections[address] = d.connections
	}
	return b.do(finish(k, s.want[k], s.has[k], connections))
}

func (b *Backend) do(operations []operation) error {
	for _, o := range operations {
		if err := b.kernel.do(o); err != nil {
			return err
		}
		o.apply(b.state.has)
	}
	return nil
}

func (b *Backend) changeElements(ctx context.Context, elements []element, line func(element) string, there bool) error {
	lines := make([]string, len(elements))
	for i, e := range elements {
		lines[i] = line(e)
	}
	if err := restoreSets(ctx, lines); err != nil {
		return err
	}
	for _, e := range elements {
		if there {
			b.state.hasElements[e] = true
		} else {
			delete(b.state.hasElements, e)
		}
	}
	return nil
}

// writeRules makes all rules when nothing is known of the kernel, later those
// that depend on services if they changed.
func (b *Backend) writeRules(ctx context.Context, fresh bool, before map[corev1.IPFamily][]string) error {
	if fresh {
		b.rules = map[corev1.IPFamily][]string{}
	}
	for _, f := range b.filters {
		rules := b.state.toCluster[f.family]
		if !fresh && slices.Equal(rules, before[f.family]) {
			continue
		}
		all := chains(f.family, b.options.ClusterCIDRs, rules)
		var insert []jump
		if fresh {
			saved, err := f.save(ctx)
			if err != nil {
				return err
			}
			insert = missing(saved)
		} else {
			all = slices.DeleteFunc(all, func(c chain) bool { return c.name != toClusterChain })
		}
		if err := f.restore(ctx, restoreText(all, insert)); err != nil {
			return err
		}
		saved, err := f.save(ctx)
		if err != nil {
			return err
		}
		b.rules[f.family] = saved
	}
	return nil
}

// Print returns what Sync would run on a kernel that has nothing of it: what
// ipset, ipvsadm-restore, iptables-restore and ip read.
func (b *Backend) Print(t *table.Table) string {
	_, own, err := b.holder.addresses()
	if err != nil {
		return "# " + err.Error() + "\n"
	}
	return printed(t, b.options, environmentOf(own, t.NodePortRanges))
}
