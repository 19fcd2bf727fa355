// Package tracking turns the kernel's connection tracking on before anything
// connects.
//
// The kernel tracks connections from the first rule on that needs it, and when
// that is a NAT rule it takes up the connections there are by then from the
// packets in flight. One over loopback it may take up twice, once for either
// direction; NAT then finds that the second collides with the first and gives
// it another port, and the connection is dead: the agent's to an API server on
// the same machine, for instance. A connection that is tracked from its
// beginning, or taken up while there is no NAT, is left alone.
//
// So everything that makes NAT rules, or connects before others do, turns
// tracking on first.
package tracking

import (
	"context"
	"fmt"

	"sigs.k8s.io/knftables"
)

// TableName is the name of our table, in the family inet.
const TableName = "skiff-tracking"

// On makes the kernel track connections in this network namespace. It may be
// repeated, and by several processes at once.
func On(ctx context.Context) error {
	nft, err := knftables.New(knftables.InetFamily, TableName)
	if err != nil {
		if found, failed := iptablesOn(); found {
			return failed
		}
		return fmt.Errorf("use nftables: %w; it needs the program nft (apt-get install nftables) and root", err)
	}
	tx := nft.NewTransaction()
	tx.Add(&knftables.Table{Comment: knftables.PtrTo("keeps connection tracking on, by skiff")})
	// No hook leads to the chain and nothing jumps to it: that the rule exists
	// is enough, and no packet pays for it.
	chain := &knftables.Chain{Name: "on"}
	tx.Add(chain)
	tx.Flush(chain)
	tx.Add(&knftables.Rule{Chain: chain.Name, Rule: "ct state new accept"})
	if err := nft.Run(ctx, tx); err != nil {
		return fmt.Errorf("turn connection tracking on: write nftables table %s: %w", TableName, err)
	}
	return nil
}

// Off removes what On made. It may be repeated.
func Off(ctx context.Context) error {
	if err := iptablesOff(); err != nil {
		return err
	}
	nft, err := knftables.New(knftables.InetFamily, TableName)
	if err != nil {
		return nil // without nftables no table of ours was ever made
	}
	tx := nft.NewTransaction()
	// Adding first makes the deletion succeed when there is nothing.
	tx.Add(&knftables.Table{})
	tx.Delete(&knftables.Table{})
	if err := nft.Run(ctx, tx); err != nil {
		return fmt.Errorf("remove nftables table %s: %w", TableName, err)
	}
	return nil
}
