package policy

import (
	"context"
	"fmt"
	"maps"
	"slices"

	"golang.org/x/sys/unix"
	"sigs.k8s.io/knftables"

	"github.com/skiff-run/skiff/proxy/nftables/inventory"
)

// TableName is the name of our table, of the family inet.
const TableName = "skiff-policy"

// Kernel brings the table of the calling thread's network namespace to a
// Ruleset. It is not safe for concurrent use.
type Kernel struct {
	nft knftables.Interface
	// programmed is what the table has; nil when that is not known.
	programmed *Ruleset
	// empty says that there is no table.
	empty bool
	// verified is the kernel's generation of rules at which the table was found
	// intact; 0 for never.
	verified uint32
}

// NewKernel returns a Kernel. The error says what the machine lacks.
func NewKernel() (*Kernel, error) {
	nft, err := knftables.New(knftables.InetFamily, TableName)
	if err != nil {
		return nil, fmt.Errorf("use nftables for network policies: %w; it needs the program nft (apt-get install nftables) and root; networkPolicy: false does without", err)
	}
	return &Kernel{nft: nft}, nil
}

// Sync makes the table hold r, in one transaction of what differs; nil removes
// the table. After an error the next call starts from scratch.
func (k *Kernel) Sync(ctx context.Context, r *Ruleset) error {
	tx := k.nft.NewTransaction()
	switch {
	case r != nil:
		r.transition(tx, k.programmed)
	case !k.empty:
		// Adding first makes the deletion succeed when there is nothing.
		tx.Add(&knftables.Table{})
		tx.Delete(&knftables.Table{})
	}
	if tx.NumOperations() > 0 {
		if err := k.nft.Run(ctx, tx); err != nil {
			k.programmed, k.empty = nil, false
			return fmt.Errorf("program table inet %s: %w", TableName, err)
		}
	}
	k.programmed, k.empty = r, r == nil
	return nil
}

// Check compares the kernel with what the last Sync left there and says what
// somebody else changed, empty for nothing. After a change the next Sync starts
// from scratch. It costs next to nothing while nobody touches nftables.
func (k *Kernel) Check(context.Context) (string, error) {
	if k.programmed == nil {
		return "", nil
	}
	before, err := inventory.Generation()
	if err != nil || before == k.verified {
		return "", err
	}
	want := inventory.New()
	for chain, rules := range k.programmed.chains {
		want.Rules[chain] = len(rules)
	}
	for name, s := range k.programmed.sets {
		want.Elements[name] = len(s.elements)
	}
	has, err := inventory.Table{Family: unix.NFPROTO_INET, Name: TableName}.Read(slices.Sorted(maps.Keys(want.Elements)))
	if err != nil {
		return "", fmt.Errorf("check table inet %s: %w", TableName, err)
	}
	if changed := want.Difference(has); changed != "" {
		k.programmed = nil
		return changed, nil
	}
	k.verified = before
	return "", nil
}

// Print returns the transaction that Sync would run from scratch, as nft reads it.
func (k *Kernel) Print(r *Ruleset) string {
	if r == nil {
		return ""
	}
	tx := k.nft.NewTransaction()
	r.transition(tx, nil)
	return tx.String()
}

// exists says whether the kernel has a table of ours, whoever made it.
func (k *Kernel) exists(ctx context.Context) (bool, error) {
	chains, err := k.nft.List(ctx, "chains")
	if knftables.IsNotFound(err) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("look for table inet %s: %w", TableName, err)
	}
	return len(chains) > 0, nil
}

// Cleanup removes the table and nothing else; that it is not there is fine, and
// so is a machine without nftables, which cannot have it.
func Cleanup(ctx context.Context) error {
	k, err := NewKernel()
	if err != nil {
		return nil
	}
	if there, err := k.exists(ctx); err != nil || !there {
		return err
	}
	return k.Sync(ctx, nil)
}
