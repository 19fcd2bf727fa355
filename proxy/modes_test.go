package proxy_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os/exec"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/google/go-cmp/cmp"

	"github.com/skiff-run/skiff/internal/testenv"
	"github.com/skiff-run/skiff/internal/tracking"
	"github.com/skiff-run/skiff/proxy"
	"github.com/skiff-run/skiff/proxy/dns"
	"github.com/skiff-run/skiff/proxy/mode"
	"github.com/skiff-run/skiff/proxy/table"
)

// here are the modes that the kernel of the test machine has, each with the
// variant of its program.
var here = []struct{ name, variant string }{{"nftables", ""}, {"iptables", "nft"}, {"iptables", "legacy"}}

func open(name, variant string) (*mode.Mode, error) {
	return mode.Open(name, mode.Options{
		ClusterCIDRs: []netip.Prefix{netip.MustParsePrefix("10.244.0.0/16")}, IPTables: mode.IPTables{Variant: variant, LocalhostNodePorts: true},
	})
}

// start runs a proxy in a mode, as the daemon does, and returns what stops it
// and a channel that is closed when nothing of other modes is left.
func (n *node) start(t *testing.T, name, variant string) (stop func(), retired <-chan struct{}) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done, alone := make(chan error, 1), make(chan struct{})
	go func() {
		done <- n.in(func() error {
			chosen, err := open(name, variant)
			if err != nil {
				return err
			}
			p, err := proxy.New(proxy.Config{
				Client: n.client, NodeName: "here", Mode: chosen.Name, Backend: chosen.Backend, NodePorts: chosen.NodePorts, Logger: slog.New(slog.DiscardHandler),
				Retire: func(ctx context.Context) (bool, error) {
					gone, err := mode.Retire(ctx, chosen.Name)
					if gone {
						close(alone)
					}
					return gone, err
				},
			})
			if err != nil {
				return err
			}
			return p.Run(ctx)
		})
	}()
	return func() {
		t.Helper()
		cancel()
		if err := <-done; err != nil {
			t.Errorf("proxy in mode %s: %v", name, err)
		}
	}, alone
}

// echo answers every line that comes over a connection.
func (h *host) echo(port int) {
	h.t.Helper()
	var listener net.Listener
	h.must(func() (err error) {
		listener, err = net.Listen("tcp", fmt.Sprintf("0.0.0.0:%d", port))
		return err
	})
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for {
			connection, err := listener.Accept()
			if err != nil {
				return
			}
			go func() { // until the client closes
				defer connection.Close()
				_, _ = io.Copy(connection, connection)
			}()
		}
	}()
	h.t.Cleanup(func() { listener.Close(); <-ended })
}

// conversation sends lines over one connection all the time and counts the
// answers, until it is stopped or one does not come.
type conversation struct {
	answers atomic.Int64
	stopped chan struct{}
	failed  chan error
}

func (h *host) converse(t *testing.T, address string) *conversation {
	t.Helper()
	var connection net.Conn
	testenv.Eventually(t, 10*time.Second, func() bool {
		return h.in(func() (err error) {
			connection, err = net.DialTimeout("tcp", address, time.Second)
			return err
		}) == nil
	}, "no connection to %s", address)
	c := &conversation{stopped: make(chan struct{}), failed: make(chan error, 1)}
	go func() {
		defer connection.Close()
		lines := bufio.NewReader(connection)
		for {
			select {
			case <-c.stopped:
				c.failed <- nil
				return
			default:
			}
			_ = connection.SetDeadline(time.Now().Add(20 * time.Second))
			if _, err := io.WriteString(connection, "still there?\n"); err != nil {
				c.failed <- err
				return
			}
			if _, err := lines.ReadString('\n'); err != nil {
				c.failed <- err
				return
			}
			c.answers.Add(1)
		}
	}()
	return c
}

// goesOn waits for answers to lines that are sent from now on.
func (c *conversation) goesOn(t *testing.T, when string) {
	t.Helper()
	before := c.answers.Load()
	testenv.Eventually(t, 20*time.Second, func() bool {
		select {
		case err := <-c.failed:
			t.Fatalf("%s: the connection broke: %v", when, err)
		default:
		}
		return c.answers.Load() > before+2
	}, "%s: no answers any more", when)
}

