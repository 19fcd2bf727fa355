package iptables

import (
	"cmp"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/skiff-run/skiff/proxy/table"
)

// state is what the kernel holds. It is replaced as a whole when a transaction
// has run.
type state struct {
	// programmed is by name of service port; nil before the first sync and after
	// one that failed.
	programmed map[string]*programmed
	// shared are the rules of each chain that services share, with how many
	// ports each belongs to: several may have one cluster address.
	shared map[chainKey]map[string]int
	// programmedFor is the environment of the rules, fixed the rules of fixed chains.
	programmedFor string
	fixed         map[chainKey][]string
	// large says that chains of endpoints have no comments.
	large bool
}

type programmed struct {
	port *table.ServicePort
	*rendered
}

// Endpoints beyond which comments are left out, and below which they come back.
const (
	largeFrom  = 1000
	largeUntil = 500
)

func isLarge(was bool, t *table.Table, kind corev1.IPFamily) bool {
	limit := largeFrom
	if was {
		limit = largeUntil
	}
	n := 0
	for _, port := range t.Ports {
		if port.Family() == kind {
			n += max(len(port.Cluster), len(port.Local))
		}
	}
	return n > limit
}

// environment is what rules depend on besides their service.
func (f *family) environment(t *table.Table) string {
	return fmt.Sprint(f.ofFamily(t.NodePortRanges), f.liberal())
}

// liberal says that conntrack takes packets outside a TCP window for valid, so
// that invalid ones need no dropping.
func (f *family) liberal() bool {
	value, err := os.ReadFile("/proc/sys/net/netfilter/nf_conntrack_tcp_be_liberal")
	return err == nil && strings.TrimSpace(string(value)) != "0"
}

// change is a port that is not as it was; before or after is nil.
type change struct {
	name          string
	before, after *rendered
}

// transaction is the difference between what is programmed and what should be,
// and the state after it; from scratch if nothing is programmed, with the
// removal of what an earlier run left according to found. It is nil for IPv6
// without any service that never had one.
func (f *family) transaction(t *table.Table, found *inventory) (*transaction, state) {
	next, list := f.changes(t)
	tx := &transaction{}
	if f.programmed == nil {
		if len(next.programmed) == 0 && f.kind == corev1.IPv6Protocol && found.empty() {
			return nil, state{}
		}
		next.fixed = f.fixedRules(t.NodePortRanges)
	}
	before := map[string]chain{}
	after := map[string]bool{}
	differences := map[chainKey]map[string]int{}
	count := func(r *rendered, by int) {
		for _, e := range r.entries {
			if differences[e.chainKey] == nil {
				differences[e.chainKey] = map[string]int{}
			}
			differences[e.chainKey][e.rule] += by
		}
	}
	for _, c := range list {
		if c.before != nil {
			count(c.before, -1)
			for _, old := range c.before.chains {
				before[old.name] = old
			}
		}
	}
	for _, c := range list {
		if c.after == nil {
			continue
		}
		count(c.after, 1)
		for _, one := range c.after.chains {
			after[one.name] = true
			if old, existed := before[one.name]; !existed || !slices.Equal(old.rules, one.rules) {
				tx.write(chainKey{nat, one.name}, one.rules)
			}
		}
	}
	next.shared = f.sharedChains(tx, &next, differences)
	for _, name := range slices.Sorted(maps.Keys(before)) {
		if !after[name] {
			tx.drop(chainKey{nat, name})
		}
	}
	if f.programmed == nil {
		f.dropLeftovers(tx, &next, after, found)
	}
	return tx, next
}

// sharedChains writes the chains that services share and returns their rules.
func (f *family) sharedChains(tx *transaction, next *state, differences map[chainKey]map[string]int) map[chainKey]map[string]int {
	shared := f.shared
	if shared == nil {
		shared = map[chainKey]map[string]int{}
	}
	keys := slices.Collect(maps.Keys(differences))
	if f.programmed == nil {
		for _, key := range fixedChains {
			if differences[key] == nil {
				keys = append(keys, key)
			}
		}
	}
	slices.SortFunc(keys, compareChains)
	for _, key := range keys {
		rules := shared[key]
		existed := rules != nil || f.programmed != nil && slices.Contains(fixedChains, key)
		if rules == nil {
			rules = make(map[string]int, len(differences[key]))
			shared[key] = rules
		}
		var added, removed []string
		for rule, difference := range differences[key] {
			had := rules[rule]
			if rules[rule] = had + difference; rules[rule] == 0 {
				delete(rules, rule)
			}
			switch {
			case had == 0 && difference > 0:
				added = append(added, rule)
			case had > 0 && had+difference == 0:
				removed = append(removed, rule)
			}
		}
		slices.Sort(added)
		slices.Sort(removed)
		edits := len(added) + len(removed)
		switch {
		case existed && len(rules) == 0 && !slices.Contains(fixedChains, key):
			tx.drop(key)
			delete(shared, key)
		case !existed || edits > fewEdits:
			tx.write(key, append(slices.Sorted(maps.Keys(rules)), next.fixed[key]...))
		default:
			for _, rule := range removed {
				tx.remove(key, rule)
			}
			for _, rule := range added {
				tx.insert(key, rule)
			}
		}
	}
	return shared
}

// fewEdits is up to how many single rules a shared chain changes before it is
// written anew: to find a rule that goes, iptables looks at every rule.
const fewEdits = 32

// dropLeftovers removes what an earlier run left and this one has no use for.
func (f *family) dropLeftovers(tx *transaction, next *state, wanted map[string]bool, found *inventory) {
	if found == nil {
		return
	}
	// Rules that lead to ours and are not as they should be, or there twice.
	expected := map[jumpKey]int{}
	for _, j := range jumps() {
		expected[j.key()] = 1
	}
	for _, key := range slices.SortedFunc(maps.Keys(found.jumps), compareJumps) {
		for range found.jumps[key] - expected[key] {
			tx.remove(chainKey{key.table, key.from}, key.rule)
		}
	}
	for _, key := range slices.SortedFunc(maps.Keys(found.rules), compareChains) {
		if !ours(key.chain) || slices.Contains(fixedChains, key) || next.shared[key] != nil || key.table == nat && wanted[key.chain] {
			continue
		}
		tx.drop(key)
	}
}

// changes finds the ports of the family that are new, gone or different, in
// order of name.
func (f *family) changes(t *table.Table) (state, []change) {
	next := state{
		programmed: make(map[string]*programmed, len(f.programmed)), large: f.large, programmedFor: f.environment(t), fixed: f.fixed,
	}
	var list []change
	nodeAddresses := f.nodeAddresses(t.NodePortRanges)
	for _, port := range t.Ports {
		if port.Family() != f.kind {
			continue
		}
		had := f.programmed[port.Name]
		if had != nil && had.port == port {
			next.programmed[port.Name] = had
			continue
		}
		now := &programmed{port: port, rendered: f.render(port, nodeAddresses)}
		next.programmed[port.Name] = now
		c := change{name: port.Name, after: now.rendered}
		if had != nil {
			c.before = had.rendered
		}
		list = append(list, c)
	}
	for name, had := range f.programmed {
		if next.programmed[name] == nil {
			list = append(list, change{name: name, before: had.rendered})
		}
	}
	slices.SortFunc(list, func(a, b change) int { return cmp.Compare(a.name, b.name) })
	return next, list
}
