package iptables

import (
	"context"
	"fmt"
	"maps"
	"slices"
)

// check compares the kernel's inventory with ours. Counting finds what a
// person, another program or a flush removed or added. It reads every rule, so
// it does that only when the seal is broken.
func (f *family) check(ctx context.Context) (string, error) {
	now, err := f.program.seal()
	if err != nil {
		return "", err
	}
	if now.intact(f.seal) {
		return "", nil
	}
	has, err := f.program.inventory(ctx, everything)
	if err != nil {
		return "", err
	}
	if changed := f.inventory().difference(has); changed != "" {
		f.seal = seal{}
		return changed, nil
	}
	f.seal = now
	return "", nil
}

// inventory is what the kernel should hold.
func (f *family) inventory() *inventory {
	i := &inventory{rules: map[chainKey]int{}, jumps: map[jumpKey]int{}}
	for _, key := range fixedChains {
		i.rules[key] = len(f.fixed[key])
	}
	for key, rules := range f.shared {
		i.rules[key] = len(rules) + len(f.fixed[key])
	}
	for _, p := range f.programmed {
		for _, c := range p.chains {
			i.rules[chainKey{nat, c.name}] = len(c.rules)
		}
	}
	for _, j := range jumps() {
		i.jumps[j.key()] = 1
	}
	return i
}

// difference names the first thing that other has more or less of.
func (i *inventory) difference(other *inventory) string {
	for key, want := range i.rules {
		has, exists := other.rules[key]
		switch {
		case !exists:
			return fmt.Sprintf("chain %s of table %s is gone", key.chain, key.table)
		case has != want:
			return fmt.Sprintf("chain %s of table %s has %d rules and should have %d", key.chain, key.table, has, want)
		}
	}
	for key := range other.rules {
		if _, known := i.rules[key]; !known {
			return fmt.Sprintf("chain %s of table %s should not be there", key.chain, key.table)
		}
	}
	keys := maps.Clone(i.jumps)
	maps.Copy(keys, other.jumps)
	for key := range keys {
		if i.jumps[key] != other.jumps[key] {
			return fmt.Sprintf("chain %s of table %s has %d times, and should have %d times: %s", key.from, key.table, other.jumps[key], i.jumps[key], key.rule)
		}
	}
	return ""
}

// cleanup removes our rules and chains of one program's tables, and nothing else.
func (p *program) cleanup(ctx context.Context) error {
	found, err := p.inventory(ctx, chainsOnly)
	if err != nil || found.empty() {
		return err
	}
	tx := &transaction{}
	for _, key := range slices.SortedFunc(maps.Keys(found.jumps), compareJumps) {
		for range found.jumps[key] {
			tx.remove(chainKey{key.table, key.from}, key.rule)
		}
	}
	for _, key := range slices.SortedFunc(maps.Keys(found.rules), compareChains) {
		tx.drop(key)
	}
	if err := p.run(ctx, tx); err != nil {
		return fmt.Errorf("remove the rules of services: %w", err)
	}
	return nil
}
