package nftables

import (
	"maps"
	"slices"

	"golang.org/x/sys/unix"
	"sigs.k8s.io/knftables"

	"github.com/skiff-run/skiff/proxy/nftables/inventory"
)

// check compares the kernel's inventory with ours. While the kernel's
// generation of rules stays the same nobody changed anything, and nothing is read.
func (f *family) check() (string, error) {
	before, err := inventory.Generation()
	if err != nil {
		return "", err
	}
	if before == f.verified {
		return "", nil
	}
	want := f.inventory()
	has, err := f.kernel().Read(slices.Sorted(maps.Keys(want.Elements)))
	if err != nil {
		return "", err
	}
	if changed := want.Difference(has); changed != "" {
		return changed, nil
	}
	if after, err := inventory.Generation(); err == nil && after == before {
		f.verified = before
	}
	return "", nil
}

// inventory is what the kernel should hold. Affinity sets are not in it: the
// packets fill them.
func (f *family) inventory() inventory.Inventory {
	i := inventory.New()
	for _, o := range f.fixed() {
		switch o := o.(type) {
		case *knftables.Rule:
			i.Rules[o.Chain]++
		case *knftables.Set:
			i.Elements[o.Name] = 0
		case *knftables.Map:
			i.Elements[o.Name] = 0
		}
	}
	for _, p := range f.programmed {
		for _, c := range p.chains {
			i.Rules[c.name] += len(c.rules)
		}
	}
	for _, e := range f.elements {
		i.Elements[e.Set+e.Map]++
	}
	return i
}

// kernel is our table as the kernel has it.
func (f *family) kernel() inventory.Table {
	if f.ip() == "ip6" {
		return inventory.Table{Family: unix.NFPROTO_IPV6, Name: TableName}
	}
	return inventory.Table{Family: unix.NFPROTO_IPV4, Name: TableName}
}
