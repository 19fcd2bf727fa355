package iptables

import (
	"cmp"
	"maps"
	"slices"
	"strings"
)

// transaction is input for iptables-restore --noflush.
type transaction struct {
	tables map[string]*changes
}

// changes of one table.
type changes struct {
	// written are chains with all their rules, whatever was in them before.
	written []chain
	// removed and front are single rules that go, and that come to the front.
	removed, front []string
	// dropped are chains that nothing leads to when the transaction ends.
	dropped []string
}

func (tx *transaction) table(name string) *changes {
	if tx.tables == nil {
		tx.tables = map[string]*changes{}
	}
	if tx.tables[name] == nil {
		tx.tables[name] = &changes{}
	}
	return tx.tables[name]
}

func (tx *transaction) write(key chainKey, rules []string) {
	c := tx.table(key.table)
	c.written = append(c.written, chain{key.chain, rules})
}

func (tx *transaction) insert(key chainKey, rule string) {
	c := tx.table(key.table)
	c.front = append(c.front, "-I "+key.chain+" "+rule)
}

func (tx *transaction) remove(key chainKey, rule string) {
	c := tx.table(key.table)
	c.removed = append(c.removed, "-D "+key.chain+" "+rule)
}

func (tx *transaction) drop(key chainKey) {
	c := tx.table(key.table)
	c.dropped = append(c.dropped, key.chain)
}

func (tx *transaction) empty() bool { return len(tx.tables) == 0 }

// chains is how many chains are named, lines how many rules are written.
func (tx *transaction) chains() (n int) {
	for _, c := range tx.tables {
		n += len(c.written) + len(c.dropped)
	}
	return n
}

func (tx *transaction) lines() (n int) {
	for _, c := range tx.tables {
		n += len(c.removed) + len(c.front)
		for _, w := range c.written {
			n += len(w.rules)
		}
	}
	return n
}

// String is the whole as one change of each table.
func (tx *transaction) String() string { return tx.text(tx.chains()) }

// text is what iptables-restore reads; no change of a table names more chains
// than the limit. Filter comes before nat, so that what loses its endpoints is
// refused and not sent to the default route.
func (tx *transaction) text(limit int) string {
	var b strings.Builder
	for _, name := range slices.Sorted(maps.Keys(tx.tables)) {
		if c := tx.tables[name]; len(c.written)+len(c.dropped) <= limit {
			c.whole(&b, name)
		} else {
			c.parts(&b, name, limit)
		}
	}
	return b.String()
}

// whole writes one change: every chain is named, which makes or empties it,
// before the first rule leads to one.
func (c *changes) whole(b *strings.Builder, table string) {
	b.WriteString("*" + table + "\n")
	for _, w := range c.written {
		declare(b, w.name)
	}
	for _, name := range c.dropped {
		declare(b, name)
	}
	for _, w := range c.written {
		w.append(b)
	}
	lines(b, "", c.removed)
	lines(b, "", c.front)
	lines(b, "-X ", c.dropped)
	b.WriteString("COMMIT\n")
}

// parts writes several changes, each of which leaves everything served: what a
// chain leads to is written before it, and removed after it.
//
// The program on nf_tables searches a list of the chains that a change names at
// every line, so that one change with all chains of 10,000 services takes it
// minutes. In the order of falling names what it looks for is in front.
func (c *changes) parts(b *strings.Builder, table string, limit int) {
	written := slices.SortedFunc(slices.Values(c.written), func(x, y chain) int {
		return cmp.Or(cmp.Compare(level(x.name), level(y.name)), cmp.Compare(y.name, x.name))
	})
	for part := range batches(written, limit, func(w chain) int { return level(w.name) }) {
		b.WriteString("*" + table + "\n")
		for _, w := range part {
			declare(b, w.name)
			w.append(b)
		}
		b.WriteString("COMMIT\n")
	}
	b.WriteString("*" + table + "\n")
	lines(b, "", c.removed)
	lines(b, "", c.front)
	b.WriteString("COMMIT\n")
	dropped := slices.SortedFunc(slices.Values(c.dropped), func(x, y string) int {
		return cmp.Or(cmp.Compare(level(y), level(x)), cmp.Compare(y, x))
	})
	for part := range batches(dropped, limit, level) {
		b.WriteString("*" + table + "\n")
		for _, name := range part {
			declare(b, name)
			b.WriteString("-X " + name + "\n")
		}
		b.WriteString("COMMIT\n")
	}
}

// level is how far from the endpoints a chain is: it leads to lower ones only.
func level(name string) int {
	switch {
	case name == markChain, name == rejectChain:
		return 0
	case strings.HasPrefix(name, endpointPrefix), strings.HasPrefix(name, blockPrefix):
		return 1
	case strings.HasPrefix(name, servicePrefix), strings.HasPrefix(name, localPrefix):
		return 2
	case strings.HasPrefix(name, externalPrefix):
		return 3
	case strings.HasPrefix(name, sourcesPrefix):
		return 4
	case name == servicesChain:
		return 6
	}
	return 5
}

// batches are runs of at most limit elements of one level.
func batches[T any](all []T, limit int, level func(T) int) func(func([]T) bool) {
	return func(yield func([]T) bool) {
		for begin := 0; begin < len(all); {
			end := begin + 1
			for end < len(all) && end-begin < limit && level(all[end]) == level(all[begin]) {
				end++
			}
			if !yield(all[begin:end]) {
				return
			}
			begin = end
		}
	}
}

func declare(b *strings.Builder, name string) { b.WriteString(":" + name + " - [0:0]\n") }

func (c chain) append(b *strings.Builder) { lines(b, "-A "+c.name+" ", c.rules) }

func lines(b *strings.Builder, prefix string, all []string) {
	for _, line := range all {
		b.WriteString(prefix)
		b.WriteString(line)
		b.WriteByte('\n')
	}
}