func TestSwitchingModesAndRestartsKeepConnections(t *testing.T) {
	t.Parallel()
	testenv.RequireProgram(t, "iptables-legacy")
	n := newNode(t)
	n.must(func() error { return tracking.On(t.Context()) })
	n.pods[0].echo(9000)
	n.service(t, "long", at("10.96.0.7"), 0)
	slice := n.slice("long", []int{0})
	*slice.Ports[0].Port = 9000
	if _, err := n.client.DiscoveryV1().EndpointSlices("default").Update(t.Context(), slice, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	var fromPod, fromNode *conversation
	before := ""
	for _, m := range []struct{ name, variant string }{here[0], here[0], here[1], here[1], here[2], here[0], here[2], here[1], here[0]} {
		when := strings.TrimSpace(fmt.Sprintf("from %q to %s %s", before, m.name, m.variant))
		stop, retired := n.start(t, m.name, m.variant)
		select {
		case <-retired:
		case <-time.After(30 * time.Second):
			t.Fatalf("%s: what was there before is never removed", when)
		}
		if fromPod == nil {
			fromPod, fromNode = n.pods[1].converse(t, "10.96.0.7:80"), n.converse(t, "10.96.0.7:80")
		}
		fromPod.goesOn(t, when)
		fromNode.goesOn(t, when)
		fresh := n.pods[1].converse(t, "10.96.0.7:80")
		fresh.goesOn(t, when+", a new connection")
		close(fresh.stopped)
		for _, other := range here {
			if rules := n.rulesOf(other.name, other.variant); (rules != "") != (other == m) {
				t.Errorf("%s: mode %s %s has\n%s", when, other.name, other.variant, rules)
			}
		}
		stop()
		fromPod.goesOn(t, when+", stopped")
		before = m.name + " " + m.variant
	}
	for _, c := range []*conversation{fromPod, fromNode} {
		close(c.stopped)
		if err := <-c.failed; err != nil {
			t.Error(err)
		}
	}
}

// rulesOf are the rules that a mode has in the kernel.
func (h *host) rulesOf(name, variant string) string {
	command := "iptables-" + variant + "-save | grep -- '-A.*KUBE-'; ip6tables-" + variant + "-save | grep -- '-A.*KUBE-'"
	if name == "nftables" {
		command = "nft list tables | grep skiff-proxy"
	}
	var output []byte
	h.must(func() error {
		// grep fails when there is nothing.
		output, _ = exec.Command("sh", "-c", command).Output()
		return nil
	})
	return string(output)
}

// theirs is what an administrator and other programs have on the machine, some
// of it under names like ours.
const theirs = `
nft add table ip theirs
nft add chain ip theirs input '{ type filter hook input priority 5; policy accept; }'
nft add rule ip theirs input tcp dport 2222 accept
for v in nft legacy; do for f in iptables ip6tables; do
  $f-$v -N KUBE-KUBELET-CANARY
  $f-$v -N KUBE-ROUTER-FORWARD
  $f-$v -A FORWARD -m comment --comment "kube-router netpol" -j KUBE-ROUTER-FORWARD
  $f-$v -A INPUT -p tcp --dport 2222 -m comment --comment "says -j KUBE-SERVICES" -j ACCEPT
  $f-$v -A OUTPUT -p tcp --dport 9 -j DROP
  $f-$v -t nat -A OUTPUT -p tcp --dport 9 -j ACCEPT
  $f-$v -t nat -N DOCKER
  $f-$v -t nat -A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER
  $f-$v -t nat -A POSTROUTING -o eth7 -j MASQUERADE
  $f-$v -t mangle -A FORWARD -p tcp --tcp-flags SYN,RST SYN -j TCPMSS --clamp-mss-to-pmtu
done; done
`

// everything is all rules of the machine, of whatever program.
func (h *host) everything() string {
	var all string
	h.must(func() error {
		output, err := exec.Command("sh", "-c", `nft list ruleset; for f in iptables ip6tables; do
for v in nft legacy; do $f-$v-save 2>/dev/null; done; done | grep -v '^#' | sed 's/\[[0-9]*:[0-9]*\]//'; cat /proc/sys/net/ipv4/conf/all/route_localnet; ip -o link`).Output()
		all = string(output)
		return err
	})
	return all
}

func TestCleanupRemovesEveryModeAndNothingElse(t *testing.T) {
	t.Parallel()
	testenv.RequireRoot(t)
	testenv.RequireProgram(t, "nft")
	testenv.RequireProgram(t, "iptables-legacy")
	h := newHost(t)
	h.must(func() error {
		if output, err := exec.Command("sh", "-ec", theirs).CombinedOutput(); err != nil {
			return fmt.Errorf("%w: %s", err, output)
		}
		return nil
	})
	before := h.everything()
	services := &table.Table{NodePortRanges: []netip.Prefix{netip.MustParsePrefix("0.0.0.0/0"), netip.MustParsePrefix("::/0")}}
	for i, address := range []string{"10.96.0.5", "fd00:10:96::5"} {
		services.Ports = append(services.Ports, &table.ServicePort{
			Name: "default/web:http" + []string{"", "/ipv6"}[i], Protocol: "TCP", ClusterIP: netip.MustParseAddr(address), Port: 80, NodePort: 30080,
			Affinity: time.Hour, HasEndpoints: true,
			Cluster: []table.Endpoint{{Address: netip.AddrPortFrom(netip.MustParseAddr([]string{"10.244.0.2", "fd00::2"}[i]), 8080), Local: true}},
		})
	}
	for _, m := range here {
		during := before
		h.must(func() error {
			chosen, err := open(m.name, m.variant)
			if err != nil {
				return err
			}
			return errors.Join(tracking.On(t.Context()), chosen.Backend.Sync(t.Context(), services))
		})
		if now := h.everything(); now == during {
			t.Fatalf("mode %s %s programmed nothing", m.name, m.variant)
		} else {
			during = now
		}
	}
	for range 2 {
		h.must(func() error { return errors.Join(mode.Cleanup(t.Context()), dns.Cleanup(), tracking.Off(t.Context())) })
		if after := h.everything(); after != before {
			t.Errorf("before, and after:\n%s", cmp.Diff(before, after))
		}
	}
}
