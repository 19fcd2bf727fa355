package iptables

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/skiff-run/skiff/proxy/table"
)

// kernel understands what a transaction writes, as iptables-restore --noflush does.
type kernel map[chainKey][]string

func (k kernel) apply(t *testing.T, text string) {
	t.Helper()
	current := ""
	for _, line := range strings.Split(strings.TrimSpace(text), "\n") {
		verb, rest, _ := strings.Cut(line, " ")
		name, rule, _ := strings.Cut(rest, " ")
		key := chainKey{current, name}
		_, exists := k[key]
		switch {
		case strings.HasPrefix(line, "*"):
			current = line[1:]
			continue
		case line == "COMMIT":
			continue
		case strings.HasPrefix(line, ":"):
			k[chainKey{current, verb[1:]}] = []string{}
			continue
		case !exists:
			t.Fatalf("%s: there is no such chain", line)
		case verb == "-A":
			k[key] = append(k[key], rule)
		case verb == "-I":
			k[key] = append([]string{rule}, k[key]...)
		case verb == "-D":
			at := slices.Index(k[key], rule)
			if at < 0 {
				t.Fatalf("%s: there is no such rule", line)
			}
			k[key] = slices.Delete(slices.Clone(k[key]), at, at+1)
		case verb == "-X":
			if len(k[key]) > 0 {
				t.Fatalf("%s: not empty", line)
			}
			delete(k, key)
		default:
			t.Fatalf("line %q", line)
		}
	}
	// What the kernel refuses: a jump to a chain that is not there.
	for key, rules := range k {
		for _, rule := range rules {
			if _, target, jumps := cutLast(rule, " -j "); jumps && strings.HasPrefix(target, "KUBE-") {
				if _, exists := k[chainKey{key.table, target}]; !exists {
					t.Fatalf("%s %s jumps to a chain that is gone: %s", key.table, key.chain, rule)
				}
			}
		}
	}
}

// String has the rules of each chain in order, but for those of chains that
// services share, where the order means nothing.
func (k kernel) String() string {
	var b strings.Builder
	for _, key := range slices.SortedFunc(maps.Keys(k), compareChains) {
		rules := slices.Clone(k[key])
		if key.chain == servicesChain || key.chain == nodePortsChain || key.table == filter && key.chain != forwardChain && key.chain != rejectChain {
			slices.Sort(rules)
		}
		fmt.Fprintf(&b, "%s %s\n\t%s\n", key.table, key.chain, strings.Join(rules, "\n\t"))
	}
	return b.String()
}

func fakeFamily() *family {
	return &family{
		kind: corev1.IPv4Protocol, program: &program{kind: corev1.IPv4Protocol, variant: NFT}, metrics: newMetrics(),
		options: Options{ClusterCIDRs: []netip.Prefix{netip.MustParsePrefix("10.244.0.0/16")}, LocalhostNodePorts: true},
	}
}

func port(name, clusterIP string, endpoints ...string) table.ServicePort {
	p := table.ServicePort{Name: name, Protocol: corev1.ProtocolTCP, ClusterIP: netip.MustParseAddr(clusterIP), Port: 80, HasEndpoints: len(endpoints) > 0}
	for _, e := range endpoints {
		p.Cluster = append(p.Cluster, table.Endpoint{Address: netip.MustParseAddrPort(e)})
	}
	return p
}

func everywhere(ports ...table.ServicePort) *table.Table {
	all := &table.Table{NodePortRanges: []netip.Prefix{netip.MustParsePrefix("0.0.0.0/0")}}
	for _, p := range ports {
		all.Ports = append(all.Ports, &p)
	}
	return all
}

// sync applies the difference and returns how many rules and chains it wrote.
func sync(t *testing.T, f *family, k kernel, all *table.Table) (rules, chains int) {
	t.Helper()
	tx, next := f.transaction(all, &inventory{})
	if !tx.empty() {
		parts := maps.Clone(k)
		k.apply(t, tx.String())
		// In several changes it comes to the same, and every one of them is whole.
		for _, part := range strings.SplitAfter(strings.TrimSuffix(tx.text(3), "\n"), "COMMIT\n") {
			parts.apply(t, part)
		}
		if parts.String() != k.String() {
			t.Fatalf("in parts:\n%s\nat once:\n%s", parts, k)
		}
	}
	f.state = next
	return tx.lines(), tx.chains()
}

