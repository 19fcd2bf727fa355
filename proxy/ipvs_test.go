package proxy_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/skiff-run/skiff/internal/testenv"
	"github.com/skiff-run/skiff/internal/tracking"
	"github.com/skiff-run/skiff/proxy"
	"github.com/skiff-run/skiff/proxy/dns"
	"github.com/skiff-run/skiff/proxy/mode"
	"github.com/skiff-run/skiff/proxy/table"
)

// requireIPVS skips the test where the kernel has no IPVS.
func requireIPVS(t *testing.T) {
	t.Helper()
	testenv.RequireRoot(t)
	_ = exec.Command("modprobe", "ip_vs").Run() // what counts is whether it is there
	if _, err := os.Stat("/proc/net/ip_vs"); err != nil {
		t.Skip("the kernel has no IPVS: `make test-ipvs` runs this in a virtual machine")
	}
	testenv.RequireProgram(t, "nft", "iptables", "ipset", "ipvsadm")
}

// theirIPVS is what an administrator has of IPVS and ipsets on the machine.
const theirIPVS = `
ip link add dummy7 type dummy; ip address add 198.51.100.7/32 dev dummy7
ipset create KUBE-THEIRS hash:ip; ipset add KUBE-THEIRS 203.0.113.9
iptables -A INPUT -m set --match-set KUBE-THEIRS src -j DROP
for f in iptables ip6tables; do for chain in PREROUTING OUTPUT; do $f -t mangle -A $chain -p tcp --dport 9 -j MARK --set-mark 7; done; done
ipvsadm -A -t 198.51.100.7:443 -s wlc; ipvsadm -a -t 198.51.100.7:443 -r 198.51.100.20:443 -m -w 5
ipvsadm -A -u 192.0.2.1:514 -s sh; ipvsadm -A -f 7 -s rr; ipvsadm -a -f 7 -r 198.51.100.21 -g
ipvsadm -A -t 10.96.200.1:80 -s rr
`

// everythingOfIPVS is all of it on the machine, and all rules.
func (h *host) everythingOfIPVS() string {
	var all string
	h.must(func() error {
		output, err := exec.Command("sh", "-c", "ipvsadm -Sn | sort; ipset save | sort; ip address").Output()
		all = string(output)
		return err
	})
	return all + h.everything()
}

func TestIPVSCleanupLeavesTheirsAlone(t *testing.T) {
	t.Parallel()
	requireIPVS(t)
	h := newHost(t)
	h.must(func() error {
		if output, err := exec.Command("sh", "-ec", theirs+theirIPVS).CombinedOutput(); err != nil {
			return fmt.Errorf("%w: %s", err, output)
		}
		return nil
	})
	before := h.everythingOfIPVS()
	port := func(name, address string, nodePort uint16) *table.ServicePort {
		return &table.ServicePort{
			Name: name, Protocol: "TCP", ClusterIP: netip.MustParseAddr(address), Port: 80, NodePort: nodePort, Affinity: time.Hour, HasEndpoints: true,
			Cluster: []table.Endpoint{{Address: netip.MustParseAddrPort(map[bool]string{false: "10.244.0.2:8080", true: "[fd00::2]:8080"}[strings.Contains(address, ":")]), Local: true}},
		}
	}
	everywhere := []netip.Prefix{netip.MustParsePrefix("0.0.0.0/0"), netip.MustParsePrefix("::/0")}
	several := &table.Table{NodePortRanges: everywhere, Ports: []*table.ServicePort{
		port("default/a:", "10.96.0.5", 30080), port("default/b:", "10.96.0.6", 30081), port("default/c:/ipv6", "fd00:10:96::5", 30080),
	}}
	fewer := &table.Table{NodePortRanges: everywhere, Ports: several.Ports[:1]}
	// program is what one process does: the second one knows nothing of the first.
	program := func(tables ...*table.Table) {
		h.must(func() error {
			chosen, err := mode.Open("ipvs", mode.Options{ClusterCIDRs: []netip.Prefix{netip.MustParsePrefix("10.244.0.0/16")}})
			if err != nil {
				return err
			}
			for _, each := range tables {
				if err := chosen.Backend.Sync(t.Context(), each); err != nil {
					return err
				}
				if found, err := chosen.Backend.Check(t.Context()); err != nil || found != "" {
					return errors.Join(err, fmt.Errorf("after a sync: %s", found))
				}
			}
			return nil
		})
	}
	program(several)
	full := h.everythingOfIPVS()
	program(fewer)
	small := h.everythingOfIPVS()
	for _, of := range []struct{ what, gone string }{{full, "10.96.0.6"}, {full, "30081"}, {full, "fd00:10:96::5"}} {
		if !strings.Contains(of.what, of.gone) || strings.Contains(small, of.gone) {
			t.Errorf("%s was not programmed, or was left by a process that did not know it", of.gone)
		}
	}
	if !strings.Contains(small, "10.96.200.1:80") {
		t.Error("a virtual service of others is gone")
	}
	program(several)
	for range 2 {
		h.must(func() error { return errors.Join(mode.Cleanup(t.Context()), dns.Cleanup(), tracking.Off(t.Context())) })
		if after := h.everythingOfIPVS(); after != before {
			t.Errorf("before, and after:\n%s", cmp.Diff(before, after))
		}
	}
}

// hangUp ends a connection with a reset, after which the kernel does not remember
// it for minutes.
func hangUp(connection net.Conn) error {
	tcp, is := connection.(*net.TCPConn)
	if !is {
		return fmt.Errorf("%T is no TCP connection", connection)
	}
	return errors.Join(tcp.SetLinger(0), tcp.Close())
}

