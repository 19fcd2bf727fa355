package nftables

import (
	"slices"
	"strings"

	"sigs.k8s.io/knftables"
)

// affinityClients bounds how many clients an endpoint remembers.
const affinityClients = 65535

func elementKey(e *knftables.Element) string {
	return e.Set + e.Map + "|" + strings.Join(e.Key, "|") + "|" + strings.Join(e.Value, "|")
}

func (r *rendered) equal(other *rendered) bool {
	return slices.EqualFunc(r.elements, other.elements, func(a, b *knftables.Element) bool { return elementKey(a) == elementKey(b) }) &&
		slices.EqualFunc(r.chains, other.chains, chain.equal) && slices.Equal(r.sets, other.sets)
}

func (c chain) equal(other chain) bool {
	return c.name == other.name && slices.Equal(c.rules, other.rules)
}

func (r *rendered) findChain(name string) (chain, bool) {
	if r != nil {
		for _, c := range r.chains {
			if c.name == name {
				return c, true
			}
		}
	}
	return chain{}, false
}

// addChains adds the chains that the kernel does not have from old, the last
// rendering of the same port. An affinity set stays as long as its endpoint,
// with its clients.
func (r *rendered) addChains(tx *knftables.Transaction, old *rendered) {
	for _, set := range r.sets {
		if old != nil && slices.Contains(old.sets, set) {
			continue
		}
		tx.Add(&knftables.Set{
			Name: set.name, TypeOf: set.address + " saddr", Flags: []knftables.SetFlag{knftables.DynamicFlag, knftables.TimeoutFlag},
			Timeout: &set.timeout, Size: knftables.PtrTo[uint64](affinityClients),
		})
	}
	for _, c := range r.chains {
		before, existed := old.findChain(c.name)
		if existed && c.equal(before) {
			continue
		}
		tx.Add(&knftables.Chain{Name: c.name})
		if existed {
			tx.Flush(&knftables.Chain{Name: c.name})
		}
		for _, rule := range c.rules {
			tx.Add(&knftables.Rule{Chain: c.name, Rule: rule})
		}
	}
}

// removeChains removes the chains and sets that now does not have, after
// nothing refers to them any more.
func (r *rendered) removeChains(tx *knftables.Transaction, now *rendered) {
	var gone []chain
	for _, c := range r.chains {
		if _, stays := now.findChain(c.name); !stays {
			gone = append(gone, c)
		}
	}
	// Chains refer to one another: all are emptied before the first is deleted.
	for _, c := range gone {
		tx.Flush(&knftables.Chain{Name: c.name})
	}
	for _, c := range gone {
		tx.Delete(&knftables.Chain{Name: c.name})
	}
	for _, set := range r.sets {
		if now == nil || !slices.Contains(now.sets, set) {
			tx.Delete(&knftables.Set{Name: set.name})
		}
	}
}