func TestWhatChangesIsAllThatIsWritten(t *testing.T) {
	t.Parallel()
	f, k := fakeFamily(), kernel{}
	var ports []table.ServicePort
	for i := range 200 {
		ports = append(ports, port(fmt.Sprintf("default/s%d:", i), fmt.Sprintf("10.96.0.%d", i), fmt.Sprintf("10.244.0.%d:80", i), fmt.Sprintf("10.244.1.%d:80", i)))
	}
	all := everywhere(ports...)
	sync(t, f, k, all)
	if rules, chains := sync(t, f, k, all); rules != 0 || chains != 0 {
		t.Errorf("a sync without a change writes %d rules and %d chains", rules, chains)
	}
	// The service's chain has one rule more, its new endpoint one rule, and
	// KUBE-SERVICES none.
	ports[7] = port("default/s7:", "10.96.0.7", "10.244.0.7:80", "10.244.1.7:80", "10.244.2.7:80")
	next := everywhere(ports...)
	for i := range next.Ports {
		if i != 7 {
			next.Ports[i] = all.Ports[i]
		}
	}
	if rules, chains := sync(t, f, k, next); rules != 5 || chains != 2 {
		t.Errorf("one more endpoint writes %d rules and %d chains", rules, chains)
	}
	// A service that goes takes its own rules and no more.
	next.Ports = slices.Delete(slices.Clone(next.Ports), 3, 4)
	if rules, chains := sync(t, f, k, next); rules != 2 || chains != 3 {
		t.Errorf("a service less writes %d rules and %d chains", rules, chains)
	}
}

// The state after any path of changes is the state from scratch.
func TestTheWayDoesNotMatter(t *testing.T) {
	t.Parallel()
	nodePort := func(p table.ServicePort, number uint16) table.ServicePort { p.NodePort = number; return p }
	affinity := func(p table.ServicePort) table.ServicePort { p.Affinity = time.Hour; return p }
	local := func(p table.ServicePort) table.ServicePort {
		p.ExternalLocal, p.Local = true, p.Cluster[:1]
		return p
	}
	balanced := func(p table.ServicePort) table.ServicePort {
		p.LoadBalancerIPs, p.SourceRanges = []netip.Addr{netip.MustParseAddr("203.0.113.5")}, []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}
		return p
	}
	web := port("default/web:", "10.96.0.5", "10.244.0.2:80", "10.244.0.3:80")
	var many []table.ServicePort
	for i := range 2 * fewEdits {
		many = append(many, nodePort(port(fmt.Sprintf("default/m%d:", i), fmt.Sprintf("10.96.%d.9", i), "10.244.0.2:80"), uint16(31000+i)))
	}
	https := port("default/web:https", "10.96.0.5", "10.244.0.2:443")
	https.Port = 443
	states := [][]table.ServicePort{
		{web},
		{web, https},
		{nodePort(web, 30080), https},
		{local(nodePort(web, 30080))},
		{balanced(local(nodePort(web, 30080)))},
		{affinity(web), port("default/api:", "10.96.0.6", "10.244.0.2:80")},
		{affinity(port("default/web:", "10.96.0.5", "10.244.0.3:80", "10.244.0.9:80"))},
		append([]table.ServicePort{web}, many...),
		{port("default/web:", "10.96.0.5")},
		{balanced(nodePort(port("default/web:", "10.96.0.5"), 30081))},
		{port("default/other:", "10.96.0.5", "10.244.0.7:80")},
		{},
	}
	walked, has := fakeFamily(), kernel{}
	for i, state := range append(states, states[4], states[7], states[0]) {
		sync(t, walked, has, everywhere(state...))
		fresh, want := fakeFamily(), kernel{}
		sync(t, fresh, want, everywhere(state...))
		if has.String() != want.String() {
			t.Fatalf("step %d:\n%s\nwant\n%s", i, has, want)
		}
		if difference := walked.inventory().difference(fresh.inventory()); difference != "" {
			t.Errorf("step %d: %s", i, difference)
		}
	}
}

