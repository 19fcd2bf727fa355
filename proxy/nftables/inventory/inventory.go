// Package inventory counts what nftables tables hold in the kernel.
//
// Counting finds what a person, another program or a flush removed or added,
// and costs milliseconds where reading and comparing every rule would take
// seconds.
package inventory

import (
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/skiff-run/skiff/internal/dump"
)

// Inventory counts what a table holds: rules by chain, elements by set or map.
type Inventory struct {
	Rules, Elements map[string]int
}

// New returns an empty inventory.
func New() Inventory { return Inventory{Rules: map[string]int{}, Elements: map[string]int{}} }

// Difference names the first thing that other has more or less of, empty for nothing.
func (i Inventory) Difference(other Inventory) string {
	for _, kind := range []struct {
		what, where string
		want, has   map[string]int
	}{{"rules", "chain", i.Rules, other.Rules}, {"elements", "set", i.Elements, other.Elements}} {
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

// Table is one table of the kernel's.
type Table struct {
	// Family is NFPROTO_IPV4, NFPROTO_IPV6 or NFPROTO_INET.
	Family uint8
	Name   string
}

// Read counts what the kernel holds of the table, elements only of these sets
// and maps. A table or set that is gone is empty.
func (t Table) Read(sets []string) (Inventory, error) {
	i := New()
	rules, err := t.dump(unix.NFT_MSG_GETRULE, nl.NewRtAttr(unix.NFTA_RULE_TABLE, nl.ZeroTerminated(t.Name)))
	if err != nil {
		return i, fmt.Errorf("list rules: %w", err)
	}
	for _, message := range rules {
		for attribute, value := range attributes(message) {
			if attribute == unix.NFTA_RULE_CHAIN {
				i.Rules[text(value)]++
			}
		}
	}
	for _, set := range sets {
		messages, err := t.dump(unix.NFT_MSG_GETSETELEM, nl.NewRtAttr(unix.NFTA_SET_ELEM_LIST_TABLE, nl.ZeroTerminated(t.Name)),
			nl.NewRtAttr(unix.NFTA_SET_ELEM_LIST_SET, nl.ZeroTerminated(set)))
		if err != nil {
			return i, fmt.Errorf("list elements of %s: %w", set, err)
		}
		for _, message := range messages {
			for attribute, list := range attributes(message) {
				if attribute == unix.NFTA_SET_ELEM_LIST_ELEMENTS {
					i.Elements[set] += countElements(list)
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

func (t Table) dump(kind int, attributes ...*nl.RtAttr) ([][]byte, error) {
	messages, err := dump.Whole(func() ([][]byte, error) {
		request := nl.NewNetlinkRequest(unix.NFNL_SUBSYS_NFTABLES<<8|kind, unix.NLM_F_DUMP)
		request.AddData(&nl.Nfgenmsg{NfgenFamily: t.Family, Version: nl.NFNETLINK_V0})
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
