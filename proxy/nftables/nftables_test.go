package nftables

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/knftables"

	"github.com/skiff-run/skiff/proxy/table"
)

func fakeFamily(t *testing.T) (*family, *knftables.Fake) {
	t.Helper()
	fake := knftables.NewFake(knftables.IPv4Family, TableName)
	return &family{kind: corev1.IPv4Protocol, nft: fake, options: Options{ClusterCIDRs: []netip.Prefix{netip.MustParsePrefix("10.244.0.0/16")}}}, fake
}

func port(name, clusterIP string, endpoints ...string) table.ServicePort {
	p := table.ServicePort{Name: name, Protocol: corev1.ProtocolTCP, ClusterIP: netip.MustParseAddr(clusterIP), Port: 80, HasEndpoints: len(endpoints) > 0}
	for _, e := range endpoints {
		p.Cluster = append(p.Cluster, table.Endpoint{Address: netip.MustParseAddrPort(e)})
	}
	return p
}

// many is a port with as many endpoints.
func many(name, clusterIP string, endpoints int) table.ServicePort {
	var addresses []string
	for i := range endpoints {
		addresses = append(addresses, fmt.Sprintf("10.244.1.%d:80", i+2))
	}
	return port(name, clusterIP, addresses...)
}

// sync programs the ports and returns how many operations that took.
func sync(t *testing.T, f *family, ports ...table.ServicePort) int {
	t.Helper()
	all := &table.Table{NodePortRanges: []netip.Prefix{netip.MustParsePrefix("0.0.0.0/0")}}
	for _, port := range ports {
		all.Ports = append(all.Ports, &port)
	}
	counting := &counter{Interface: f.nft}
	f.nft = counting
	defer func() { f.nft = counting.Interface }()
	if err := f.sync(t.Context(), all); err != nil {
		t.Fatal(err)
	}
	return counting.operations
}

// counter counts the operations that are run.
type counter struct {
	knftables.Interface
	operations int
}

func (c *counter) Run(ctx context.Context, tx *knftables.Transaction) error {
	c.operations += tx.NumOperations()
	return c.Interface.Run(ctx, tx)
}