// TestRules holds what administrators know from kube-proxy.
func TestRules(t *testing.T) {
	t.Parallel()
	f, k := fakeFamily(), kernel{}
	web := port("default/web:http", "10.96.0.5", "10.244.0.2:8080", "10.244.0.3:8080")
	web.NodePort, web.Affinity, web.Cluster[0].Local = 30080, 3*time.Hour, true
	away := port("default/away:", "10.96.0.8", "10.244.1.2:80")
	away.NodePort, away.ExternalLocal = 30081, true
	sync(t, f, k, everywhere(web, port("default/gone:", "10.96.0.7"), away))
	const prefix = "-m comment --comment "
	if name := chainName(servicePrefix, "kube-system/kube-dns:dns", "udp"); name != "KUBE-SVC-TCOU7JCQXEZGVUNU" {
		t.Errorf("the chain of kube-dns is called %s", name)
	}
	svc := chainName(servicePrefix, "default/web:http", "tcp")
	ext := chainName(externalPrefix, "default/web:http", "tcp")
	first := chainName(endpointPrefix, "default/web:http", "tcp", "10.244.0.2:8080")
	for key, want := range map[chainKey]string{
		{nat, servicesChain}:            "-d 10.96.0.5/32 -p tcp " + prefix + `"default/web:http cluster IP" -m tcp --dport 80 -j ` + svc,
		{nat, nodePortsChain}:           "-p tcp " + prefix + `"default/web:http" -m tcp --dport 30080 -j ` + ext,
		{nat, ext}:                      prefix + `"masquerade traffic for default/web:http external destinations" -j KUBE-MARK-MASQ`,
		{nat, svc}:                      prefix + `"default/web:http -> 10.244.0.2:8080" -m statistic --mode random --probability 0.50000000000 -j ` + first,
		{nat, first}:                    "-p tcp " + prefix + `"default/web:http" -m recent --set --name ` + first + " --rsource -m tcp -j DNAT --to-destination 10.244.0.2:8080",
		{nat, markChain}:                "-j MARK --or-mark 0x4000",
		{filter, forwardChain}:          "-m conntrack --ctstate INVALID -j DROP",
		{filter, servicesChain}:         "-d 10.96.0.7/32 -p tcp " + prefix + `"default/gone has no endpoints" -m tcp --dport 80 -j REJECT --reject-with tcp-reset`,
		{filter, externalServicesChain}: "-m addrtype --dst-type LOCAL -p tcp " + prefix + `"default/away has no local endpoints" -m tcp --dport 30081 -j DROP`,
		{filter, localnetChain}:         `-d 127.0.0.0/8 ! -s 127.0.0.0/8 ` + prefix + `"block incoming localnet connections" -m conntrack ! --ctstate RELATED,ESTABLISHED,DNAT -j DROP`,
	} {
		if !slices.Contains(k[key], want) {
			t.Errorf("%q is not in %s %s:\n%s", want, key.table, key.chain, strings.Join(k[key], "\n"))
		}
	}
	if rules := k[chainKey{nat, servicesChain}]; !strings.HasSuffix(rules[len(rules)-1], "-j KUBE-NODEPORTS") {
		t.Errorf("the jump to the node ports is not last: %v", rules)
	}
	if rules := k[chainKey{nat, first}]; rules[0] != "-s 10.244.0.2/32 "+prefix+`"default/web:http" -j KUBE-MARK-MASQ` {
		t.Errorf("a pod that talks to itself: %v", rules)
	}
}

func TestManyEndpointsHaveNoComments(t *testing.T) {
	t.Parallel()
	endpoints := make([]string, largeFrom+1)
	for i := range endpoints {
		endpoints[i] = fmt.Sprintf("10.244.%d.%d:80", i/200, i%200+1)
	}
	large := everywhere(port("default/large:", "10.96.0.5", endpoints...))
	small := everywhere(port("default/small:", "10.96.0.5", endpoints[:largeUntil]...))
	between := everywhere(port("default/small:", "10.96.0.5", endpoints[:largeUntil+1]...))
	for _, step := range []struct {
		was  bool
		t    *table.Table
		want bool
	}{{false, large, true}, {true, large, true}, {true, between, true}, {false, between, false}, {true, small, false}} {
		if got := isLarge(step.was, step.t, corev1.IPv4Protocol); got != step.want {
			t.Errorf("%d endpoints after %t: large %t", len(step.t.Ports[0].Cluster), step.was, got)
		}
	}
	f, k := fakeFamily(), kernel{}
	f.large = true
	sync(t, f, k, large)
	if rules := k[chainKey{nat, chainName(servicePrefix, "default/large", "tcp")}]; strings.Contains(rules[len(rules)-1], "comment") {
		t.Errorf("a comment in %s", rules[len(rules)-1])
	}
}
