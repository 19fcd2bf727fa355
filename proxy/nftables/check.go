package nftables

import (
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
	"sigs.k8s.io/knftables"

	"github.com/skiff-run/skiff/internal/dump"
)

// inventory counts what a table holds: rules by chain, elements by set or map.
type inventory struct {
	rules, elements map[string]int
}

// check compares the kernel's inventory with ours. Counting finds what a
// person, another program or a flush removed or added, and costs milliseconds
// where reading and comparing every rule would take seconds. While the kernel's
// generation of rules stays the same nobody changed anything, and nothing is read.
func (f *family) check() (string, error) {
	before, err := Generation()
	if err != nil {
		return "", err
	}
	if before == f.verified {
		return "", nil
	}
	want := f.inventory()
	has, err := f.read(slices.Sorted(maps.Keys(want.elements)))
	if err != nil {
		return "", err
	}
	if changed := want.difference(has); changed != "" {
		return changed, nil
	}
	if after, err := Generation(); err == nil && after == before {
		f.verified = before
	}
	return "", nil
}

// inventory is what the kernel should hold. Affinity sets are not in it: the
// packets fill them.
func (f *family) inventory() inventory {
	i := inventory{rules: map[string]int{}, elements: map[string]int{}}
	for _, o := range f.fixed() {
		switch o := o.(type) {
		case *knftables.Rule:
			i.rules[o.Chain]++
		case *knftables.Set:
			i.elements[o.Name] = 0
		case *knftables.Map:
			i.elements[o.Name] = 0
		}
	}
	for _, p := range f.programmed {
		for _, c := range p.chains {
			i.rules[c.name] += len(c.rules)
		}
	}
	for _, e := range f.elements {
		i.elements[e.Set+e.Map]++
	}
	return i
}

// difference names the first thing that other has more or less of.
func (i inventory) difference(other inventory) string {
	for _, kind := range []struct {
		what, where string
		want, has   map[string]int
	}{{"rules", "chain", i.rules, other.rules}, {"elements", "set", i.elements, other.elements}} {
		names := maps.Clone(kind.want)
		maps.Copy(names, kind.has)
		for _, name := range slices.Sorted(maps.Keys(names)) {
			if kind.want[name] != kind.has[name] {
				return fmt.Sprintf("%s %s has %d %s and should have %d", kind.where, name, kind.has[name], kind.what, kind.want[name])
			}
		}
	}
	return ""
}

// read counts what the kernel holds. A table or set that is gone is empty.
func (f *family) read(sets []string) (inventory, error) {
	i := inventory{rules: map[string]int{}, elements: map[string]int{}}
	rules, err := f.dump(unix.NFT_MSG_GETRULE, nl.NewRtAttr(unix.NFTA_RULE_TABLE, nl.ZeroTerminated(TableName)))
	if err != nil {
		return i, fmt.Errorf("list rules: %w", err)
	}
	for _, message := range rules {
		for attribute, value := range attributes(message) {
			if attribute == unix.NFTA_RULE_CHAIN {
				i.rules[text(value)]++
			}
		}
	}
	for _, set := range sets {
		messages, err := f.dump(unix.NFT_MSG_GETSETELEM, nl.NewRtAttr(unix.NFTA_SET_ELEM_LIST_TABLE, nl.ZeroTerminated(TableName)),
			nl.NewRtAttr(unix.NFTA_SET_ELEM_LIST_SET, nl.ZeroTerminated(set)))
		if err != nil {
			return i, fmt.Errorf("list elements of %s: %w", set, err)
		}
		for _, message := range messages {
			for attribute, list := range attributes(message) {
				if attribute == unix.NFTA_SET_ELEM_LIST_ELEMENTS {
					i.elements[set] += countElements(list)
				}
			}
		}
	}
	return i, nil
}

// countElements counts intervals once: the kernel lists their ends too.
func countElements(list []byte) int {
	n := 0
	for _, element := range split(list) {
		end := false
		for attribute, value := range split(element) {
			if attribute == unix.NFTA_SET_ELEM_FLAGS && len(value) >= 4 {
				end = binary.BigEndian.Uint32(value)&unix.NFT_SET_ELEM_INTERVAL_END != 0
			}
		}
		if !end {
			n++
		}
	}
	return n
}

func (f *family) dump(kind int, attributes ...*nl.RtAttr) ([][]byte, error) {
	family := uint8(unix.NFPROTO_IPV4)
	if f.ip() == "ip6" {
		family = unix.NFPROTO_IPV6
	}
	messages, err := dump.Whole(func() ([][]byte, error) {
		request := nl.NewNetlinkRequest(unix.NFNL_SUBSYS_NFTABLES<<8|kind, unix.NLM_F_DUMP)
		request.AddData(&nl.Nfgenmsg{NfgenFamily: family, Version: nl.NFNETLINK_V0})
		for _, attribute := range attributes {
			request.AddData(attribute)
		}
		return request.Execute(unix.NETLINK_NETFILTER, 0)
	})
	if errors.Is(err, unix.ENOENT) {
		return nil, nil
	}
	return messages, err
}

// Generation is a number that the kernel changes with every change of nftables
// in this network namespace.
func Generation() (uint32, error) {
	request := nl.NewNetlinkRequest(unix.NFNL_SUBSYS_NFTABLES<<8|unix.NFT_MSG_GETGEN, 0)
	request.AddData(&nl.Nfgenmsg{NfgenFamily: unix.AF_UNSPEC, Version: nl.NFNETLINK_V0})
	messages, err := request.Execute(unix.NETLINK_NETFILTER, 0)
	if err != nil {
		return 0, fmt.Errorf("read the generation of nftables: %w", err)
	}
	for _, message := range messages {
		for attribute, value := range attributes(message) {
			if attribute == unix.NFTA_GEN_ID && len(value) >= 4 {
				return binary.BigEndian.Uint32(value), nil
			}
		}
	}
	return 0, errors.New("read the generation of nftables: the kernel did not say")
}
