package iptables

import (
	"cmp"
	"context"
	"errors"
	"fmt"

	corev1 "k8s.io/api/core/v1"
)

// Cleanup removes our chains and the rules that lead to them from the tables of
// every variant and family, and nothing else. It does nothing where iptables is
// not installed.
func Cleanup(ctx context.Context) error {
	var errs []error
	for _, kind := range []corev1.IPFamily{corev1.IPv4Protocol, corev1.IPv6Protocol} {
		for _, variant := range []Variant{NFT, Legacy} {
			p := newProgram(kind, variant)
			if !p.installed() {
				continue
			}
			p.variant = variant
			if err := p.cleanup(ctx); err != nil {
				errs = append(errs, fmt.Errorf("%s: %w", p.iptables, err))
			}
		}
	}
	return errors.Join(errs...)
}

func compareChains(a, b chainKey) int {
	return cmp.Or(cmp.Compare(a.table, b.table), cmp.Compare(a.chain, b.chain))
}

func compareJumps(a, b jumpKey) int {
	return cmp.Or(cmp.Compare(a.table, b.table), cmp.Compare(a.from, b.from), cmp.Compare(a.rule, b.rule))
}
