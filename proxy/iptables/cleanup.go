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
			guarded := p.guardsLocalnet(ctx)
			if err := p.cleanup(ctx); err != nil {
				errs = append(errs, fmt.Errorf("%s: %w", p.iptables, err))
			} else if guarded {
				// What the rule guarded must not stay open without it.
				errs = append(errs, setRouteLocalnet("0"))
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

// guardsLocalnet says whether routeLocalnet was called.
func (p *program) guardsLocalnet(ctx context.Context) bool {
	found := &inventory{rules: map[chainKey]int{}, jumps: map[jumpKey]int{}}
	return p.read(ctx, found, filter, everything) == nil && found.rules[chainKey{filter, localnetChain}] > 0
}
