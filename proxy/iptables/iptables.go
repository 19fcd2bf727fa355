// Package iptables programs a table of service ports into the kernel with
// iptables, under the names that administrators know from kube-proxy:
// KUBE-SERVICES leads to a KUBE-SVC chain for each service port, and that to a
// KUBE-SEP chain for each endpoint.
//
// A sync is one run of iptables-restore that names only the chains that
// changed. Chains that many services share get single rules added and removed
// when few of them change. It works with both programs called iptables, the one
// on nf_tables and the legacy one, and touches no chain or rule of others.
package iptables

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"

	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"

	"github.com/skiff-run/skiff/proxy/table"
)

// Options of the backend.
type Options struct {
	// ClusterCIDRs are the ranges of all pods, at most one of each family. What
	// comes from elsewhere to a cluster address is masqueraded.
	ClusterCIDRs []netip.Prefix
	// Variant is nft or legacy; empty: what the machine calls iptables.
	Variant Variant
	// LocalhostNodePorts serves node ports on 127.0.0.0/8 too, where the
	// addresses of node ports contain it. It makes the kernel route that range
	// (route_localnet), and a rule keeps others from using that.
	LocalhostNodePorts bool
	Logger             *slog.Logger
}

// Backend programs both families. It is not safe for concurrent use.
type Backend struct {
	families []*family
	metrics  *metrics
	// others is what another variant of the program may hold; nil once it is
	// known to hold nothing of ours.
	others []*program
	logger *slog.Logger
}

// family is one address family and what was programmed for it last.
type family struct {
	kind    corev1.IPFamily
	program *program
	options Options
	metrics *metrics
	state
	seal seal
}

// New returns a backend. The error says what the machine lacks.
func New(options Options) (*Backend, error) {
	if options.Logger == nil {
		options.Logger = slog.New(slog.DiscardHandler)
	}
	b := &Backend{metrics: newMetrics(), logger: options.Logger}
	for _, kind := range []corev1.IPFamily{corev1.IPv4Protocol, corev1.IPv6Protocol} {
		f := &family{kind: kind, options: options, metrics: b.metrics}
		if len(f.clusterCIDRs()) > 1 {
			return nil, fmt.Errorf("clusterCIDR: mode iptables takes one range of each address family, not %v", f.clusterCIDRs())
		}
		program, err := findProgram(kind, options.Variant)
		if err != nil {
			return nil, err
		}
		f.program = program
		b.families = append(b.families, f)
		b.others = append(b.others, program.others()...)
	}
	return b, nil
}

// Collectors are the metrics of the backend.
func (b *Backend) Collectors() []prometheus.Collector { return b.metrics.collectors() }

// Sync makes the kernel serve the table. After an error the next call starts
// from scratch.
func (b *Backend) Sync(ctx context.Context, t *table.Table) error {
	var errs []error
	for _, f := range b.families {
		if err := f.sync(ctx, t); err != nil {
			errs = append(errs, fmt.Errorf("program services of %s with %s: %w", f.kind, f.program.restore, err))
		}
	}
	if len(errs) == 0 {
		// Only now: what the other variant holds serves until this one does.
		errs = append(errs, b.retireOthers(ctx))
	}
	return errors.Join(errs...)
}

// retireOthers removes what an earlier run left in the tables of the other
// variant, for the machine may have changed which one it uses.
func (b *Backend) retireOthers(ctx context.Context) error {
	for len(b.others) > 0 {
		if err := b.others[0].cleanup(ctx); err != nil {
			return err
		}
		b.others = b.others[1:]
	}
	return nil
}

// Check compares the kernel with what the last Sync left there and says what
// somebody else changed, empty for nothing. After a change the next Sync starts
// from scratch.
func (b *Backend) Check(ctx context.Context) (string, error) {
	for _, f := range b.families {
		if f.programmed == nil {
			continue
		}
		changed, err := f.check(ctx)
		if err != nil {
			return "", fmt.Errorf("check the rules of %s: %w", f.kind, err)
		}
		if changed != "" {
			f.state = state{}
			return changed, nil
		}
	}
	return "", nil
}

// Print returns what Sync would run from scratch, as iptables-restore reads it.
func (b *Backend) Print(t *table.Table) string {
	text := ""
	for _, f := range b.families {
		fresh := &family{kind: f.kind, options: f.options, program: f.program, metrics: newMetrics()}
		tx, _ := fresh.transaction(t, nil)
		if tx == nil {
			continue
		}
		for _, j := range jumps() {
			tx.insert(chainKey{j.table, j.from}, j.rule())
		}
		text += "# " + f.program.restore + " --noflush\n" + tx.String()
	}
	return text
}

func (f *family) sync(ctx context.Context, t *table.Table) error {
	large := f.large
	f.large = isLarge(f.large, t, f.kind)
	if f.environment(t) != f.programmedFor || f.large != large {
		// All chains may be different. They are written over those that are there.
		f.state = state{large: f.large}
	}
	var found *inventory
	if f.programmed == nil {
		var err error
		if found, err = f.program.inventory(ctx, chainsOnly); err != nil {
			return err
		}
	}
	tx, next := f.transaction(t, found)
	if tx == nil {
		return nil
	}
	err := f.apply(ctx, tx, found, f.localhost(t.NodePortRanges))
	if err != nil {
		f.state = state{large: f.large}
		return err
	}
	f.state = next
	f.metrics.programmed(f)
	return nil
}

// apply brings a transaction to the kernel; a full one, which knows what was
// found there, after the jumps from the kernel's own chains.
func (f *family) apply(ctx context.Context, tx *transaction, found *inventory, localhost bool) error {
	if found != nil {
		if localhost {
			if err := routeLocalnet(); err != nil {
				return err
			}
		}
		if err := f.program.ensureJumps(found); err != nil {
			f.metrics.failed(err)
			return err
		}
	}
	if tx.empty() {
		return nil
	}
	err := f.program.run(ctx, tx)
	if err != nil {
		f.metrics.failed(err)
	}
	return err
}
