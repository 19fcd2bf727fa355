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
	"net/netip"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/knftables"

	"github.com/skiff-run/skiff/proxy/table"
)

// TableName is the name of our tables.
const TableName = "skiff-proxy"

// Options of the backend.
type Options struct {
	// ClusterCIDRs are the ranges of all pods. What comes from elsewhere to a
	// cluster address is masqueraded, because the answer would not find back.
	ClusterCIDRs []netip.Prefix
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
	state
	// verified is the kernel's generation of rules at which the table was found
	// intact; 0 for never.
	verified uint32
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

// Check compares the kernel with what the last Sync left there and says what
// somebody else changed, empty for nothing. After a change the next Sync starts
// from scratch. It costs next to nothing while nobody touches nftables.
func (b *Backend) Check(context.Context) (string, error) {
	for _, f := range b.families {
		if f.programmed == nil {
			continue
		}
		changed, err := f.check()
		if err != nil {
			return "", fmt.Errorf("check table %s %s: %w", f.kind, TableName, err)
		}
		if changed != "" {
			f.state = state{}
			return changed, nil
		}
	}
	return "", nil
}

// Print returns the transactions that Sync would run from scratch, as nft
// reads them.
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
	if tx == nil {
		return nil
	}
	if tx.NumOperations() > 0 {
		if err := f.nft.Run(ctx, tx); err != nil {
			f.state = state{}
			return err
		}
	}
	f.state = next
	return nil
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
