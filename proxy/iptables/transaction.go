package iptables

import (
	"maps"
	"slices"
	"strings"
)

// transaction is input for iptables-restore --noflush.
type transaction struct {
	tables map[string]*changes
}

// changes of one table, in the order in which they are written: chains named
// (which empties those that exist), rules added at the end, rules removed, rules
// put in front, chains deleted.
type changes struct {
	chains                   []string
	appended, removed, front []string
	deleted                  []string
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

// write makes a chain with these rules, whatever was in it before.
func (tx *transaction) write(key chainKey, rules []string) {
	c := tx.table(key.table)
	c.chains = append(c.chains, key.chain)
	for _, rule := range rules {
		c.appended = append(c.appended, "-A "+key.chain+" "+rule)
	}
}

func (tx *transaction) insert(key chainKey, rule string) {
	c := tx.table(key.table)
	c.front = append(c.front, "-I "+key.chain+" "+rule)
}

func (tx *transaction) remove(key chainKey, rule string) {
	c := tx.table(key.table)
	c.removed = append(c.removed, "-D "+key.chain+" "+rule)
}

// drop deletes a chain that nothing leads to when the transaction ends.
func (tx *transaction) drop(key chainKey) {
	c := tx.table(key.table)
	// Naming it empties it, so that what it leads to can go too.
	c.chains = append(c.chains, key.chain)
	c.deleted = append(c.deleted, "-X "+key.chain)
}

func (tx *transaction) empty() bool { return len(tx.tables) == 0 }

// lines is how many rules are written.
func (tx *transaction) lines() int {
	n := 0
	for _, c := range tx.tables {
		n += len(c.appended) + len(c.front) + len(c.removed)
	}
	return n
}

// String is what iptables-restore reads. Each table is one change of the kernel;
// filter comes first, so that what loses its endpoints is refused and not sent
// to the default route.
func (tx *transaction) String() string {
	var b strings.Builder
	for _, name := range slices.Sorted(maps.Keys(tx.tables)) {
		c := tx.tables[name]
		b.WriteString("*" + name + "\n")
		for _, chain := range c.chains {
			b.WriteString(":" + chain + " - [0:0]\n")
		}
		for _, lines := range [][]string{c.appended, c.removed, c.front, c.deleted} {
			for _, line := range lines {
				b.WriteString(line)
				b.WriteByte('\n')
			}
		}
		b.WriteString("COMMIT\n")
	}
	return b.String()
}
