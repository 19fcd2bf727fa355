package ipvs

import (
	"strings"

	"github.com/skiff-run/skiff/proxy/table"
)

// printed is what the programs read that would make a kernel serve a table that
// has nothing of it yet.
func printed(t *table.Table, options Options, env environment) string {
	s := newState()
	s.update(t, options.Scheduler, env)
	var b strings.Builder
	line := func(words ...string) { b.WriteString(strings.Join(words, " ") + "\n") }
	line("# ipset restore -exist")
	for _, family := range families {
		for _, set := range setTypes {
			line(createSet(family, set.name, set.kind))
		}
	}
	for _, e := range s.missingElements() {
		line(e.add())
	}
	line("# ipvsadm-restore")
	for _, k := range s.keysInOrder() {
		for _, o := range extend(s.want[k], nil) {
			line(o.String())
		}
	}
	for _, family := range families {
		line("#", map[bool]string{false: "iptables-restore", true: "ip6tables-restore"}[family == families[1]], "--noflush")
		b.WriteString(restoreText(chains(family, options.ClusterCIDRs, s.toCluster[family]), jumps))
	}
	line("# ip -batch -")
	line("link add", HolderName, "type dummy")
	line("link set", HolderName, "up")
	for _, address := range s.missingHeld() {
		line("address add", address.String(), "dev", HolderName)
	}
	return b.String()
}
