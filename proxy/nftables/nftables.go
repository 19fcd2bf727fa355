// Package nftables programs a table of service ports into the kernel with
// nftables: verdict maps lead from an address and port to a chain of the
// service, so that the cost of a packet does not grow with the services.
//
// One sync is one transaction, and holds only what changed since the last one.
// The first sync of a process replaces whatever an earlier one left, in one
// transaction too: established connections live in conntrack and notice
// nothing. Everything is in two tables of our own, ip and ip6 skiff-proxy.
package nftables

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/knftables"

	"github.com/skiff-run/skiff/proxy/table"
)

// TableName is the name of our tables.
const TableName = "skiff-proxy"

// Options of the backend.
type Options struct {
	// ClusterCIDR is the range of all pods. What comes from elsewhere to a
	// cluster address is masqueraded, because the answer would not find back.
	ClusterCIDR netip.Prefix
	// NodePortAddresses limits node ports to local addresses in these ranges.
	NodePortAddresses []netip.Prefix
}

// Backend programs both families. It is not safe for concurrent use.
type Backend struct {
	families []*family
}

// family is one table and what was programmed into it last.
type family struct {
	kind    corev1.IPFamily
	nft     knftables.Interface
	options Options
	// programmed is what the kernel holds, by service port; nil before the
	// first sync and after one that failed.
	programmed map[string]*rendered
}

// New returns a backend. The error says what the machine lacks.
func New(options Options) (*Backend, error) {
	b := &Backend{}
	for _, kind := range []struct {
		family corev1.IPFamily
		nft    knftables.Family
	}{{corev1.IPv4Protocol, knftables.IPv4Family}, {corev1.IPv6Protocol, knftables.IPv6Family}} {
		nft, err := knftables.New(kind.nft, TableName)
		if err != nil {
			return nil, fmt.Errorf("use nftables: %w; it needs the program nft (apt-get install nftables) and root", err)
		}
		b.families = append(b.families, &family{kind: kind.family, nft: nft, options: options})
	}
	return b, nil
}

// Sync makes the kernel serve the table. After an error the next call starts
// from scratch.
func (b *Backend) Sync(ctx context.Context, t *table.Table) error {
	var errs []error
	for _, f := range b.families {
		if err := f.sync(ctx, t); err != nil {
			errs = append(errs, fmt.Errorf("program table %s %s: %w", f.kind, TableName, err))
		}
	}
	return errors.Join(errs...)
}

// Print returns the transactions that Sync would run from scratch.
func (b *Backend) Print(t *table.Table) string {
	text := ""
	for _, f := range b.families {
		fresh := &family{kind: f.kind, nft: f.nft, options: f.options}
		if tx, _ := fresh.transaction(t); tx != nil {
			text += tx.String()
		}
	}
	return text
}

func (f *family) sync(ctx context.Context, t *table.Table) error {
	tx, next := f.transaction(t)
	if tx == nil || tx.NumOperations() == 0 {
		return nil
	}
	if err := f.nft.Run(ctx, tx); err != nil {
		f.programmed = nil
		return err
	}
	f.programmed = next
	return nil
}

// transaction is the difference between what is programmed and what should
// be. It is nil for a family without any service that never had one.
func (f *family) transaction(t *table.Table) (*knftables.Transaction, map[string]*rendered) {
	next := map[string]*rendered{}
	for i := range t.Ports {
		if port := &t.Ports[i]; port.Family() == f.kind {
			next[port.Name] = f.render(port)
		}
	}
	tx := f.nft.NewTransaction()
	if f.programmed == nil {
		if len(next) == 0 && f.kind == corev1.IPv6Protocol {
			return nil, nil
		}
		f.skeleton(tx)
	}
	// Elements go by the whole table, because ports share some: a cluster
	// address, a pod that talks to itself. Those that leave go first, so that an
	// address that moves between services is free; chains that are referred to
	// go last.
	had, has := elements(f.programmed), elements(next)
	for _, key := range slices.Sorted(maps.Keys(had)) {
		if _, stays := has[key]; !stays {
			tx.Delete(had[key])
		}
	}
	names := slices.Sorted(maps.Keys(next))
	for _, name := range names {
		next[name].addChains(tx, f.programmed[name])
	}
	for _, key := range slices.Sorted(maps.Keys(has)) {
		if _, stays := had[key]; !stays {
			tx.Add(has[key])
		}
	}
	for _, name := range slices.Sorted(maps.Keys(f.programmed)) {
		f.programmed[name].removeChains(tx, next[name])
	}
	return tx, next
}

// Cleanup removes both tables and nothing else.
func Cleanup(ctx context.Context) error {
	b, err := New(Options{})
	if err != nil {
		return err
	}
	var errs []error
	for _, f := range b.families {
		tx := f.nft.NewTransaction()
		// Adding first makes the deletion succeed when there is nothing.
		tx.Add(&knftables.Table{})
		tx.Delete(&knftables.Table{})
		if err := f.nft.Run(ctx, tx); err != nil {
			errs = append(errs, fmt.Errorf("remove table %s %s: %w", f.kind, TableName, err))
		}
	}
	return errors.Join(errs...)
}
