package nftables

import (
	"cmp"
	"maps"
	"slices"

	"sigs.k8s.io/knftables"

	"github.com/skiff-run/skiff/proxy/table"
)

// state is what the kernel holds. It is replaced as a whole when a transaction
// has run.
type state struct {
	// programmed is by name of service port; nil before the first sync and after
	// one that failed.
	programmed map[string]*programmed
	// elements counts the users of each element, because ports share some: a
	// cluster address, a pod that talks to itself.
	elements map[string]*counted
}

// programmed is a service port and its rendering.
type programmed struct {
	port *table.ServicePort
	*rendered
}

type counted struct {
	*knftables.Element
	users int
}

// nodePorts is the name under which the addresses of node ports are rendered;
// no service port has it.
const nodePorts = ""

// change is a port that is not as it was; before or after is nil.
type change struct {
	name          string
	before, after *rendered
}

// transaction is the difference between what is programmed and what should
// be, and the state after it. It is nil for a family without any service that
// never had one. The time it takes grows with the changes, but for one look at
// each port.
func (f *family) transaction(t *table.Table) (*knftables.Transaction, state) {
	next, changes := f.changes(t)
	tx := f.nft.NewTransaction()
	if f.programmed == nil {
		if len(next.programmed) == 1 && f.ip() == "ip6" {
			return nil, state{}
		}
		f.skeleton(tx)
	}
	users := map[string]*counted{}
	count := func(r *rendered, by int) {
		if r == nil {
			return
		}
		for _, e := range r.elements {
			key := elementKey(e)
			if users[key] == nil {
				users[key] = &counted{Element: e}
			}
			users[key].users += by
		}
	}
	for _, c := range changes {
		count(c.before, -1)
		count(c.after, 1)
	}
	// Elements that leave go first, so that an address that moves between
	// services is free; chains that are referred to go last.
	keys := slices.Sorted(maps.Keys(users))
	for _, key := range keys {
		if had := f.users(key); had > 0 && had+users[key].users == 0 {
			tx.Delete(users[key].Element)
		}
	}
	for _, c := range changes {
		if c.after != nil {
			c.after.addChains(tx, c.before)
		}
	}
	for _, key := range keys {
		if had := f.users(key); had == 0 && users[key].users > 0 {
			tx.Add(users[key].Element)
		}
	}
	for _, c := range changes {
		if c.before != nil {
			c.before.removeChains(tx, c.after)
		}
	}
	next.elements = merged(f.elements, users)
	return tx, next
}

func (s *state) users(key string) int {
	if c := s.elements[key]; c != nil {
		return c.users
	}
	return 0
}

// merged applies differences to counts. A failed transaction drops them all, so
// they may be changed in place.
func merged(elements, differences map[string]*counted) map[string]*counted {
	if elements == nil {
		elements = make(map[string]*counted, len(differences))
	}
	for key, difference := range differences {
		c := elements[key]
		if c == nil {
			c = &counted{Element: difference.Element}
			elements[key] = c
		}
		if c.users += difference.users; c.users == 0 {
			delete(elements, key)
		}
	}
	return elements
}

// changes finds the ports of the family that are new, gone or different, in
// order of name.
func (f *family) changes(t *table.Table) (state, []change) {
	next := state{programmed: make(map[string]*programmed, len(f.programmed)+1)}
	var changes []change
	put := func(name string, port *table.ServicePort, render func() *rendered) {
		had := f.programmed[name]
		if had != nil && port != nil && had.port == port {
			next.programmed[name] = had
			return
		}
		now := &programmed{port: port, rendered: render()}
		next.programmed[name] = now
		switch {
		case had == nil:
			changes = append(changes, change{name: name, after: now.rendered})
		case !had.equal(now.rendered):
			changes = append(changes, change{name: name, before: had.rendered, after: now.rendered})
		}
	}
	put(nodePorts, nil, func() *rendered { return f.renderNodePorts(t.NodePortRanges) })
	for _, port := range t.Ports {
		if port.Family() == f.kind {
			put(port.Name, port, func() *rendered { return f.render(port) })
		}
	}
	for name, had := range f.programmed {
		if next.programmed[name] == nil {
			changes = append(changes, change{name: name, before: had.rendered})
		}
	}
	slices.SortFunc(changes, func(a, b change) int { return cmp.Compare(a.name, b.name) })
	return next, changes
}
