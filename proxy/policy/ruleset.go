package policy

import (
	"maps"
	"slices"
	"strings"

	"sigs.k8s.io/knftables"
)

// Ruleset is what the table holds. It is immutable once compiled.
type Ruleset struct {
	sets   map[string]*set
	chains map[string][]string
}

// set is an nftables set, or a map when it leads to verdicts.
type set struct {
	// of is the type of its keys, such as ipv4_addr . inet_service.
	of       string
	interval bool
	verdicts bool
	// elements are keys, their parts joined as in of, and verdicts.
	elements map[string]string
}

func (s *set) sameKind(other *set) bool {
	return s.of == other.of && s.interval == other.interval && s.verdicts == other.verdicts
}

const conjunction = " . "

// hooks are the chains that the kernel enters by itself.
var hooks = map[string]knftables.BaseChainHook{baseChain: knftables.ForwardHook, outputChain: knftables.OutputHook}

func newRuleset() *Ruleset {
	return &Ruleset{sets: map[string]*set{}, chains: map[string][]string{}}
}

// set returns the set of that name, made when it is not there.
func (r *Ruleset) set(name string, kind set) *set {
	if s := r.sets[name]; s != nil {
		return s
	}
	kind.elements = map[string]string{}
	r.sets[name] = &kind
	return &kind
}

func (s *set) add(parts ...string) { s.elements[strings.Join(parts, conjunction)] = "" }

func (s *set) lead(key, verdict string) { s.elements[key] = verdict }

func (r *Ruleset) rule(chain string, words ...string) {
	r.chains[chain] = append(r.chains[chain], strings.Join(words, " "))
}

// transition is the transaction from what the kernel has to r; nil stands for a
// kernel with anything or nothing in the table. The time it takes the kernel
// grows with what differs.
func (r *Ruleset) transition(tx *knftables.Transaction, from *Ruleset) {
	if from == nil {
		tx.Add(&knftables.Table{})
		tx.Delete(&knftables.Table{})
		tx.Add(&knftables.Table{Comment: knftables.PtrTo("network policies, by skiff-proxy")})
		from = newRuleset()
	}
	names := slices.Sorted(maps.Keys(r.sets))
	for _, name := range names {
		if from.sets[name] == nil {
			tx.Add(r.sets[name].object(name))
		}
	}
	r.changeChains(tx, from)
	for _, name := range names {
		r.sets[name].change(tx, name, from.sets[name])
	}
	var gone []string
	for _, name := range slices.Sorted(maps.Keys(from.chains)) {
		if _, stays := r.chains[name]; !stays {
			gone = append(gone, name)
		}
	}
	// Chains refer to one another: all are emptied before the first is deleted.
	for _, name := range gone {
		tx.Flush(&knftables.Chain{Name: name})
	}
	for _, name := range gone {
		tx.Delete(&knftables.Chain{Name: name})
	}
	for _, name := range slices.Sorted(maps.Keys(from.sets)) {
		if r.sets[name] == nil {
			tx.Delete(from.sets[name].object(name))
		}
	}
}

// baseHooks are where packets come to the chains that nothing leads to.
var baseHooks = map[string]knftables.BaseChainHook{baseChain: knftables.ForwardHook, outputChain: knftables.OutputHook}

func (r *Ruleset) changeChains(tx *knftables.Transaction, from *Ruleset) {
	var changed []string
	for _, name := range slices.Sorted(maps.Keys(r.chains)) {
		before, existed := from.chains[name]
		if existed && slices.Equal(before, r.chains[name]) {
			continue
		}
		chain := &knftables.Chain{Name: name}
		if hook, base := baseHooks[name]; base {
			chain.Type, chain.Hook = knftables.PtrTo(knftables.FilterType), knftables.PtrTo(hook)
			chain.Priority = knftables.PtrTo(knftables.BaseChainPriority(basePriority))
		}
		tx.Add(chain)
		if existed {
			tx.Flush(&knftables.Chain{Name: name})
		}
		changed = append(changed, name)
	}
	for _, name := range changed {
		for _, rule := range r.chains[name] {
			tx.Add(&knftables.Rule{Chain: name, Rule: rule})
		}
	}
}

func (s *set) object(name string) knftables.Object {
	var flags []knftables.SetFlag
	if s.interval {
		flags = []knftables.SetFlag{knftables.IntervalFlag}
	}
	if s.verdicts {
		return &knftables.Map{Name: name, Type: s.of + " : verdict", Flags: flags}
	}
	return &knftables.Set{Name: name, Type: s.of, Flags: flags}
}

func (s *set) element(name, key string) *knftables.Element {
	e := &knftables.Element{Key: strings.Split(key, conjunction)}
	if s.verdicts {
		e.Map, e.Value = name, []string{s.elements[key]}
	} else {
		e.Set = name
	}
	return e
}

// change adds and deletes elements; before is nil for a new set.
func (s *set) change(tx *knftables.Transaction, name string, before *set) {
	if before != nil {
		for _, key := range slices.Sorted(maps.Keys(before.elements)) {
			if verdict, stays := s.elements[key]; !stays || verdict != before.elements[key] {
				tx.Delete(before.element(name, key))
			}
		}
	}
	for _, key := range slices.Sorted(maps.Keys(s.elements)) {
		if before != nil {
			if verdict, had := before.elements[key]; had && verdict == s.elements[key] {
				continue
			}
		}
		tx.Add(s.element(name, key))
	}
}
