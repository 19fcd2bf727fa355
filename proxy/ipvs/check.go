package ipvs

import (
	"context"
	"fmt"
	"maps"
	"net/netip"
	"slices"
)

// Check finishes what waited for connections to end, and compares the kernel
// with what the last Sync left there: it says what somebody else changed, empty
// for nothing. After a change the next Sync starts from what the kernel has.
//
// When the machine has got other addresses, their node ports are programmed.
func (b *Backend) Check(ctx context.Context) (string, error) {
	if b.state == nil {
		return "", nil
	}
	changed, err := b.check(ctx)
	if err != nil {
		return "", fmt.Errorf("check IPVS: %w", err)
	}
	if changed != "" {
		b.state = nil
		return changed, nil
	}
	return "", b.followAddresses(ctx)
}

func (b *Backend) check(ctx context.Context) (string, error) {
	// What is finished next is looked at as it is now: it goes by our own hand.
	changed, err := b.checkServices()
	if err != nil || changed != "" {
		return changed, err
	}
	for _, s := range b.sysctls() {
		if is, err := s.read(); err != nil || is != s.value {
			return fmt.Sprintf("net/%s is %q and should be %s", s.file, is, s.value), nil
		}
	}
	if changed, err := b.checkHeld(); err != nil || changed != "" {
		return changed, err
	}
	if changed, err := b.checkSets(ctx); err != nil || changed != "" {
		return changed, err
	}
	for _, f := range b.filters {
		saved, err := f.save(ctx)
		if err != nil {
			return "", err
		}
		if changed := difference(b.rules[f.family], saved); changed != "" {
			return changed, nil
		}
	}
	for k := range b.state.unfinished {
		b.state.changedKeys[k] = true
	}
	return "", b.reduce(ctx)
}

// checkServices compares virtual services and destinations.
func (b *Backend) checkServices() (string, error) {
	all, err := b.kernel.services()
	if err != nil {
		return "", err
	}
	for k, want := range b.state.has {
		is, there := all[k]
		switch {
		case !there:
			return fmt.Sprintf("virtual service %s is gone", k), nil
		case is != want.settings:
			return fmt.Sprintf("virtual service %s has %s and should have %s", k, is, want.settings), nil
		}
		destinations, err := b.kernel.destinations(k)
		if err != nil {
			return "", err
		}
		weights := make(map[netip.AddrPort]int, len(destinations))
		for address, d := range destinations {
			weights[address] = d.weight
		}
		if !maps.Equal(weights, want.weights) {
			return fmt.Sprintf("virtual service %s has the destinations and weights %v and should have %v", k, weights, want.weights), nil
		}
	}
	return "", nil
}

func (b *Backend) checkHeld() (string, error) {
	held, _, err := b.holder.addresses()
	if err != nil {
		return "", err
	}
	for _, address := range held {
		if !b.state.hasHeld[address] {
			return fmt.Sprintf("%s holds %s and should not", HolderName, address), nil
		}
	}
	if len(held) < len(b.state.hasHeld) {
		return fmt.Sprintf("%s holds %d addresses and should hold %d", HolderName, len(held), len(b.state.hasHeld)), nil
	}
	return "", nil
}

// checkSets compares how many elements the sets have: reading them all would
// cost much more, and who changes sets hardly replaces one element by another.
func (b *Backend) checkSets(ctx context.Context) (string, error) {
	headers, err := setHeaders(ctx)
	if err != nil {
		return "", err
	}
	sizes := map[string]int{}
	for e := range b.state.hasElements {
		sizes[e.set]++
	}
	for _, family := range families {
		for _, set := range setTypes {
			name := setName(family, set.name)
			header, there := headers[name]
			switch {
			case !there:
				return fmt.Sprintf("ipset %s is gone", name), nil
			case header.size != sizes[name]:
				return fmt.Sprintf("ipset %s has %d elements and should have %d", name, header.size, sizes[name]), nil
			}
		}
	}
	return "", nil
}

// difference names the first rule that is in one list only, or that the order
// differs.
func difference(want, is []string) string {
	for _, rule := range want {
		if !slices.Contains(is, rule) {
			return fmt.Sprintf("rule %q is gone", rule)
		}
	}
	for _, rule := range is {
		if !slices.Contains(want, rule) {
			return fmt.Sprintf("rule %q is none of ours", rule)
		}
	}
	if !slices.Equal(want, is) {
		return "rules stand in another order or twice"
	}
	return ""
}

// followAddresses serves node ports on addresses that the machine has got.
func (b *Backend) followAddresses(ctx context.Context) error {
	_, own, err := b.holder.addresses()
	if err != nil {
		return fmt.Errorf("check IPVS: %w", err)
	}
	if environmentOf(own, b.last.NodePortRanges).equal(b.state.environment) {
		return nil
	}
	b.own = own
	return b.Sync(ctx, b.last)
}