func TestWhatChangesIsAllThatIsSent(t *testing.T) {
	t.Parallel()
	f, _ := fakeFamily(t)
	web, api := port("default/web:", "10.96.0.5", "10.244.0.2:80", "10.244.0.3:80"), port("default/api:", "10.96.0.6", "10.244.0.2:80")
	first := sync(t, f, web, api)
	if again := sync(t, f, web, api); again != 0 {
		t.Errorf("a sync without a change sends %d operations", again)
	}
	scaled := port("default/web:", "10.96.0.5", "10.244.0.2:80", "10.244.0.3:80", "10.244.0.4:80")
	if n := sync(t, f, scaled, api); n > 5 || n >= first {
		t.Errorf("one more endpoint sends %d operations", n)
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
	web := port("default/web:", "10.96.0.5", "10.244.0.2:80", "10.244.0.3:80")
	states := [][]table.ServicePort{
		{web},
		{nodePort(web, 30080)},
		{local(nodePort(web, 30080))},
		{affinity(web), port("default/api:", "10.96.0.6", "10.244.0.2:80")},
		{affinity(port("default/web:", "10.96.0.5", "10.244.0.3:80", "10.244.0.9:80"))},
		{port("default/web:", "10.96.0.5")},
		{nodePort(port("default/web:", "10.96.0.5"), 30081)},
		{port("default/other:", "10.96.0.5", "10.244.0.7:80")},
		{many("default/web:", "10.96.0.5", fewEndpoints+1), affinity(many("default/api:", "10.96.0.6", fewEndpoints+1))},
		{many("default/web:", "10.96.0.5", fewEndpoints), affinity(many("default/api:", "10.96.0.6", fewEndpoints))},
		{},
	}
	walked, walkedFake := fakeFamily(t)
	for i, state := range append(states, states[3], states[0]) {
		sync(t, walked, state...)
		fresh, freshFake := fakeFamily(t)
		sync(t, fresh, state...)
		if got, want := sorted(walkedFake.Dump()), sorted(freshFake.Dump()); got != want {
			t.Fatalf("step %d:\n%s\nwant\n%s", i, got, want)
		}
	}
}

// sorted drops the order of lines: chains are listed by age.
func sorted(dump string) string {
	lines := strings.Split(dump, "\n")
	slices.Sort(lines)
	return strings.Join(lines, "\n")
}

func TestRules(t *testing.T) {
	t.Parallel()
	f, fake := fakeFamily(t)
	web := port("default/web:http", "10.96.0.5", "10.244.0.2:8080", "10.244.0.3:8080")
	web.NodePort, web.SourceRanges, web.ExternalIPs = 30080, []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}, []netip.Addr{netip.MustParseAddr("203.0.113.1")}
	web.LoadBalancerIPs, web.Cluster[0].Local = []netip.Addr{netip.MustParseAddr("203.0.113.2")}, true
	gone := port("default/gone:", "10.96.0.7")
	away := port("default/away:", "10.96.0.8", "10.244.1.2:80")
	away.NodePort, away.ExternalLocal = 30081, true
	association := port("default/association:", "10.96.0.9", "10.244.1.2:80")
	association.Protocol = corev1.ProtocolSCTP
	sync(t, f, web, gone, away, association, many("default/many:", "10.96.0.10", fewEndpoints+1))
	dump := fake.Dump()
	for what, want := range map[string]string{
		"a choice among endpoints":           "numgen random mod 2 0 meta l4proto tcp dnat to 10.244.0.2:8080",
		"a choice among many":                "meta l4proto tcp dnat ip to numgen random mod 17 map { 0 : 10.244.1.2 . 80 , 1 : ",
		"source ranges":                      "ip saddr != { 192.0.2.0/24 } drop",
		"for the load balancer only":         "firewall-ips { 203.0.113.2 . tcp . 80 : goto firewall-",
		"SCTP":                               "meta l4proto sctp dnat to 10.244.1.2:80",
		"pods are served from everywhere":    "ip saddr { 10.244.0.0/16 } goto service-",
		"the cluster address leads to it":    "service-ips { 10.96.0.5 . tcp . 80 : goto service-",
		"the node port is masqueraded":       "service-nodeports { tcp . 30080 : goto external-",
		"the external address":               "service-ips { 203.0.113.1 . tcp . 80 : goto external-",
		"no endpoints: refused":              "no-endpoint-services { 10.96.0.7 . tcp . 80 : goto reject-chain }",
		"endpoints elsewhere only: dropped":  "no-endpoint-nodeports { tcp . 30081 : drop }",
		"a pod that talks to itself":         "hairpin-connections { 10.244.0.2 . 10.244.0.2 }",
		"from outside the pods' range":       "ip saddr != { 10.244.0.0/16 } ip daddr @cluster-ips jump mark-for-masquerade",
		"other ports of the address refused": "ip daddr @cluster-ips goto reject-chain",
	} {
		if !strings.Contains(dump, want) {
			t.Errorf("%s: %q is not in\n%s", what, want, dump)
		}
	}
}

func TestAnElementThatTwoPortsShareStaysForTheSecond(t *testing.T) {
	t.Parallel()
	f, fake := fakeFamily(t)
	http, https := port("default/web:http", "10.96.0.5", "10.244.0.2:80"), port("default/web:https", "10.96.0.5", "10.244.0.2:80")
	https.Port = 443
	shared := "cluster-ips { 10.96.0.5 }"
	sync(t, f, http, https)
	for _, step := range []struct {
		ports []table.ServicePort
		has   bool
	}{{[]table.ServicePort{https}, true}, {nil, false}, {[]table.ServicePort{http}, true}} {
		sync(t, f, step.ports...)
		if got := strings.Contains(fake.Dump(), shared); got != step.has {
			t.Errorf("with %d ports: the address is there: %t", len(step.ports), got)
		}
	}
}