// TestIPVSHandsOver: switching to and from IPVS keeps connections, and what they
// need of IPVS goes when they do.
func TestIPVSHandsOver(t *testing.T) {
	t.Parallel()
	requireIPVS(t)
	n := newNode(t)
	n.must(func() error { return tracking.On(t.Context()) })
	n.pods[0].echo(9000)
	n.service(t, "long", at("10.96.0.7"), 0)
	slice := n.slice("long", []int{0})
	*slice.Ports[0].Port = 9000
	if _, err := n.client.DiscoveryV1().EndpointSlices("default").Update(t.Context(), slice, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	var open []net.Conn
	connect := func(when string) {
		for _, from := range []*host{n.pods[1], n.host} {
			var connection net.Conn
			testenv.Eventually(t, 20*time.Second, func() bool {
				return from.in(func() (err error) {
					connection, err = net.DialTimeout("tcp", "10.96.0.7:80", time.Second)
					return err
				}) == nil
			}, "%s: no connection", when)
			open = append(open, connection)
		}
	}
	answered := func(when string) {
		t.Helper()
		for i, connection := range open {
			_ = connection.SetDeadline(time.Now().Add(20 * time.Second))
			answer := make([]byte, 6)
			if _, err := connection.Write([]byte("hello\n")); err != nil {
				t.Fatalf("%s: connection %d: %v", when, i, err)
			}
			if _, err := connection.Read(answer); err != nil || string(answer) != "hello\n" {
				t.Fatalf("%s: connection %d answers %q, %v", when, i, answer, err)
			}
		}
	}
	gone := func(when, name string, retired <-chan struct{}) {
		t.Helper()
		select {
		case <-retired:
		case <-time.After(60 * time.Second):
			t.Fatalf("%s: what mode %s had is not removed:\n%s", when, name, n.everythingOfIPVS())
		}
	}
	stop, retired := n.start(t, "nftables", "")
	gone("at first", "none", retired)
	connect("nftables")
	answered("nftables")
	stop()
	stop, retired = n.start(t, "ipvs", "")
	gone("from nftables to ipvs", "nftables", retired)
	connect("ipvs")
	answered("ipvs")
	stop()
	stop, _ = n.start(t, "ipvs", "")
	answered("ipvs, started again")
	stop()
	stop, retired = n.start(t, "iptables", "nft")
	all := ""
	testenv.Eventually(t, 30*time.Second, func() bool {
		all = n.everythingOfIPVS()
		return strings.Contains(all, "-a -t 10.96.0.7:80 -r 10.244.0.2:9000 -m -w 0") && !strings.Contains(all, "KUBE-IPVS-MASQ") && !strings.Contains(all, "-A -u")
	}, "what mode ipvs left does not only wait for its connections")
	connect("iptables")
	answered("iptables")
	select {
	case <-retired:
		t.Error("nothing of IPVS is left though connections need it")
	default:
	}
	for _, connection := range open[2:4] {
		if err := hangUp(connection); err != nil {
			t.Fatal(err)
		}
	}
	open = append(open[:2], open[4:]...)
	gone("after the connections ended", "ipvs", retired)
	answered("at last")
	if all = n.everythingOfIPVS(); strings.Contains(all, "kube-ipvs0") || strings.Contains(all, "KUBE-IPVS") || strings.Contains(all, "KUBE-6") || strings.Contains(all, "-A -t") {
		t.Errorf("left of mode ipvs:\n%s", all)
	}
	stop()
	for _, connection := range open {
		_ = connection.Close()
	}
}

// TestIPVSFinishesByItself: a running proxy removes an endpoint when its last
// connection has ended, and serves node ports on addresses that the machine gets.
func TestIPVSFinishesByItself(t *testing.T) {
	t.Parallel()
	requireIPVS(t)
	n := newNode(t)
	n.pods[0].echo(9000)
	n.pods[1].echo(9000)
	n.service(t, "web", at("10.96.0.7"), 0)
	toPod := func(pods ...int) {
		slice := n.slice("web", pods)
		*slice.Ports[0].Port = 9000
		if _, err := n.client.DiscoveryV1().EndpointSlices("default").Update(t.Context(), slice, metav1.UpdateOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	toPod(0)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		done <- n.in(func() error {
			chosen, err := open("ipvs", "")
			if err != nil {
				return err
			}
			p, err := proxy.New(proxy.Config{
				Client: n.client, NodeName: "here", Backend: chosen.Backend, NodePorts: chosen.NodePorts, CheckPeriod: 200 * time.Millisecond, Logger: slog.New(slog.DiscardHandler),
			})
			if err != nil {
				return err
			}
			return p.Run(ctx)
		})
	}()
	defer func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}()
	var connection net.Conn
	testenv.Eventually(t, 20*time.Second, func() bool {
		return n.in(func() (err error) {
			connection, err = net.DialTimeout("tcp", "10.96.0.7:80", time.Second)
			return err
		}) == nil
	}, "no connection")
	services := func() string {
		var output []byte
		n.must(func() (err error) {
			output, err = exec.Command("ipvsadm", "-Sn").Output()
			return err
		})
		return string(output)
	}
	toPod(1)
	testenv.Eventually(t, 20*time.Second, func() bool {
		return strings.Contains(services(), "-r 10.244.0.2:9000 -m -w 0") && strings.Contains(services(), "-r 10.244.0.3:9000 -m -w 1")
	}, "the endpoint with a connection does not get weight 0")
	if err := hangUp(connection); err != nil {
		t.Fatal(err)
	}
	testenv.Eventually(t, 60*time.Second, func() bool { return !strings.Contains(services(), "10.244.0.2:9000") }, "the endpoint stays after its last connection")
}
