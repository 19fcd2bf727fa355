package ipvs

import (
	_ "embed" // the golden file goes with the test's program into a machine
	"flag"
	"net/netip"
	"os"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/skiff-run/skiff/proxy/table"
)

//go:embed testdata/print.txt
var want string

var update = flag.Bool("update", false, "write the golden file anew")

// TestPrint compares what is programmed for one of everything with a file that
// a person can read.
func TestPrint(t *testing.T) {
	t.Parallel()
	address := netip.MustParseAddr
	here := func(p *table.ServicePort) {
		p.Local = []table.Endpoint{{Address: p.Cluster[0].Address, Local: true}}
		p.Cluster[0].Local = true
	}
	all := tableOf(
		with(port("default/affinity:", "10.96.0.1", "10.244.0.2:80"), func(p *table.ServicePort) { p.Affinity = time.Hour }),
		with(port("default/balancer:", "10.96.0.2", "10.244.0.2:80"), func(p *table.ServicePort) {
			p.LoadBalancerIPs = []netip.Addr{address("203.0.113.6")}
			p.SourceRanges = []netip.Prefix{netip.MustParsePrefix("198.51.100.0/24"), netip.MustParsePrefix("198.51.101.7/32")}
		}),
		with(port("default/dns:", "10.96.0.3", "10.244.0.2:53"), func(p *table.ServicePort) { p.Protocol = corev1.ProtocolUDP }),
		with(port("default/external:", "10.96.0.4", "10.244.0.2:80"), func(p *table.ServicePort) {
			p.ExternalIPs = []netip.Addr{address("203.0.113.5")}
			p.NodePort = 30080
			here(p)
		}),
		with(port("default/local:", "10.96.0.5", "10.244.0.2:80", "10.244.1.2:80"), func(p *table.ServicePort) {
			p.NodePort, p.ExternalLocal = 30081, true
			here(p)
		}),
		with(port("default/local-elsewhere:", "10.96.0.6", "10.244.1.2:80"), func(p *table.ServicePort) { p.NodePort, p.ExternalLocal = 30082, true }),
		with(port("default/local-twice:", "10.96.0.7", "10.244.0.2:80", "10.244.1.2:80"), func(p *table.ServicePort) {
			p.NodePort, p.ExternalLocal, p.InternalLocal = 30083, true, true
			here(p)
		}),
		port("default/nothing:", "10.96.0.8"),
		with(port("default/sctp:", "10.96.0.9", "10.244.0.2:80"), func(p *table.ServicePort) { p.Protocol, p.NodePort = corev1.ProtocolSCTP, 30084 }),
		with(port("default/open:/ipv6", "fd00:10:96::1", "[fd00:10:244::2]:80"), func(p *table.ServicePort) {
			p.LoadBalancerIPs = []netip.Addr{address("2001:db8:113::6")}
			p.SourceRanges = []netip.Prefix{netip.MustParsePrefix("::/0")}
		}),
	)
	all.HealthChecks = []table.HealthCheck{{Port: 31000}}
	options := Options{Scheduler: "mh", ClusterCIDRs: []netip.Prefix{netip.MustParsePrefix("10.244.0.0/16"), netip.MustParsePrefix("fd00:10:244::/48")}}
	env := environmentOf([]netip.Addr{address("192.0.2.1"), address("127.0.0.1"), address("fe80::1"), address("2001:db8:2::1")}, all.NodePortRanges)
	got := printed(all, options, env)
	const golden = "testdata/print.txt"
	if *update {
		if err := os.WriteFile(golden, []byte(got), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if got != want && !*update {
		t.Errorf("not as in %s; after a look: go test ./proxy/ipvs -run TestPrint -update\n%s", golden, got)
	}
}
